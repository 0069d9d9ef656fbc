"""What a run is estimated to cost: every stage is in it, and grows with its work."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from demoalign.config import Recipe
from demoalign.pipeline import Pipeline
from demoalign.pipeline.estimate import estimate_bytes, estimate_seconds
from demoalign.pipeline.work import Sizes
from tests.demonstrations.files import jsonl
from tests.pipeline.runs import Project, preferences
from tests.pipeline.test_optimising import IMPROVE, REWARDS

SIZES = Sizes(1_000_000, 10_000, train=500, test=50, prompt=20, completion=30)
FREE = {"demonstrations", "evaluation"}
ALL: dict[str, Any] = {
    "improve": {"method": "extrapolate", "strength": "auto", "distil": {}},
    "reward": [{"model": "head"}, {"model": "density_ratio"}],
    "baselines": [
        {"method": "sft", "name": "a", "preferences": "golden", "batch_size": 64},
        {"method": "dpo", "name": "b", "preferences": "golden", "batch_size": 64},
    ],
}


def relative(recipe: Recipe) -> dict[str, float]:
    """Seconds of each stage in units of the SFT's, so that the machine's speed does not matter."""
    seconds = estimate_seconds(SIZES, recipe)
    return {name: value / seconds["sft"] for name, value in seconds.items()}


def test_every_stage_that_takes_time_is_estimated(project: Project) -> None:
    recipe = project.recipe(ALL)
    seconds = estimate_seconds(SIZES, recipe)
    stages = {stage.name for stage in Pipeline(recipe).stages}
    assert set(seconds) == stages - FREE
    assert all(value > 0 for value in seconds.values())


def test_training_by_hand(project: Project) -> None:
    """SFT reads 500 rows forward and backward, three times the cost of a forward pass."""
    seconds = relative(project.recipe(ALL))
    assert seconds["baseline/a"] == pytest.approx(2)  # as many rows, two epochs
    assert seconds["baseline/b"] == pytest.approx(2 * 2 + 2 / 3)  # pairs; the reference, once
    assert seconds["reward/init-sft"] == pytest.approx(2 / 3)  # both sides are read
    read = 50 * ((2 * 20 + 5 * 30) + (20 + 4 * 30))  # four and greedy; four by the SFT policy
    assert seconds["baseline-rollouts/a"] == pytest.approx(read / (3 * 500 * 50))


def test_what_is_sampled_more_costs_more(project: Project) -> None:
    few = relative(project.recipe(ALL))
    more = relative(
        project.recipe({**ALL, "baselines.0.samples": 8, "rollouts.samples_per_prompt": 4})
    )
    assert {name for name in few if more[name] > 1.001 * few[name]} == {
        *("rollouts", "best-of-n", "baseline-rollouts/a")
    }


def test_memory_grows_with_a_baselines_batch(project: Project) -> None:
    config = Pipeline(project.recipe()).base.config
    alone = estimate_bytes(SIZES, project.recipe(), config)
    assert estimate_bytes(SIZES, project.recipe(ALL), config) > alone


@pytest.mark.parametrize("method", IMPROVE)
def test_every_way_of_training_is_estimated(project: Project, method: str) -> None:
    recipe = project.recipe({"improve": IMPROVE[method], "reward": REWARDS})
    seconds = estimate_seconds(SIZES, recipe)
    assert set(seconds) == {stage.name for stage in Pipeline(recipe).stages} - FREE
    assert seconds["policy"] > 0
    key = "iterations" if method == "irl" else "rounds"
    longer = project.recipe({"improve": {**IMPROVE[method], key: 20}, "reward": REWARDS})
    assert estimate_seconds(SIZES, longer)["policy"] > 3 * seconds["policy"]


def test_rounds_by_hand(project: Project) -> None:
    """4 prompts with 2 answers: sampled, read by the reference, rewarded, learned.

    Units are tokens of a forward pass, of which the SFT has 3 x 500 x 50.
    """
    improve = {**IMPROVE["rloo"], "reward": "init-sft"}
    improve["check"] = {"every": 2, "prompts": 3, "samples": 2, "witness": None}
    sft = 3 * 500 * 50
    passes = 3 * 4 * (20 + 2 * 30) + 2 * 3 * 8 * 50  # learned from twice
    looks = 2 * 3 * 3 * (20 + 2 * 30) + 3 * 3 * (20 + 4 * 30)  # checks, and the SFT's answers
    found = relative(project.recipe({"improve": improve, "reward": REWARDS}))
    assert found["policy"] == pytest.approx((2 * passes + looks) / sft)
    assert found["improve"] == pytest.approx(50 * (2 * 20 + 3 * 30 + 20 + 2 * 30) / sft)
    ppo = relative(project.recipe({"improve": {**improve, "method": "ppo"}, "reward": REWARDS}))
    more = 2 * 8 * 50  # a reading before each round's passes
    assert ppo["policy"] == pytest.approx(found["policy"] + more / sft)


def test_what_is_measured_beside_is_estimated(project: Project) -> None:
    path = jsonl(project.folder / "held.jsonl", preferences())
    changes = {
        "evaluation.preferences": [str(path)],
        "evaluation.lm_eval": {"tasks": ["arc_easy"], "limit": 10, "shots": 1},
    }
    recipe = project.recipe(changes)
    seconds = estimate_seconds(SIZES, recipe)
    assert set(seconds) == {stage.name for stage in Pipeline(recipe).stages} - FREE
    found = relative(recipe)
    assert found["preferences/held"] == pytest.approx(2 * 1000 * 50 / (3 * 500 * 50))
    assert found["lm-eval/sft-arc_easy"] == pytest.approx(4 * 10 * 2 * 50 / (3 * 500 * 50))
    known = dataclasses.replace(SIZES, answers={"held": 24})
    of_known = estimate_seconds(known, recipe)
    assert of_known["preferences/held"] / of_known["sft"] == pytest.approx(2 * 24 / (3 * 500))


def test_memory_grows_with_the_rows_of_a_round(project: Project) -> None:
    config = Pipeline(project.recipe()).base.config
    sizes = [
        estimate_bytes(SIZES, project.recipe({"improve": {**IMPROVE[method], **more}}), config)
        for method, more in (("rloo", {"batch_size": 16}), ("rloo", {}), ("adversarial", {}))
    ]
    assert sizes[0] < sizes[1] == sizes[2]
