"""Self-play as a stage: its first iteration, its data, its resume, its reward; KTO beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.config import SpinConfig
from demoalign.errors import RecipeError
from demoalign.improve.dpo import token_pairs
from demoalign.improve.referred import reference_logprobs
from demoalign.pipeline import Pipeline
from demoalign.pipeline import spin as spinning
from demoalign.pipeline.data import read_data
from demoalign.pipeline.spin import train_spin
from demoalign.records import Demonstration, Score, read_records
from demoalign.rewards.comparisons import (
    answers_of_demonstrations,
    answers_of_rollouts,
    pair_sources,
)
from demoalign.rollouts.write import read_rollouts
from demoalign.store import digest_folder
from tests.conftest import ModelFolder
from tests.pipeline.runs import Project, cli, digests, lines_of, make_project, refusal, results_of

FAST = {"epochs": 1, "batch_size": 8, "accumulation": 1, "learning_rate": 0.003}
SPIN = {"method": "spin", "name": "spin", **FAST, "iterations": 3}
DPO = {
    **{"method": "dpo", "name": "dpo", **FAST, "start": "sft"},
    **{"positives": "demonstrations", "negatives": "sft"},
}
KTO = {"method": "kto", "name": "kto", **FAST, "samples": 1}
WHOLE = {"clip": None, "support": None, "memory": 0}
IMPLICIT: list[dict[str, Any]] = [
    {"epochs": 1, "learning_rate": 0.003, "model": "head"},
    {
        **{"name": "spin-reward", "model": "density_ratio", "ratio": WHOLE},
        **{"positives": "baseline:spin", "negatives": "sft"},
    },
    {
        **{"name": "spin-step", "model": "density_ratio", "ratio": WHOLE},
        **{"positives": "baseline:spin", "negatives": "baseline:spin/iteration-2"},
    },
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> Project:
    folder = tmp_path_factory.mktemp("played")
    made = make_project(
        folder, model_folder("llama", "bos"), baselines=[SPIN, DPO, KTO], reward=IMPLICIT
    )
    Pipeline(made.recipe()).advance()
    return made


def spin_of(project: Project) -> SpinConfig:
    config = project.recipe().baselines[0]
    assert isinstance(config, SpinConfig)
    return config


def iterations_of(project: Project) -> list[dict[str, Any]]:
    text = (project.run / "baseline/spin/iterations.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def training_rows(project: Project) -> list[Demonstration]:
    return read_data(project.run / "demonstrations")[0]


def test_the_first_iteration_is_dpo_on_demonstrations_against_the_sft_policys_samples(
    played: Project,
) -> None:
    ours, theirs = (played.run / "baseline" / each for each in ("spin/iteration-1", "dpo"))
    name = "adapter_model.safetensors"
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    notes = [json.loads((each / "training.json").read_text()) for each in (ours, theirs)]
    assert notes[0] == notes[1]


def test_what_each_iteration_started_from_and_learned_from(played: Project) -> None:
    found = iterations_of(played)
    assert [each["iteration"] for each in found] == [1, 2, 3]
    starts = ["sft", "baseline:spin/iteration-1", "baseline:spin/iteration-2"]
    assert [each["starts_from"] for each in found] == starts
    folders = ["sft", "baseline/spin/iteration-1", "baseline/spin/iteration-2"]
    assert [each["starts_from_digest"] for each in found] == [
        digest_folder(played.run / each) for each in folders
    ]
    assert [each["trained_on_samples_of_iterations"] for each in found] == [[1], [1, 2], [2, 3]]
    rows = len(training_rows(played))
    assert [each["pairs"] for each in found] == [rows, 2 * rows, 2 * rows]
    assert all(each["engine"]["engine"] for each in found)
    assert len({each["seed"] for each in found}) == 3
    said = [lines_of(played.run / each["samples"]) for each in found]
    assert len({json.dumps([line["completion"] for line in lines]) for lines in said}) == 3
    assert {line["policy"] for line in said[2]} == {"spin-iteration-2"}


def test_the_last_iteration_by_hand(played: Project, tmp_path: Path) -> None:
    """Demonstrations over samples of iterations 2 and 3, relative to the policy of iteration 2."""
    copy = tmp_path / "runs" / "small"
    shutil.copytree(played.run, copy)
    changes = {"output": str(tmp_path / "runs")}
    entry = SPIN | {"batch_size": 64, "betas": [0.1, 0.2], "learning_rates": [0.003, 0.001]}
    recipe = played.recipe({**changes, "baselines": [entry]})
    pipeline = Pipeline(recipe)
    (config,) = recipe.baselines
    assert isinstance(config, SpinConfig)
    train = training_rows(played)
    prompts = {row.id: row.prompt for row in train}
    pairs = []
    for number in (2, 3):
        rollouts = read_rollouts(copy / f"baseline/spin/samples/iteration-{number}.jsonl")
        negatives = answers_of_rollouts(rollouts)
        pairs += pair_sources(prompts, answers_of_demonstrations(train), negatives)
    folder = copy / "baseline" / "spin"
    given = recipe, config, copy, pipeline.models, folder
    assert spinning._comparisons(*given, train, 3) == pairs
    (folder / "iterations.json").write_text(json.dumps(iterations_of(played)[:2]))
    train_spin(*given)
    noted = json.loads((folder / "training.json").read_text())
    assert (noted["steps"], noted["pairs"]) == (1, len(pairs))
    assert noted["losses"] == pytest.approx([np.log(2)], abs=1e-4)  # it starts at its reference
    start = pipeline.models.policy("baseline:spin/iteration-2")
    tokens, _ = token_pairs(start.backbone.tokenizer, pairs, "spin", 128)
    before = reference_logprobs(start, tokens)
    after = reference_logprobs(pipeline.models.baseline("spin"), tokens)
    assert ((after - before) @ [1, -1]).mean() > 0
    last = json.loads((folder / "iterations.json").read_text())[2]
    assert (last["beta"], last["learning_rate"]) == (0.2, 0.001)


@pytest.mark.parametrize("where", ["between", "sampling", "training"])
def test_resumed_equals_uninterrupted(
    played: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stopped after iteration 1, while iteration 2 samples, and while it trains."""
    copy = tmp_path / "runs" / "small"
    shutil.copytree(played.run, copy)
    shutil.rmtree(copy / "baseline")
    recipe = played.recipe({"output": str(tmp_path / "runs")})
    config, models = spin_of(played), Pipeline(recipe).models
    folder = copy / "baseline" / "spin"
    folder.mkdir(parents=True)
    broken = {"between": "_sample", "sampling": "write_rollouts", "training": "store_policy"}[where]
    original, calls = getattr(spinning, broken), []

    def stops(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == (1 if where == "sampling" else 2):
            if where == "sampling":
                original(*args, **kwargs)
                whole = args[0].read_text(encoding="utf-8").splitlines(keepends=True)
                args[0].unlink()
                args[0].with_name(args[0].name + ".partial").write_text("".join(whole[:5]))
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(spinning, broken, stops)
    with pytest.raises(KeyboardInterrupt):
        train_spin(recipe, config, copy, models, folder)
    assert len(json.loads((folder / "iterations.json").read_text())) == 1
    if where == "training":
        saved = sorted((folder / "iteration-2/checkpoints").glob("checkpoint-*"))
        assert len(saved) == 2
        shutil.rmtree(max(saved, key=lambda path: int(path.name.rpartition("-")[2])))
    monkeypatch.undo()
    train_spin(recipe, config, copy, Pipeline(recipe).models, folder)
    files = ("iteration-2.jsonl", "iteration-3.jsonl")
    skip = {"manifest.json", "README.md", "training.json", "iterations.json", *files}
    whole = played.run / "baseline" / "spin"
    assert digests(folder, skip) == digests(whole, skip)
    for name in files:  # log-probabilities may differ in the last bit with the batch
        ours, theirs = (read_rollouts(each / "samples" / name) for each in (folder, whole))
        assert [(r.id, r.token_ids) for r in ours] == [(r.id, r.token_ids) for r in theirs]
    assert json.loads((folder / "iterations.json").read_text()) == iterations_of(played)


def test_the_implicit_reward_is_a_selector(played: Project) -> None:
    """Of an answer it is log pi_3 - log pi of what it is relative to."""
    found = results_of(played.run)["metrics"]
    for name in ("spin-reward", "spin-step"):
        mine = [metric for metric in found if metric["selector"] == name]
        assert {metric["metric"] for metric in mine} >= {"golden_reward"}
    models = Pipeline(played.recipe()).models
    rows = read_data(played.run / "demonstrations")[1]
    stored = {
        (each.rollout_id, each.reward_model): each.value
        for each in read_records(played.run / "best-of-n" / "scores.jsonl", Score)
    }
    last = models.baseline("spin")
    pairs = pair_sources(
        {row.id: row.prompt for row in rows},
        answers_of_demonstrations(rows),
        answers_of_demonstrations(rows),
    )
    tokens, _ = token_pairs(last.backbone.tokenizer, pairs, "spin", 128)
    for name, other in (("spin-reward", "sft"), ("spin-step", "baseline:spin/iteration-2")):
        ups = reference_logprobs(models.baseline("spin"), tokens)[:, 0]
        wanted = ups - reference_logprobs(models.policy(other), tokens)[:, 0]
        given = np.array([stored[row.id, name] or 0.0 for row in rows])
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-3)
        assert np.abs(wanted).max() > 1e-3


def test_kto_learns_from_both_sources(played: Project) -> None:
    noted = json.loads((played.run / "baseline/kto/training.json").read_text())
    rows = len(training_rows(played))
    assert (noted["desirable"], noted["undesirable"]) == (rows, rows)
    assert noted["losses"][0] == pytest.approx(0.5, abs=1e-2)
    measured = {m["metric"] for m in results_of(played.run)["metrics"] if m["policy"] == "kto"}
    assert measured >= {"golden_reward", "kl", "completion_tokens"}


def test_a_user_can_choose_by_it_and_ask_it(played: Project, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Is lamp 3 on?"}\n', encoding="utf-8")
    out = tmp_path / "answers.jsonl"
    said = cli(
        *("best-of-n", played.file(), "--prompts", asked, "--output", out, "--n", 2),
        *("--policy", "kto", "--selector", "spin-reward"),
    )
    assert said.status == 0, said.err
    (line,) = lines_of(out)
    assert (line["policy"], line["selector"]) == ("kto", "spin-reward")


def test_what_is_asked_first_is_trained_first(project: Project) -> None:
    """A baseline that the rewards compare, asked on the command line before anything has run."""
    once = SPIN | {"iterations": 1, "start": "initial"}
    reward = [IMPLICIT[1] | {"negatives": "initial"}]
    recipe = project.file({"baselines": [once], "reward": reward})
    asked = project.folder / "asked.jsonl"
    asked.write_text('"Is lamp 3 on?"\n', encoding="utf-8")
    out = project.folder / "answers.jsonl"
    given = ("--prompts", asked, "--output", out, "--n", 2, "--policy", "spin")
    said = cli("best-of-n", recipe, *given)
    assert said.status == 0, said.err
    assert [line["selector"] for line in lines_of(out)] == ["spin-reward"]
    assert not (project.run / "rollouts-test").exists()


def test_rewards_that_compare_a_baseline_come_after_it_and_run_again_with_it(
    played: Project,
) -> None:
    pipeline = Pipeline(played.recipe())
    names = [stage.name for stage in pipeline.stages]
    assert names.index("baseline/spin") < names.index("reward/init-sft")
    assert names.index("baseline/dpo") > names.index("rollouts-test")
    assert all(current for _, current in pipeline.plan())
    changed = [SPIN | {"beta": 0.2}, DPO, KTO]
    stale = [
        n for n, current in Pipeline(played.recipe({"baselines": changed})).plan() if not current
    ]
    assert stale == [
        *("baseline/spin", "reward/spin-reward", "reward/spin-step"),
        *("baseline-rollouts/spin", "best-of-n", "evaluation"),
    ]


def test_full_fine_tuning(project: Project) -> None:
    """Whole models one at a time, from the initial policy, with the hinge."""
    entry = SPIN | {"iterations": 2, "start": "initial", "loss": "hinge", "mix": 1}
    kto = KTO | {"positives": "preferred", "negatives": "dispreferred", "preferences": "golden"}
    changes = {"model.adapter.kind": "none", "baselines": [entry, kto], "reward": IMPLICIT[:2]}
    Pipeline(project.recipe(changes)).advance("reward")
    found = iterations_of(project)
    assert [each["starts_from"] for each in found] == ["initial", "baseline:spin/iteration-1"]
    assert [each["trained_on_samples_of_iterations"] for each in found] == [[1], [2]]
    files = [project.run / "baseline/spin" / each for each in ("iteration-1", "")]
    first, last = ((each / "model.safetensors").read_bytes() for each in files)
    assert first != last
    Pipeline(project.recipe(changes)).advance("baseline-rollouts")
    assert (project.run / "baseline-rollouts/kto/kto.jsonl").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": "preferred", "preferences": "golden"}, "needs demonstrations"),
        ({"positives": "sft"}, "must differ from what training starts from, found 'sft' as both"),
        ({"betas": [1, 2, 3, 4]}, "betas: must be at most one for each of 3 iterations, found 4"),
        ({"iterations": 0}, r"baselines\.0\.iterations: .*; found 0"),
        ({"mixx": 1}, "did you mean 'mix'"),
    ],
)
def test_what_spin_refuses(project: Project, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        project.recipe({"baselines": [SPIN | changes]})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "baseline:spun",
            r"reward\.density-ratio: baseline:NAME must name .*\(spin\), found 'spun'",
        ),
        ("baseline:spin/iteration-3", r"before the last \(1 to 2 here.*, found 3"),
        ("baseline:spin/3", "String should match pattern"),
    ],
)
def test_what_rewards_refuse(project: Project, source: str, message: str) -> None:
    reward = [{"model": "density_ratio", "positives": source, "negatives": "sft"}]
    with pytest.raises(RecipeError, match=message):
        project.recipe({"baselines": [SPIN], "reward": reward})


def test_what_kto_refuses(project: Project) -> None:
    said = refusal("validate", project.file({"baselines": [KTO | {"batch_size": 1}]}))
    assert "baselines.0.batch_size: " in said
    assert "found 1" in said
    with pytest.raises(RecipeError, match="must differ, found 'sft' as both"):
        project.recipe({"baselines": [KTO | {"positives": "sft", "negatives": "sft"}]})
