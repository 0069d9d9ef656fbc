"""Policies that are trained in rounds: two processes do what one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demoalign.errors import RecipeError
from demoalign.pipeline import Pipeline
from demoalign.pipeline.resolve import check_shared
from tests.conftest import ModelFolder
from tests.pipeline.runs import make_project
from tests.pipeline.test_optimising import CHECK, IMPROVE, REWARDS, lines
from tests.pipeline.test_processes import launch, same_weights

SELDOM = {"check": {**CHECK, "every": 2}}
RAFT = {key: value for key, value in IMPROVE["raft"].items() if key != "samples"}
TOGETHER: dict[str, dict[str, Any]] = {
    "ppo": IMPROVE["ppo"] | SELDOM | {"reward": "density-ratio"},
    "adversarial": IMPROVE["adversarial"] | SELDOM,
    "irl": IMPROVE["irl"]
    | {"step": RAFT, "reward": IMPROVE["irl"]["reward"] | {"holdout_fraction": 0.5}},
}


@pytest.mark.parametrize("method", TOGETHER)
def test_two_processes_train_what_one_trains(
    model_folder: ModelFolder, tmp_path: Path, method: str
) -> None:
    made = make_project(
        tmp_path,
        model_folder("llama", "eos_only"),
        sft__batch_size=2,
        reward=[REWARDS[0] | {"batch_size": 2}, REWARDS[1]],
        improve=TOGETHER[method],
    )
    Pipeline(made.recipe({"name": "one"})).advance("policy")
    said = launch(2, "improve", made.file({"name": "two"}))
    assert said.returncode == 0, said.stderr[-3000:]
    one, two = (made.run.with_name(name) / "policy" for name in ("one", "two"))
    for name in ("adapter_model.safetensors", "last/adapter_model.safetensors"):
        same_weights(one, two, name, atol=2e-4)
    for name in ("rounds.jsonl", "checks.jsonl"):
        first, second = lines(one / name), lines(two / name)
        assert len(first) == len(second)
        for ours, theirs in zip(first, second, strict=True):
            known, others = (each | each.get("means", {}) for each in (ours, theirs))
            for key, value in known.items():
                if isinstance(value, float) and not key.startswith("seconds"):
                    assert others[key] == pytest.approx(value, abs=5e-3, rel=1e-2), key
    rounds = lines(two / "rounds.jsonl")
    assert len(rounds) == 2
    assert all(each.get("step", True) for each in rounds), "the reward must tell the sides apart"
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}


def test_two_processes_play_what_one_plays(model_folder: ModelFolder, tmp_path: Path) -> None:
    """SPIN, whose iterations begin with what the one before has stored."""
    spin = {"method": "spin", "name": "spin", "iterations": 2, "samples": 1}
    made = make_project(
        tmp_path,
        model_folder("llama", "eos_only"),
        sft__batch_size=2,
        reward=[{"model": "density_ratio"}],
        baselines=[{**spin, "batch_size": 2, "epochs": 1, "learning_rate": 1e-3}],
        evaluation__golden=None,
    )
    Pipeline(made.recipe({"name": "one"})).advance()
    said = launch(2, "run", made.file({"name": "two"}))
    assert said.returncode == 0, said.stderr[-3000:]
    one, two = (made.run.with_name(name) / "baseline/spin" for name in ("one", "two"))
    for name in ("iteration-1/adapter_model.safetensors", "adapter_model.safetensors"):
        same_weights(one, two, name, atol=1e-3)
    first, second = (json.loads((each / "iterations.json").read_text()) for each in (one, two))
    for ours, theirs in zip(first, second, strict=True):
        for key in ("starts_from", "samples", "pairs", "steps", "engine"):
            assert ours[key] == theirs[key], key
    assert {p.name for p in one.rglob("*")} == {p.name for p in two.rglob("*")}


def test_weights_that_are_split_are_refused(
    tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_project(tmp_path, model_folder("llama", "bos"))
    ppo = made.recipe({"improve": {"method": "ppo"}})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_shared(ppo)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_shared(made.recipe())
    with pytest.raises(RecipeError, match=r"improve\.method: ppo .* found ACCELERATE_USE_FSDP"):
        check_shared(ppo)
    for changes, found in (
        ({"model.adapter.kind": "none"}, "model.adapter.kind: none"),
        ({"reward": [{"model": "full"}]}, "reward init-sft with model: full"),
    ):
        with pytest.raises(RecipeError, match=f"only adapters .* found {found}"):
            check_shared(made.recipe(changes))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    check_shared(ppo)
