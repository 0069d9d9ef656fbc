"""Supervised fine-tuning: what is learned, with which weight, and when it stops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from demoalign.config import AdapterConfig, RolloutsConfig, SftConfig
from demoalign.demonstrations.render import Rendered, render
from demoalign.errors import TrainingError
from demoalign.policies import Backbone, Policy
from demoalign.policies.learning import seen_states
from demoalign.policies.sft import (
    IGNORED,
    Collator,
    occupancy_weights,
    train_sft,
    training_row,
    weighted_nll,
)
from demoalign.records import Prompt
from demoalign.rollouts import PromptSpec, TransformersEngine
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone

Weighting = Literal["none", "occupancy"]
QUICK = SftConfig(epochs=1, batch_size=4, accumulation=1, learning_rate=1e-2, checkpoints=0)
WEIGHTINGS: tuple[Weighting, ...] = ("none", "occupancy")
PAIRS = [
    ("Is it off?", " Yes."),
    ("Why does it not print?", " It has no paper left."),
    ("Lamp?", " Hold the key."),
    ("Who pays for the repair?", " Your warranty does."),
]


def rows_of(backbone: Backbone, is_chat: bool = False) -> list[Rendered]:
    return [
        render(backbone.tokenizer, chat(prompt) if is_chat else prompt, completion)
        for prompt, completion in PAIRS
    ]


def adapted(folder: Path, adapter: AdapterConfig | None = None) -> Backbone:
    backbone = load_backbone(folder)
    backbone.add_adapter("sft", adapter or AdapterConfig(r=8), seed=0)
    return backbone


def lora(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in backbone.causal.named_parameters() if "lora" in n}


# Rows and batches


@pytest.mark.parametrize("is_chat", [False, True], ids=["plain", "chat"])
def test_prompts_are_masked_and_the_end_is_learned(
    model_folder: ModelFolder, tokenizer_kind: str, is_chat: bool
) -> None:
    backbone = load_backbone(model_folder("llama", tokenizer_kind))
    rows = rows_of(backbone, is_chat)
    batch = Collator(backbone.tokenizer.pad_token_id)([training_row(row, QUICK) for row in rows])
    for number, row in enumerate(rows):
        start, end = len(row.prompt_ids), len(row.ids)
        labels = batch["labels"][number]
        assert labels[:start].eq(IGNORED).all()
        assert labels[start:end].tolist() == row.completion_ids
        assert labels[end - 1] == row.completion_ids[-1] != IGNORED
        assert labels[end:].eq(IGNORED).all()
        assert batch["input_ids"][number, :end].tolist() == row.ids
        assert batch["input_ids"][number, end:].eq(backbone.tokenizer.pad_token_id).all()
        assert batch["attention_mask"][number].tolist() == [1] * end + [0] * (len(labels) - end)


def test_rows_are_cut_at_max_length() -> None:
    row = Rendered([1, 2, 3], [4, 5, 6, 7])
    config = SftConfig(max_length=5, token_weighting="occupancy")
    assert training_row(row, config) == {
        "input_ids": [1, 2, 3, 4, 5],
        "labels": [IGNORED] * 3 + [4, 5],
        "loss_weights": [0, 0, 0, 1.0, 0.75],
    }


def test_truncation_is_counted(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = adapted(model_folder("llama", "bos"))
    rows = rows_of(backbone)
    lengths = sorted(len(row.ids) for row in rows)
    limit = lengths[-2]
    config = QUICK.model_copy(update={"max_length": limit})
    summary = train_sft(backbone, "sft", rows, config, 0, tmp_path)
    assert summary.truncated == sum(length > limit for length in lengths) == 1
    with pytest.raises(TrainingError, match=r"sft\.max_length: must leave room .*found 2 with"):
        train_sft(backbone, "sft", rows, QUICK.model_copy(update={"max_length": 2}), 0, tmp_path)


# Losses


def test_occupancy_weights_by_hand() -> None:
    assert occupancy_weights(4) == [1, 0.75, 0.5, 0.25]
    assert occupancy_weights(1) == [1]


def test_weighted_nll_and_its_gradient_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
    loss = weighted_nll(logits, torch.tensor([1, 0]), torch.tensor([1.0, 0.5]), 2)
    first, second = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))  # p of each label
    wanted = -(math.log(first) + 0.5 * math.log(second)) / 2
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    (found,) = torch.autograd.grad(loss, logits)
    # d loss / d logits = weight (softmax - one-hot) / normaliser
    gradient = torch.tensor([[1 - first, first - 1], [0.5 * (second - 1), 0.5 * (1 - second)]])
    torch.testing.assert_close(found, gradient / 2)


def learned_nll(backbone: Backbone, batch: dict[str, Tensor], weights: Tensor) -> Tensor:
    """The loss from logits at every place of the batch."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    targets = batch["labels"][:, 1:]
    kept = targets != IGNORED
    logits = backbone.causal(**inputs).logits[:, :-1]
    return weighted_nll(logits[kept], targets[kept], weights[:, 1:][kept], kept.sum())


def test_logits_are_made_where_they_are_wanted_only(model_folder: ModelFolder) -> None:
    for architecture in ("llama", "gpt2"):
        causal = load_backbone(model_folder(architecture, "bos")).causal
        ids = torch.randint(40, 90, (3, 7), generator=torch.Generator().manual_seed(0))
        places = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) < 0.4
        whole = causal(input_ids=ids).logits
        with seen_states(causal, places):
            found = causal(input_ids=ids).logits
        assert found.shape == (int(places.sum()), whole.shape[-1])
        torch.testing.assert_close(found, whole[places])
        torch.testing.assert_close(causal(input_ids=ids).logits, whole)


def test_unit_weights_give_the_models_own_loss(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    rows = [training_row(row, QUICK) for row in rows_of(backbone)]
    batch = Collator(backbone.tokenizer.pad_token_id)(rows)
    with torch.inference_mode():
        output = backbone.causal(**batch)
        ours = learned_nll(backbone, batch, torch.ones_like(batch["labels"]))
    assert ours.item() == pytest.approx(output.loss.item(), rel=1e-6)


def test_the_trainers_loss_is_the_weighted_one(model_folder: ModelFolder, tmp_path: Path) -> None:
    """One step over all rows: TRL's default path, occupancy weights, and both by hand."""
    for weighting in WEIGHTINGS:
        backbone = adapted(model_folder("llama", "bos"))
        rows = rows_of(backbone)
        config = QUICK.model_copy(update={"token_weighting": weighting})
        batch = Collator(backbone.tokenizer.pad_token_id)([training_row(r, config) for r in rows])
        weights = batch.get("loss_weights", torch.ones(batch["labels"].shape))
        with torch.inference_mode():
            wanted = learned_nll(backbone, batch, weights)
        logged = config.model_copy(update={"epochs": 10.0, "learning_rate": 1e-9})
        summary = train_sft(backbone, "sft", rows, logged, 0, tmp_path / weighting)
        assert summary.steps == 10
        assert summary.losses == pytest.approx([wanted.item()], rel=1e-4)


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_batches_of_like_length_weigh_every_token_alike(
    model_folder: ModelFolder, tmp_path: Path, accumulation: int, told: bool
) -> None:
    """Over an epoch the steps' losses are the mean over all tokens, not that of batches' means.

    The trainer tells how many tokens a step has only for models that say they can use it.
    """
    backbone = adapted(model_folder("llama", "bos"))
    backbone.causal.accepts_loss_kwargs = told
    texts = [" Yes."] * 20 + [" It has no paper left, so please open the lower tray."] * 20
    rows = [render(backbone.tokenizer, "Why does it not print?", text) for text in texts]
    batch = Collator(backbone.tokenizer.pad_token_id)([training_row(row, QUICK) for row in rows])
    with torch.inference_mode():
        wanted = learned_nll(backbone, batch, torch.ones(batch["labels"].shape)).item()
    given = {"batch_size": 4 // accumulation, "accumulation": accumulation}
    still = {"learning_rate": 1e-9, "group_by_length": True}
    config = QUICK.model_copy(update={**given, **still})
    summary = train_sft(backbone, "sft", rows, config, 0, tmp_path)
    assert summary.steps == 10
    assert summary.losses == pytest.approx([wanted], rel=1e-4)
    short, long = (
        learned_nll(
            backbone,
            Collator(backbone.tokenizer.pad_token_id)([training_row(row, QUICK)]),
            torch.ones(1, len(row.ids)),
        ).item()
        for row in (rows[0], rows[-1])
    )
    assert abs((short + long) / 2 - wanted) > 0.01 * wanted, "a mean of batches would differ"


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_accumulation_equals_a_larger_batch(
    model_folder: ModelFolder, tmp_path: Path, weighting: Weighting
) -> None:
    rows = [Rendered([1, 30 + i, 40], [50 + i, 60, 70 - i, 2][-(2 + i % 3) :]) for i in range(8)]
    losses, found = [], []
    for batch_size, accumulation in ((1, 8), (8, 1)):
        backbone = adapted(model_folder("llama", "bos"))
        config = SftConfig(
            epochs=10,
            batch_size=batch_size,
            accumulation=accumulation,
            learning_rate=1e-3,
            token_weighting=weighting,
            checkpoints=0,
        )
        summary = train_sft(backbone, "sft", rows, config, 0, tmp_path / str(batch_size))
        assert summary.steps == 10
        losses.append(summary.losses)
        found.append(lora(backbone))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in found[0].items():
        assert value.norm() > 1e-3
        # not element by element: Adam turns rounding into steps where a gradient is nearly 0
        assert (value - found[1][name]).norm() < 1e-2 * value.norm()


# Training


@pytest.mark.parametrize(
    ("kind", "is_chat"), [("eos_only", False), ("bos", False), ("chat", True), ("bos", True)]
)
def test_overfit_rows_are_reproduced_and_end(
    model_folder: ModelFolder, tmp_path: Path, kind: str, is_chat: bool
) -> None:
    backbone = adapted(model_folder("llama", kind), AdapterConfig(r=16))
    config = SftConfig(epochs=60, batch_size=4, accumulation=1, learning_rate=2e-2, checkpoints=0)
    rows = rows_of(backbone, is_chat)
    summary = train_sft(backbone, "sft", rows, config, 0, tmp_path)
    assert summary.steps == 60
    assert summary.losses[-1] < 0.1 < summary.losses[0]
    specs = [
        PromptSpec(str(i), chat(prompt) if is_chat else prompt)
        for i, (prompt, _) in enumerate(PAIRS)
    ]
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=40))
    found = list(engine.sample(Policy("sft", backbone, "sft"), specs, 1, 0, greedy=True))
    assert [rollout.finish_reason for rollout in found] == ["stop"] * len(PAIRS)
    assert [rollout.token_ids for rollout in found] == [row.completion_ids for row in rows]
    assert [rollout.completion for rollout in found] == [completion for _, completion in PAIRS]


def poisoned(backbone: Backbone) -> Backbone:
    with torch.no_grad():
        next(p for n, p in backbone.causal.named_parameters() if "lora_A" in n)[0, 0] = math.nan
    return backbone


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_nan_stops_the_training(
    model_folder: ModelFolder, tmp_path: Path, weighting: Weighting
) -> None:
    backbone = poisoned(adapted(model_folder("llama", "bos")))
    config = QUICK.model_copy(update={"token_weighting": weighting})
    with pytest.raises(TrainingError, match=r"sft: loss must be finite, found nan at step 1\."):
        train_sft(backbone, "sft", rows_of(backbone), config, 0, tmp_path)


def test_a_wild_learning_rate_stops_the_training(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = adapted(model_folder("llama", "bos"))
    wild: dict[str, Any] = {"learning_rate": 1e30, "epochs": 4, "checkpoints": 3}
    with pytest.raises(TrainingError, match=r"at step [23]\. .* Lower sft\.learning_rate"):
        train_sft(backbone, "sft", rows_of(backbone), QUICK.model_copy(update=wild), 0, tmp_path)


def test_prompts_may_be_chat(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "chat_bos"))
    prompt: Prompt = chat("Why?")
    row = training_row(render(backbone.tokenizer, prompt, "No."), QUICK)
    assert row["input_ids"].count(backbone.tokenizer.bos_token_id) == 1
