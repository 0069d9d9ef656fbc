"""Students of tiny teachers: what can be recovered is, to the last digits that float32 has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from demoalign.config import AdapterConfig, ModelConfig, RewardConfig
from demoalign.errors import TrainingError
from demoalign.policies import Backbone, Policy
from demoalign.rewards.agreement import explained_variance, rank_correlation
from demoalign.rewards.comparisons import Comparison
from demoalign.rewards.distil import Lesson, distil
from demoalign.rewards.packing import (
    PackedCollator,
    PairScorer,
    RenderedPair,
    StackedCollator,
    by_side,
)
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer, linear_head
from tests.conftest import ModelFolder
from tests.rewards.models import easy_pairs, effective_adapter

Array = NDArray[np.float64]
FAST = {"epochs": 12, "batch_size": 8, "accumulation": 1, "learning_rate": 1e-2}


def load_backbone(model_folder: ModelFolder) -> Backbone:
    """On the CPU in float32: what is exact there is not in bfloat16."""
    return Backbone.load(ModelConfig(base=str(model_folder("llama", "bos")), device="cpu"))


def student(
    backbone: Backbone, pairs: Sequence[Comparison], scores: Array, **settings: Any
) -> Lesson:
    config = RewardConfig.model_validate({**FAST, "distils": "teacher", **settings})
    base = ModelConfig(base=backbone.base, device="cpu", adapter=AdapterConfig(r=8))
    return distil(config, base, backbone, sft_of(backbone), pairs, scores, 0, "mine")


def sft_of(backbone: Backbone) -> Policy:
    if "sft" not in backbone.adapters:
        effective_adapter(backbone, "sft", seed=3)
    return Policy("sft", backbone, "sft")


def head_teacher(backbone: Backbone, seed: int = 5) -> RewardModel:
    """A head of its own on the SFT policy's states."""
    head = linear_head(backbone.hidden_size, seed, backbone.device)
    scorer = SharedScorer(backbone, sft_of(backbone).adapter, head)
    return RewardModel("teacher", scorer, backbone.tokenizer)


def judge(model: RewardModel, pairs: Sequence[Comparison]) -> Array:
    """(B, 2) scores of positives and negatives."""
    sides = [[pair.positive.completion for pair in pairs], [p.negative.completion for p in pairs]]
    prompts = [pair.prompt for pair in pairs]
    return np.stack([model.score(prompts, side) for side in sides], axis=1)


def test_a_head_recovers_a_teacher_that_is_one(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder)
    teacher = head_teacher(backbone)
    pairs, fresh = easy_pairs(80), easy_pairs(30, start=200)
    lesson = student(backbone, pairs, judge(teacher, pairs), model="head")
    assert lesson.model.scorer.reads_last_token
    apart = judge(lesson.model, fresh) + lesson.offset - judge(teacher, fresh)
    assert np.abs(apart).max() < 1e-6
    assert lesson.losses[0] < 1e-9
    assert lesson.left_out_error is not None
    assert lesson.left_out_error < 1e-9
    assert lesson.penalty is not None
    assert lesson.penalty < 1e-8


@pytest.mark.parametrize("constant", [0.0, -400.0])
def test_a_constant_in_the_teacher_changes_only_the_offset(
    model_folder: ModelFolder, constant: float
) -> None:
    backbone = load_backbone(model_folder)
    pairs, teacher = easy_pairs(40), head_teacher(backbone)
    plain = student(backbone, pairs, judge(teacher, pairs), model="head")
    moved = student(backbone, pairs, judge(teacher, pairs) + constant, model="head")
    np.testing.assert_allclose(judge(moved.model, pairs), judge(plain.model, pairs), atol=1e-6)
    assert moved.offset == pytest.approx(plain.offset + constant, abs=1e-6)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_trained_student_follows_its_teacher(model_folder: ModelFolder, kind: str) -> None:
    backbone = load_backbone(model_folder)
    pairs, fresh, teacher = easy_pairs(60), easy_pairs(30, start=200), head_teacher(backbone)
    rate = 3e-3 if kind == "full" else 1e-2
    lesson = student(backbone, pairs, judge(teacher, pairs), model=kind, learning_rate=rate)
    assert 0.5 < lesson.losses[0] < 2, "in units of the teacher's variance"
    assert lesson.losses[-1] < 0.5 * lesson.losses[0]
    said, wanted = judge(lesson.model, fresh).ravel(), judge(teacher, fresh).ravel()
    assert rank_correlation(said, wanted) > 0.7
    assert explained_variance(said, wanted) > 0.4
    assert lesson.offset == pytest.approx(judge(teacher, pairs).mean())
    assert lesson.deviation == pytest.approx(judge(teacher, pairs).std())


@pytest.mark.parametrize("kind", ["adapter", "head"])
def test_the_teachers_unit_is_the_students(model_folder: ModelFolder, kind: str) -> None:
    """The same training whatever the unit; the stored score is in the teacher's."""
    backbone = load_backbone(model_folder)
    pairs = easy_pairs(16)
    scores = judge(head_teacher(backbone), pairs)
    found = []
    for factor in (1.0, 1000.0):
        lesson = student(backbone, pairs, factor * scores, model=kind, epochs=2)
        found.append((lesson.losses, judge(lesson.model, pairs) / factor))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["adapter", "head", "full"])
def test_a_student_is_stored_as_any_reward_model(
    model_folder: ModelFolder, tmp_path: Path, kind: str
) -> None:
    backbone = load_backbone(model_folder)
    pairs = easy_pairs(8)
    lesson = student(backbone, pairs, judge(head_teacher(backbone), pairs), model=kind, epochs=1)
    lesson.model.save(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    again = RewardModel.load(tmp_path, device=str(backbone.device))
    np.testing.assert_allclose(judge(again, pairs), judge(lesson.model, pairs), atol=1e-5)


def test_targets_stay_with_their_completions(model_folder: ModelFolder) -> None:
    """In both forms the errors are those of each side to its own target."""
    pairs = [
        RenderedPair([5, 6, 7], [5, 6, 8, 9], (1.0, -1.0)),
        RenderedPair([5, 9, 9, 4], [5, 9, 3], (2.0, -2.0)),
        RenderedPair([5, 1], [5, 2], (3.0, -3.0)),
    ]
    model = PairScorer(head_teacher(load_backbone(model_folder)).scorer)
    found = []
    for collator in (PackedCollator(0), StackedCollator(0)):
        batch = {key: value.to(model.scorer.device) for key, value in collator(pairs).items()}
        targets = batch.pop("targets")
        assert targets.tolist() == [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]
        with torch.no_grad():
            found.append([side.cpu() for side in by_side(model(**batch)[0])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert "targets" not in StackedCollator(0)([RenderedPair([1], [2])])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.full((8, 2), 0.1), r"reward mine: teacher must tell completions apart, .* all 16"),
        (np.full((8, 2), np.inf), r"reward mine: every score of teacher must be finite, found 16"),
    ],
)
def test_a_teacher_that_cannot_teach(model_folder: ModelFolder, scores: Array, said: str) -> None:
    backbone = load_backbone(model_folder)
    with pytest.raises(TrainingError, match=said):
        student(backbone, easy_pairs(8), scores, model="head")


def test_a_head_needs_the_sft_policy(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder)
    config = RewardConfig(model="head", distils="teacher", loss="squared_error")
    base, scores = ModelConfig(base=backbone.base), np.array([[1.0, 2.0]] * 2)
    with pytest.raises(TrainingError, match="head needs the SFT policy, found none"):
        distil(config, base, backbone, None, easy_pairs(2), scores, 0, "mine")
