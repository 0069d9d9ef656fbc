"""Direct preference optimisation: its loss by hand and by TRL, its reference, its resume."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig, DpoConfig
from demoalign.errors import TrainingError
from demoalign.improve.dpo import (
    TokenPair,
    dpo_trainer,
    token_pairs,
    train_dpo,
)
from demoalign.improve.referred import ADAPTER, reference_logprobs
from demoalign.policies import Backbone, Policy
from demoalign.policies.policy import INITIAL
from demoalign.rewards.comparisons import Answer, Comparison
from tests.conftest import ModelFolder
from tests.models import load_backbone, logits_of

COMPARISONS = [
    Comparison(
        f"p{i}", f"Is key {i} on?", Answer(" Yes, please."), Answer(f" Not {'so ' * i}", i % 2 == 0)
    )
    for i in range(4)
]


def config_of(**changes: Any) -> DpoConfig:
    settings = {"batch_size": 4, "accumulation": 1, "learning_rate": 1e-2, "checkpoints": 0}
    return DpoConfig.model_validate(
        {"name": "pairs", "preferences": "golden", "epochs": 1, **settings, **changes}
    )


def pairs_of(backbone: Backbone) -> list[TokenPair]:
    return token_pairs(backbone.tokenizer, COMPARISONS, "pairs", 64)[0]


def prepared(folder: Path) -> tuple[Backbone, list[TokenPair], Any]:
    """A backbone with an adapter to train, pairs, and the base as their reference."""
    backbone = load_backbone(folder)
    pairs = pairs_of(backbone)
    reference = reference_logprobs(Policy(INITIAL, backbone), pairs)
    backbone.add_adapter(ADAPTER, AdapterConfig(r=8), seed=0)
    return backbone, pairs, reference


def disturb(backbone: Backbone, seed: int = 0) -> None:
    """Move the adapter away from where it starts, which is a change of nothing."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.causal.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)


def by_hand(model: Any, pairs: list[TokenPair]) -> list[tuple[float, float]]:
    """Log-probabilities of positives and negatives from plain logits, row by row."""

    def total(prompt: list[int], completion: list[int]) -> float:
        logits = logits_of(model, [prompt + completion])[0].double().log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        return sum(
            float(logits[place, token]) for place, token in zip(places, completion, strict=True)
        )

    return [(total(p.prompt, p.positive), total(p.prompt, p.negative)) for p in pairs]


def test_the_reference_is_the_policy_that_was_given(model_folder: ModelFolder) -> None:
    backbone, pairs, reference = prepared(model_folder("llama", "bos"))
    disturb(backbone)
    with backbone.using(None):
        np.testing.assert_allclose(reference, by_hand(backbone.causal, pairs), rtol=1e-5)
    moved = reference_logprobs(Policy("other", backbone, ADAPTER), pairs)
    with backbone.using(ADAPTER):
        np.testing.assert_allclose(moved, by_hand(backbone.causal, pairs), rtol=1e-5)
    assert np.abs(moved - reference).max() > 0.1


def test_the_sigmoid_loss_by_hand(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone, pairs, reference = prepared(model_folder("llama", "bos"))
    disturb(backbone)
    config = config_of(beta=0.3)
    with backbone.using(ADAPTER):
        ours = by_hand(backbone.causal, pairs)
        trainer = dpo_trainer(backbone, ADAPTER, pairs, reference, config, 0, tmp_path)
        batch = trainer.data_collator(list(trainer.train_dataset))
        found = trainer.compute_loss(backbone.peft, batch).item()
    margins = [
        0.3 * ((up - ref_up) - (down - ref_down))
        for (up, down), (ref_up, ref_down) in zip(ours, reference, strict=True)
    ]
    wanted = sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted - math.log(2)) > 0.01


@pytest.mark.parametrize(
    ("loss", "smoothing"), [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.2)]
)
def test_losses_are_those_of_trl_with_a_whole_reference_model(
    model_folder: ModelFolder, tmp_path: Path, loss: str, smoothing: float
) -> None:
    """Ours reads the reference beforehand and trains an adapter; TRL's own holds two models."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    backbone, pairs, reference = prepared(model_folder("llama", "bos"))
    disturb(backbone)
    config = config_of(loss=loss, label_smoothing=smoothing)
    with backbone.using(ADAPTER):
        trainer = dpo_trainer(backbone, ADAPTER, pairs, reference, config, 0, tmp_path / "ours")
        batch = trainer.data_collator(list(trainer.train_dataset))
        ours = trainer.compute_loss(backbone.peft, batch).item()
    merged = backbone.peft.merge_and_unload()
    original = load_backbone(model_folder("llama", "bos"))
    stock = DPOTrainer(
        model=merged,
        ref_model=original.causal,
        args=DPOConfig(
            output_dir=str(tmp_path / "theirs"),
            beta=config.beta,
            loss_type=[loss],
            label_smoothing=smoothing,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=original.tokenizer,
    )
    plain = {key: value for key, value in batch.items() if not key.startswith("ref_")}
    assert stock.compute_loss(merged, plain).item() == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("adapter", [ADAPTER, None])
def test_training_prefers_the_positives(
    model_folder: ModelFolder, tmp_path: Path, adapter: str | None
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    pairs = pairs_of(backbone)
    reference = reference_logprobs(Policy(INITIAL, backbone), pairs)
    if adapter is not None:
        backbone.add_adapter(adapter, AdapterConfig(r=8), seed=0)
    settings = config_of(epochs=10, learning_rate=3e-3)
    summary = train_dpo(backbone, adapter, pairs, reference, settings, 0, tmp_path)
    assert summary.steps == 10
    assert summary.losses[0] == pytest.approx(math.log(2), abs=1e-3)
    assert summary.losses[-1] < 0.5
    assert summary.accuracies[-1] == 1
    assert summary.margins[-1] > summary.margins[1] > 0
    assert backbone.adapters == (() if adapter is None else (adapter,))
    after = reference_logprobs(Policy("trained", backbone, adapter), pairs)
    gained = (after - reference) @ [1, -1]
    assert (gained > 0).all()
    if adapter is not None:
        untouched = reference_logprobs(Policy(INITIAL, backbone), pairs)
        np.testing.assert_array_equal(untouched, reference)


def test_resumed_equals_uninterrupted(model_folder: ModelFolder, tmp_path: Path) -> None:
    found = []
    config = config_of(epochs=6, batch_size=2, checkpoints=1)
    for place in ("whole", "resumed"):
        backbone, pairs, reference = prepared(model_folder("llama", "bos"))
        checkpoints = tmp_path / place / "checkpoints"
        if place == "resumed":
            shutil.copytree(tmp_path / "whole" / "checkpoints", checkpoints)
            (last,) = (path for path in checkpoints.glob("checkpoint-*") if path.name[11:] == "12")
            shutil.rmtree(last)
            assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-6"]
        given = pairs, reference, config, 0, tmp_path / place
        summary = train_dpo(backbone, ADAPTER, *given)
        assert summary.steps == 12
        found.append(reference_logprobs(Policy("trained", backbone, ADAPTER), pairs))
    np.testing.assert_array_equal(found[0], found[1])


def test_accumulation_equals_a_larger_batch(model_folder: ModelFolder, tmp_path: Path) -> None:
    losses = []
    for batch_size, accumulation in ((1, 4), (4, 1)):
        backbone, pairs, reference = prepared(model_folder("llama", "bos"))
        config = config_of(
            epochs=5, learning_rate=1e-3, batch_size=batch_size, accumulation=accumulation
        )
        given = pairs, reference, config, 0, tmp_path / str(batch_size)
        losses.append(train_dpo(backbone, ADAPTER, *given).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_answers_are_cut_and_counted(model_folder: ModelFolder) -> None:
    tokenizer = load_backbone(model_folder("llama", "bos")).tokenizer
    whole, none = token_pairs(tokenizer, COMPARISONS, "pairs", 64)
    assert none == 0
    longest = max(len(p.prompt) + len(p.positive) for p in whole)
    cut, count = token_pairs(tokenizer, COMPARISONS, "pairs", longest - 1)
    assert all(len(p.prompt) + len(max(p[1:], key=len)) <= longest - 1 for p in cut)
    sides = [len(p.prompt) + len(side) for p in whole for side in p[1:]]
    assert count == sum(length > longest - 1 for length in sides) > 0
    with pytest.raises(TrainingError, match=r"baselines\.pairs\.max_length: .*found 2 with prom"):
        token_pairs(tokenizer, COMPARISONS, "pairs", 2)


def test_nan_stops_the_training(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone, pairs, reference = prepared(model_folder("llama", "bos"))
    with torch.no_grad():
        next(p for n, p in backbone.causal.named_parameters() if "lora_A" in n)[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"found nan at step 1\. .* baselines\.pairs\.learning"):
        train_dpo(backbone, ADAPTER, pairs, reference, config_of(), 0, tmp_path)


def test_an_adapter_on_the_language_model_head_is_refused(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    pairs = pairs_of(backbone)
    backbone.add_adapter(ADAPTER, AdapterConfig(r=8, target_modules=["lm_head"]), seed=0)
    with pytest.raises(TrainingError, match=r"baselines\.pairs: .*lm_head"):
        train_dpo(backbone, ADAPTER, pairs, np.zeros((4, 2)), config_of(), 0, tmp_path)
