"""Extrapolated decoding and its distillation as stages of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.config import DecodingRatioConfig
from demoalign.errors import RecipeError
from demoalign.pipeline import Pipeline
from demoalign.pipeline.models import Models
from demoalign.pipeline.sources import sft_sources
from demoalign.policies import Policy
from demoalign.rollouts.write import read_rollouts
from tests.conftest import ModelFolder
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import Project, cli, make_project, results_of

DISTIL = {"epochs": 1, "learning_rate": 0.003, "samples_per_prompt": 2}
IMPROVE = {"method": "extrapolate", "ratio": {"support": "auto"}, "distil": DISTIL}
NEW = ("policy", "improve", "best-of-n", "evaluation")


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> Project:
    folder = tmp_path_factory.mktemp("improved")
    made = make_project(folder, model_folder("llama", "bos"), improve=IMPROVE)
    Pipeline(made.recipe()).advance()
    return made


def metrics(project: Project, name: str) -> dict[tuple[str, str], Any]:
    found = results_of(project.run)["metrics"]
    return {(m["policy"], m["selector"]): m for m in found if m["metric"] == name and m["n"] == 1}


def test_what_is_measured(improved: Project) -> None:
    golden = metrics(improved, "golden_reward")
    for policy in ("extrapolated", "distilled"):
        for selector in ("none", "greedy"):
            assert golden[policy, selector]["value"] is not None
            assert (policy, selector) in metrics(improved, "completion_tokens")
            assert (policy, selector) in metrics(improved, "golden_reward_difference")
            assert (policy, selector) in metrics(improved, "win_rate_over_greedy")
    for selector in ("temperature-0.7", "top-p-0.9", "min-p-0.1"):
        assert golden["sft", selector]["count"] == golden["sft", "none"]["count"]
    kl = metrics(improved, "kl")
    cut = {("sft", name) for name in ("temperature-0.7", "top-p-0.9", "min-p-0.1")}
    assert set(kl) == {("extrapolated", "none"), ("distilled", "none")} | cut
    assert kl["sft", "min-p-0.1"]["value"] > 0  # truncating only raises what is left


def test_every_completion_has_an_id_of_its_own(improved: Project) -> None:
    """Else the golden reward of one would stand for another."""
    paths = [*improved.run.glob("rollouts-test/*.jsonl"), *improved.run.glob("improve/*d*.jsonl")]
    rollouts = [
        each for path in paths if "logprobs" not in path.name for each in read_rollouts(path)
    ]
    assert len(paths) >= 10
    assert len({each.id for each in rollouts}) == len(rollouts)


def test_support_is_read_off_the_initial_policy(improved: Project) -> None:
    rollouts = read_rollouts(improved.run / "rollouts" / "initial.jsonl")
    tokens = [value for each in rollouts for value in each.token_logprobs or ()]
    settled = Models(Pipeline(improved.recipe()).recipe, improved.run).settled(
        DecodingRatioConfig(support="auto", outside=0.2)
    )
    assert settled.support == pytest.approx(np.quantile(tokens, 0.2))
    assert settled.conditional


def test_the_distilled_policy_is_a_folder_like_any_other(improved: Project) -> None:
    policy = Policy.load(improved.run / "policy")
    sft = Policy.load(improved.run / "sft")
    weights = [
        {k: v for k, v in each.backbone.causal.named_parameters() if "lora_B" in k}
        for each in (policy, sft)
    ]
    moved = [not a.equal(b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True)]
    assert any(moved)
    losses = json.loads((improved.run / "policy" / "training.json").read_text())["losses"]
    assert all(np.isfinite(losses))


def test_what_runs_again(improved: Project) -> None:
    def stale(**changes: Any) -> tuple[str, ...]:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        plan = Pipeline(improved.recipe(dotted)).plan()
        return tuple(stage for stage, current in plan if not current)

    assert stale() == ()
    assert stale(improve__strength=1.0) == NEW
    assert stale(improve__ratio__support=-3.0) == NEW
    assert stale(improve__strength="auto") == ("strength", *NEW)
    assert stale(improve__samples=2) == NEW[1:]
    assert stale(improve__distil__epochs=2) == NEW
    assert stale(evaluation__truncated_samples=1) == ("rollouts-test", *NEW[1:])


def test_without_lora_and_strength_chosen_in_the_run(
    tmp_path: Path, model_folder: ModelFolder
) -> None:
    made = make_project(
        tmp_path,
        model_folder("llama", "bos"),
        improve={**IMPROVE, "strength": "auto"},
        model__adapter__kind="none",
        reward=[{"model": "density_ratio"}],
    )
    Pipeline(made.recipe()).advance()
    assert metrics(made, "golden_reward")["distilled", "none"]["value"] is not None
    assert (made.run / "policy" / "model.safetensors").is_file()
    chosen = json.loads((made.run / "strength" / "chosen.json").read_text())
    assert chosen["strength"] in {each["strength"] for each in chosen["tried"]}
    assert chosen["tried"][0]["strength"] == 0
    assert all(each["kl"] is not None for each in chosen["tried"])


def test_own_prompts_are_answered_by_an_improved_policy(improved: Project, tmp_path: Path) -> None:
    asked, answers = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text('{"prompt": "Why is lamp 3 off?"}\n', encoding="utf-8")
    recipe = str(improved.file())
    for policy in ("sft", "extrapolated", "distilled"):
        command = ["best-of-n", recipe, "--prompts", str(asked), "--output", str(answers)]
        said = cli(*command, "--n", "2", "--policy", policy)
        assert said.status == 0, said.err
        assert json.loads(answers.read_text())["policy"] == policy
    said = cli(*command, "--policy", "better")
    assert said.status == 1
    assert "--policy: must be one of sft, extrapolated, distilled, found 'better'" in said.err


def test_a_strength_that_is_left_open_is_chosen_first(improved: Project, tmp_path: Path) -> None:
    """Also where only own prompts are to be answered."""
    asked, answers = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text('"Why is lamp 3 off?"\n', encoding="utf-8")
    recipe = improved.file(
        {"improve.strength": "auto", "improve.distil": None, "output": str(tmp_path)}, "auto.yaml"
    )
    command = ["best-of-n", recipe, "--prompts", asked, "--output", answers, "--n", "1"]
    said = cli(*command, "--policy", "extrapolated")
    assert said.status == 0, said.err
    assert (tmp_path / "small" / "strength" / "chosen.json").is_file()
    assert not (tmp_path / "small" / "rollouts-test").exists()


def test_servers_do_not_extrapolate(improved: Project) -> None:
    """Told before anything is trained; and a server is not asked for what the API lacks."""
    served = {"rollouts.engine": "openai", "rollouts.endpoint": {"base_url": "http://localhost:1"}}
    with pytest.raises(RecipeError, match=r"needs rollouts.engine: transformers, found openai"):
        improved.recipe(served)
    sources = sft_sources(improved.recipe({**served, "improve": {"method": "best_of_n"}}))
    assert {each.selector for each in sources} == {
        *("none", "greedy", "temperature-0.7", "top-p-0.9")
    }


def test_best_of_n_makes_no_policy(copy_of_run: CopyOfRun) -> None:
    said = cli("improve", str(copy_of_run().file()))
    assert said.status == 1
    assert "improve.method: best_of_n makes no policy of its own" in said.err
    assert "extrapolate, raft, rloo, grpo, ppo, adversarial, irl" in said.err
