"""Kahneman-Tversky optimisation: its loss by hand and by TRL, its batches, its resume."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.config import AdapterConfig, KtoConfig
from demoalign.errors import TrainingError
from demoalign.improve.kto import (
    Example,
    desirable_weight,
    examples_of,
    kto_trainer,
    train_kto,
)
from demoalign.improve.referred import ADAPTER, reference_logprobs
from demoalign.policies import Backbone, Policy
from demoalign.policies.policy import INITIAL
from demoalign.rewards.comparisons import Answer
from tests.conftest import ModelFolder
from tests.improve.test_dpo import disturb
from tests.models import load_backbone, logits_of

GOOD = [(f"Is key {i} on?", Answer(" Yes, please.")) for i in range(3)]
BAD = [(f"Is key {i} on?", Answer(f" Not {'so ' * i}", i % 2 == 0)) for i in range(4)]


def config_of(**changes: Any) -> KtoConfig:
    settings = {"batch_size": 4, "accumulation": 1, "learning_rate": 1e-2, "checkpoints": 0}
    return KtoConfig.model_validate({"name": "kto", "epochs": 1, **settings, **changes})


def prepared(folder: Path, config: KtoConfig) -> tuple[Backbone, list[Example], Any]:
    """A backbone with an adapter to train, examples, and the base as their reference."""
    backbone = load_backbone(folder)
    examples, _ = examples_of(backbone.tokenizer, GOOD, BAD, config, seed=0)
    reference = reference_logprobs(Policy(INITIAL, backbone), examples)
    backbone.add_adapter(ADAPTER, AdapterConfig(r=8), seed=0)
    return backbone, examples, reference


def total(model: Any, prompt: list[int], completion: list[int]) -> float:
    """log pi(y|x) from plain logits."""
    logits = logits_of(model, [prompt + completion])[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return sum(float(logits[p, token]) for p, token in zip(places, completion, strict=True))


def test_batches_have_answers_of_their_own_behind_others_prompts(model_folder: ModelFolder) -> None:
    tokenizer = load_backbone(model_folder("llama", "bos")).tokenizer
    examples, cut = examples_of(tokenizer, GOOD, BAD, config_of(batch_size=3), seed=0)
    assert cut == 0
    assert sorted(each.desirable for each in examples) == [False] * 4 + [True] * 3
    for start in (0, 3):
        batch = examples[start : start + 3]
        assert [each.other for each in batch] == [
            each.completion for each in [batch[-1], *batch[:-1]]
        ]
    assert examples[6].other == examples[5].completion  # alone in the last batch
    again, _ = examples_of(tokenizer, GOOD, BAD, config_of(batch_size=3), seed=0)
    assert again == examples
    assert examples_of(tokenizer, GOOD, BAD, config_of(batch_size=3), seed=1)[0] != examples
    longest = max(len(each.prompt) + len(each.completion) for each in examples)
    some, cut = examples_of(tokenizer, GOOD, BAD, config_of(max_length=longest - 1), seed=0)
    assert max(len(each.prompt) + len(each.completion) for each in some) == longest - 1
    assert cut >= 1
    with pytest.raises(TrainingError, match=r"baselines\.kto\.max_length: .*found 2 with prompts"):
        examples_of(tokenizer, GOOD, BAD, config_of(max_length=2), seed=0)


def test_the_weight_that_makes_both_kinds_count_alike(model_folder: ModelFolder) -> None:
    tokenizer = load_backbone(model_folder("llama", "bos")).tokenizer
    examples, _ = examples_of(tokenizer, GOOD, BAD, config_of(), seed=0)
    assert desirable_weight(examples, config_of(undesirable_weight=0.6)) == pytest.approx(0.8)
    assert desirable_weight(examples, config_of(desirable_weight=2.0)) == 2.0


@pytest.mark.parametrize(("seed", "is_positive"), [(0, True), (2, False)])
def test_the_loss_by_hand(
    model_folder: ModelFolder, tmp_path: Path, seed: int, is_positive: bool
) -> None:
    """Eq. 7 of Ethayarajh et al.; a negative estimate of the KL counts as 0."""
    config = config_of(batch_size=7, beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    backbone, examples, reference = prepared(model_folder("llama", "bos"), config)
    disturb(backbone, seed)
    with backbone.using(ADAPTER):
        trainer = kto_trainer(backbone, ADAPTER, examples, reference, config, 0, tmp_path)
        batch = trainer.data_collator(list(trainer.train_dataset))
        found = trainer.compute_loss(backbone.peft, batch).item()
        model = backbone.causal
        own = np.array([total(model, e.prompt, e.completion) for e in examples])
        other = np.array([total(model, e.prompt, e.other) for e in examples])
    base = load_backbone(model_folder("llama", "bos")).causal
    refs = [(total(base, e.prompt, e.completion), total(base, e.prompt, e.other)) for e in examples]
    np.testing.assert_allclose(reference, refs, rtol=1e-5)
    estimate = float((other - reference[:, 1]).mean())
    assert (estimate > 0) is is_positive
    divergence = max(0.0, estimate)
    losses = []
    for each, gap in zip(examples, own - reference[:, 0], strict=True):
        sign, weight = (1, 1.5) if each.desirable else (-1, 0.7)
        value = 1 / (1 + math.exp(-sign * 0.3 * (gap - divergence)))
        losses.append(weight * (1 - value))
    assert found == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_loss_is_that_of_trl_with_a_whole_reference_model(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    config = config_of(batch_size=7)
    backbone, examples, reference = prepared(model_folder("llama", "bos"), config)
    disturb(backbone)
    with backbone.using(ADAPTER):
        trainer = kto_trainer(backbone, ADAPTER, examples, reference, config, 0, tmp_path / "ours")
        batch = trainer.data_collator(list(trainer.train_dataset))
        ours = trainer.compute_loss(backbone.peft, batch).item()
    merged = backbone.peft.merge_and_unload()
    original = load_backbone(model_folder("llama", "bos"))
    rows = [{"prompt": "a", "completion": f"b{i}", "label": i % 2 == 0} for i in range(4)]
    stock = KTOTrainer(
        model=merged,
        ref_model=original.causal,
        args=KTOConfig(
            output_dir=str(tmp_path / "theirs"),
            beta=config.beta,
            desirable_weight=desirable_weight(examples, config),
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=original.tokenizer,
    )
    plain = {key: value for key, value in batch.items() if not key.startswith("ref_")}
    assert stock.compute_loss(merged, plain).item() == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("adapter", [ADAPTER, None])
def test_training_moves_towards_what_is_desirable(
    model_folder: ModelFolder, tmp_path: Path, adapter: str | None
) -> None:
    config = config_of(epochs=10, learning_rate=3e-3, batch_size=7)
    backbone = load_backbone(model_folder("llama", "bos"))
    examples, _ = examples_of(backbone.tokenizer, GOOD, BAD, config, seed=0)
    reference = reference_logprobs(Policy(INITIAL, backbone), examples)
    if adapter is not None:
        backbone.add_adapter(adapter, AdapterConfig(r=8), seed=0)
    summary = train_kto(backbone, adapter, examples, reference, config, 0, tmp_path)
    assert (summary.steps, summary.desirable, summary.undesirable) == (10, 3, 4)
    assert summary.losses[0] == pytest.approx(0.5 * 8 / 7, abs=1e-3)  # mean weight (4/3 3 + 4)/7
    assert summary.losses[-1] < summary.losses[0] - 0.02
    assert len(summary.divergences) == len(summary.margins) == 10
    assert (summary.margins[-1] or 0) > 0.1
    after = reference_logprobs(Policy("trained", backbone, adapter), examples)
    gained = (after - reference)[:, 0]
    good = np.array([each.desirable for each in examples])
    assert gained[good].mean() > gained[~good].mean()
    if adapter is not None:
        untouched = reference_logprobs(Policy(INITIAL, backbone), examples)
        np.testing.assert_array_equal(untouched, reference)


def test_resumed_equals_uninterrupted(model_folder: ModelFolder, tmp_path: Path) -> None:
    found = []
    config = config_of(epochs=6, batch_size=4, checkpoints=1)
    for place in ("whole", "resumed"):
        backbone, examples, reference = prepared(model_folder("llama", "bos"), config)
        checkpoints = tmp_path / place / "checkpoints"
        if place == "resumed":
            shutil.copytree(tmp_path / "whole" / "checkpoints", checkpoints)
            shutil.rmtree(checkpoints / "checkpoint-12")
            assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-6"]
        given = examples, reference, config, 0, tmp_path / place
        assert train_kto(backbone, ADAPTER, *given).steps == 12
        found.append(reference_logprobs(Policy("trained", backbone, ADAPTER), examples))
    np.testing.assert_array_equal(found[0], found[1])
