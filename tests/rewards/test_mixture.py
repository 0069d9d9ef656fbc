"""Rewards of different kinds as one, by hand and with tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.config import EnsembleConfig, ModelConfig, RatioConfig
from demoalign.errors import EvaluationError
from demoalign.policies import Backbone, Policy
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.ensemble import EnsembleSelector
from demoalign.rewards.mixture import (
    Mixture,
    Standard,
    measure_standards,
    mix,
    read_standards,
    write_standards,
)
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer, linear_head
from tests.conftest import ModelFolder
from tests.rewards.models import ANSWERS, PROMPTS, effective_adapter

ONE, ALONE = EnsembleConfig(), {"a": Standard(2.0, 4.0), "b": Standard(-100.0, 50.0)}
SCORES = {"a": np.array([2.0, 10.0]), "b": np.array([0.0, -100.0]), "c": np.array([7.0, 7.0])}


@pytest.mark.parametrize(
    ("how", "k", "wanted"),
    [
        # standardised: a 0 and 2, b 2 and 0
        ("mean", 1.0, [1.0, 1.0]),
        ("min", 1.0, [0.0, 0.0]),
        ("mean_minus_std", 0.5, [0.5, 0.5]),
    ],
)
def test_mixtures_by_hand(how: Any, k: float, wanted: list[float]) -> None:
    config = EnsembleConfig(aggregate=how, k=k)
    assert mix(ALONE, SCORES, config).tolist() == pytest.approx(wanted)
    turned = dict(reversed(ALONE.items()))
    assert mix(turned, SCORES, config).tolist() == pytest.approx(wanted)


def test_standards_by_hand(tmp_path: Path) -> None:
    found = measure_standards("m", {"a": np.array([1.0, 2.0, 6.0]), "b": np.array([0.0, 0.0, 3.0])})
    assert (found["a"].mean, found["b"].mean) == (3.0, 1.0)
    assert found["a"].deviation == pytest.approx((14 / 3) ** 0.5)
    assert found["b"].deviation == pytest.approx(2**0.5)
    for name, values in (("a", [1.0, 2.0, 6.0]), ("b", [0.0, 0.0, 3.0])):
        standardised = found[name](np.array(values))
        assert standardised.mean() == pytest.approx(0)
        assert standardised.std() == pytest.approx(1)
    write_standards(tmp_path, found, prompts=2, samples=3)
    assert read_standards(tmp_path) == found
    assert list(read_standards(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e12])
def test_a_member_without_spread_is_refused(value: float) -> None:
    scores = {"a": np.array([1.0, 2.0, 4.0]), "flat": np.array([value] * 3)}
    with pytest.raises(EvaluationError, match=r"reward m: .* found flat, which scores all 3"):
        measure_standards("m", scores)


def test_one_sample_is_not_enough() -> None:
    with pytest.raises(EvaluationError, match=r"at least 2 held-out SFT samples .* found 1"):
        measure_standards("m", {"a": np.array([1.0])})


Members = tuple[EnsembleSelector, EnsembleSelector, DensityRatio]


def make_members(base: Path) -> tuple[Policy, Members]:
    """On one backbone: an SFT policy, a head on it, an ensemble of adapters, a ratio."""
    backbone = Backbone.load(ModelConfig(base=str(base), device="cpu"))
    for number, name in enumerate(("sft", "reward_0", "reward_1")):
        effective_adapter(backbone, name, seed=number)

    def model(name: str, adapter: str, seed: int) -> RewardModel:
        head = linear_head(backbone.hidden_size, seed, backbone.device)
        return RewardModel(name, SharedScorer(backbone, adapter, head), backbone.tokenizer)

    pair = (model("two-0", "reward_0", 1), model("two-1", "reward_1", 2))
    sft, initial = Policy("sft", backbone, "sft"), Policy("initial", backbone)
    return sft, (
        EnsembleSelector("head", (model("head-0", "sft", 0),), ONE),
        EnsembleSelector("two", pair, EnsembleConfig(size=2, aggregate="min")),
        DensityRatio("ratio", lambda: sft, lambda: initial, RatioConfig(support=None)),
    )


def test_a_mixture_scores_as_its_members_standardised(model_folder: ModelFolder) -> None:
    sft, members = make_members(model_folder("llama", "bos"))
    finished = [True, False, True, True, False]
    scores = {each.name: each.score(PROMPTS, ANSWERS, finished) for each in members}
    standards = measure_standards("all", scores)
    config = EnsembleConfig(aggregate="mean_minus_std", k=0.5)
    mixture = Mixture("all", members, standards, config)
    found = mixture.score(PROMPTS, ANSWERS, finished)
    each = np.stack([(s - s.mean()) / s.std() for s in scores.values()])
    np.testing.assert_allclose(found, each.mean(0) - 0.5 * each.std(0), atol=1e-5)
    answers = zip(PROMPTS, ANSWERS, finished, strict=True)
    alone = [mixture.score([p], [a], [f])[0] for p, a, f in answers]
    np.testing.assert_allclose(alone, found, atol=1e-5)
    assert not mixture.reads(sft)


def test_a_mixture_of_heads_reads_states(model_folder: ModelFolder) -> None:
    sft, (head, two, _) = make_members(model_folder("llama", "bos"))
    backbone = sft.backbone
    other = RewardModel(
        "x",
        SharedScorer(backbone, "sft", linear_head(backbone.hidden_size, 9, backbone.device)),
        backbone.tokenizer,
    )
    both = (head, EnsembleSelector("x", (other,), ONE))
    standards = {"head": Standard(0.1, 0.3), "x": Standard(-0.2, 2.0)}
    mixture = Mixture("heads", both, standards, EnsembleConfig(aggregate="min"))
    assert mixture.reads(sft)
    assert not Mixture("heads", (head, two), standards, ONE).reads(sft)
    states = np.random.default_rng(0).normal(size=(5, backbone.hidden_size)).astype(np.float32)
    wanted = np.minimum(
        (head.judge_states(states) - 0.1) / 0.3, (other.judge_states(states) + 0.2) / 2
    )
    np.testing.assert_allclose(mixture.judge_states(states), wanted)
    np.testing.assert_allclose(mixture.score(PROMPTS, ANSWERS, hidden=states), wanted)
