"""What lies outside the initial policy's support: stored by best-of-n, measured, never guessed."""

from __future__ import annotations

import numpy as np
import pytest

from demoalign.pipeline import Pipeline
from demoalign.pipeline.support import columns_of
from demoalign.records import Rollout, read_records
from demoalign.rewards.density_ratio import TokenRatios
from demoalign.store import read_json
from tests.pipeline.runs import Project, lines_of, metrics_of

RATIO = {"model": "density_ratio"}
REWARDS = [
    {**RATIO, "ratio": {"support": -4.0}},
    {**RATIO, "name": "unlimited", "ratio": {"support": None}},
    {**RATIO, "name": "backwards", "positives": "initial", "negatives": "sft"},
]


def test_counts_and_sums_of_a_completion() -> None:
    inside = np.array([True, False, True, False])
    read = [
        TokenRatios(np.zeros(4), np.array([0.5, 2.0, -1.0, 3.0]), inside),
        TokenRatios(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool)),
        TokenRatios(np.zeros(1), np.array([np.inf]), np.array([True])),
    ]
    assert columns_of(read) == {
        "tokens": [4, 0, 1],
        "outside": [2, 0, 0],
        "log_ratio": [4.5, 0.0, None],
        "log_ratio_outside": [5.0, 0.0, 0.0],
    }


def test_shares_of_a_run(project: Project) -> None:
    recipe = project.recipe({"reward": REWARDS})
    pipeline = Pipeline(recipe)
    pipeline.advance("evaluation")
    run = project.run
    stored = read_json(run / "best-of-n" / "support.json")
    assert set(stored) == {"density-ratio", "unlimited"}
    rollouts = read_records(run / "rollouts-test" / "sft.jsonl", Rollout)
    prompts = {row["id"]: row["prompt"] for row in lines_of(run / "demonstrations" / "test.jsonl")}
    read = pipeline.models.ratio(recipe.reward[0]).read(
        [prompts[rollout.prompt_id] for rollout in rollouts],
        [rollout.completion for rollout in rollouts],
        [rollout.finish_reason == "stop" for rollout in rollouts],
    )
    columns = stored["density-ratio"]
    for name, wanted in columns_of(read).items():
        assert columns[name] == pytest.approx(wanted, abs=1e-3)
    for name, part, whole in (
        ("tokens", "outside", "tokens"),
        ("log_ratio", "log_ratio_outside", "log_ratio"),
    ):
        found = {m["selector"]: m for m in metrics_of(run, f"outside_support_{name}")}
        assert set(found) == {"density-ratio", "unlimited"}
        metric = found["density-ratio"]
        assert metric["value"] == pytest.approx(sum(columns[part]) / sum(columns[whole]))
        assert found["unlimited"]["value"] is None
        assert found["unlimited"]["reason"] == "the reward has no limit of support"


def test_an_older_run_says_that_it_is_not_known(project: Project) -> None:
    recipe = project.recipe({"reward": REWARDS[:1]})
    pipeline = Pipeline(recipe)
    pipeline.advance("best-of-n")
    (project.run / "best-of-n" / "support.json").unlink()
    from demoalign.pipeline.support import read_support

    assert read_support(recipe, project.run, 1) == {
        "density-ratio": "best-of-n/support.json does not hold it"
    }
