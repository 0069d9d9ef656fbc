"""Every kind of reward model, loss and source through the pipeline, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from demoalign.errors import DemoalignError
from demoalign.pipeline import Pipeline
from demoalign.records import Rollout, read_records
from tests.conftest import ModelFolder
from tests.demonstrations.files import jsonl
from tests.pipeline.runs import Project, lines_of, metrics_of, preferences, results_of

FAST = {"epochs": 1, "learning_rate": 0.003}
DEMO_OVER_INIT = {"positives": "demonstrations", "negatives": "initial"}
PREFERENCE = {"positives": "preferred", "negatives": "dispreferred"}


def all_kinds(project: Project, policy: Path) -> list[dict[str, Any]]:
    pairs = jsonl(project.folder / "pairs.jsonl", preferences())
    return [
        {**FAST, "loss": "bce", "model": "adapter"},
        {**FAST, **DEMO_OVER_INIT, "loss": "bradley_terry", "model": "head"},
        {
            **FAST,
            "positives": "demonstrations",
            "negatives": "sft",
            "loss": "bradley_terry_variance",
            "model": "full",
        },
        {**FAST, **PREFERENCE, "preferences": str(pairs), "loss": "bradley_terry"},
        {**FAST, **PREFERENCE, "preferences": "golden", "name": "annotators", "model": "head"},
        {**FAST, "positives": "demonstrations", "negatives": f"policy:{policy}"},
        {
            **FAST,
            "name": "two-of-a.kind",
            "ensemble": {"size": 2, "aggregate": "mean_minus_std", "k": 0.5},
        },
        {"model": "density_ratio"},
        {
            "model": "density_ratio",
            "name": "far",
            "negatives": f"policy:{project.plain['model']['base']}",
        },
    ]


NAMES = [
    "init-sft",
    "init-demo",
    "sft-demo",
    "preference",
    "annotators",
    "elsewhere-demo",
    "two-of-a.kind",
    "density-ratio",
    "far",
]
TRAINED = NAMES[:-2]


@pytest.fixture
def elsewhere(tmp_path: Path, model_folder: ModelFolder) -> Path:
    """A policy from somewhere else, as a source of negatives."""
    link = tmp_path / "elsewhere"
    link.symlink_to(model_folder("gpt2", "eos_only"))
    return link


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_all_kinds_in_one_run(project: Project, elsewhere: Path, adapter: str) -> None:
    rewards = all_kinds(project, elsewhere)
    changes = {"reward": rewards, "model.adapter.kind": adapter}
    Pipeline(project.recipe(changes)).advance("evaluation")
    run = project.run
    assert sorted(path.name for path in (run / "reward").iterdir()) == sorted(NAMES)
    found = {m["selector"] for m in metrics_of(run, "golden_reward")}
    assert set(NAMES) <= found
    assert {"length", "mean-logprob", "sequence-logprob", "golden"} <= found
    for name in NAMES:
        values = [m["value"] for m in metrics_of(run, "proxy_reward") if m["selector"] == name]
        assert len(values) == 3
        assert values == sorted(values), "more candidates never lower the reward selected by"
    heldout = {m["selector"] for m in metrics_of(run, "heldout_accuracy")}
    assert set(NAMES) <= heldout
    folders = [run / "reward" / name for name in TRAINED[:-1]]
    folders += [run / "reward" / TRAINED[-1] / f"member-{i}" for i in range(2)]
    for folder in folders:
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    check_ensemble(run)
    check_sources(run, elsewhere)


def check_ensemble(run: Path) -> None:
    """The stored scores are mean less half a deviation of its members, which differ."""
    from demoalign.records import Demonstration
    from demoalign.rewards.reward_model import RewardModel

    rows = read_records(run / "demonstrations" / "test.jsonl", Demonstration)
    prompts, answers = [row.prompt for row in rows], [row.completion for row in rows]
    first, second = (
        RewardModel.load(run / "reward" / "two-of-a.kind" / f"member-{i}", device="cpu").score(
            prompts, answers
        )
        for i in range(2)
    )
    assert np.abs(first - second).max() > 1e-3
    stored = {
        line["rollout_id"]: line["value"]
        for line in lines_of(run / "best-of-n" / "scores.jsonl")
        if line["reward_model"] == "two-of-a.kind"
    }
    wanted = (first + second) / 2 - 0.5 * np.abs(first - second) / 2
    assert [stored[row.id] for row in rows] == pytest.approx(list(wanted), abs=1e-4)


def test_a_ratio_needs_one_tokenizer(project: Project, elsewhere: Path) -> None:
    reward = {"model": "density_ratio", "negatives": f"policy:{elsewhere}"}
    with pytest.raises(DemoalignError, match="must have the same tokenizer"):
        Pipeline(project.recipe({"reward": [reward]})).advance("reward")


def test_the_ratio_of_stored_and_of_computed_log_probabilities(project: Project) -> None:
    """Candidates' own log-probabilities are used; the score is what the policies say."""
    recipe = project.recipe({"reward": [{"model": "density_ratio", "ratio": {"clip": None}}]})
    pipeline = Pipeline(recipe)
    pipeline.advance("best-of-n")
    rollouts = read_records(project.run / "rollouts-test" / "sft.jsonl", Rollout)
    stored = {
        line["rollout_id"]: line["value"]
        for line in lines_of(project.run / "best-of-n" / "scores.jsonl")
        if line["reward_model"] == "density-ratio"
    }
    tests = lines_of(project.run / "demonstrations" / "test.jsonl")
    prompts = {row["id"]: row["prompt"] for row in tests}
    found = pipeline.models.ratio(recipe.reward[0]).score(
        [prompts[rollout.prompt_id] for rollout in rollouts],
        [rollout.completion for rollout in rollouts],
        [rollout.finish_reason == "stop" for rollout in rollouts],
    )
    assert [stored[rollout.id] for rollout in rollouts] == pytest.approx(list(found), abs=1e-3)
    assert len(set(stored.values())) > 3


def check_sources(run: Path, elsewhere: Path) -> None:
    """Training prompts are answered by the other policy; annotators need two SFT samples."""
    train = [row["id"] for row in lines_of(run / "demonstrations" / "train.jsonl")]
    theirs = read_records(run / "reward" / "elsewhere-demo" / "negatives.jsonl", Rollout)
    assert [rollout.prompt_id for rollout in theirs] == train
    ours = read_records(run / "rollouts" / "sft.jsonl", Rollout)
    assert [rollout.index for rollout in ours] == [0, 1] * len(train)
    initial = read_records(run / "rollouts" / "initial.jsonl", Rollout)
    assert [rollout.index for rollout in initial] == [0] * len(train)


@pytest.mark.parametrize("model", ["adapter", "head"])
def test_ensemble_given_as_a_number(project: Project, model: str) -> None:
    """The members differ, also those of a kind that has one optimum only."""
    from demoalign.rewards.reward_model import RewardModel

    name = f"pair-of-{model}s"
    recipe = project.recipe({"reward": [{**FAST, "model": model, "ensemble": 2}], "name": name})
    Pipeline(recipe).advance("reward")
    members = project.run.with_name(name) / "reward" / "init-sft"
    assert {"member-0", "member-1"} <= {path.name for path in members.iterdir()}
    scores = [
        RewardModel.load(members / f"member-{i}", device="cpu").score(["Q: a"] * 2, [" b", " c d"])
        for i in range(2)
    ]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_more_samples_make_more_pairs(project: Project) -> None:
    few = project.recipe({"rollouts.train_prompts": 6, "name": "few"})
    many = project.recipe(
        {"rollouts.train_prompts": 6, "rollouts.samples_per_prompt": 3, "name": "many"}
    )
    pairs = []
    for recipe in (few, many):
        Pipeline(recipe).advance("reward")
        path = recipe.folder / "reward" / "init-sft" / "training.json"
        pairs.append(json.loads(path.read_text(encoding="utf-8"))["pairs"])
    assert pairs == [5, 15], "one of 6 prompts is held out"


def test_test_file_of_its_own(project: Project) -> None:
    rows = [{"prompt": f"Who has key {i}?", "completion": " You have."} for i in range(5)]
    other = jsonl(project.folder / "test.jsonl", rows)
    Pipeline(project.recipe({"demonstrations.test_source": str(other)})).advance("demonstrations")
    folder = project.run / "demonstrations"
    assert len(lines_of(folder / "train.jsonl")) == 24
    assert [row["prompt"] for row in lines_of(folder / "test.jsonl")] == [r["prompt"] for r in rows]


def test_a_policy_that_is_not_there_is_said_before_anything_is_trained(project: Project) -> None:
    from demoalign.pipeline.validate import validate

    rewards = [{**FAST, "positives": "sft", "negatives": f"policy:{project.folder / 'gone'}"}]
    with pytest.raises(DemoalignError, match="gone"):
        validate(project.recipe({"reward": rewards}))


def test_results_are_the_same_object_for_run_and_folder(project: Project) -> None:
    from demoalign.pipeline import run

    folder = run(project.recipe({"rollouts.train_prompts": 6}))
    assert folder == project.run
    assert results_of(folder)["schema"] == 1
