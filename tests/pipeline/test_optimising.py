"""Policies that are trained against a reward of the run: rloo, grpo, ppo, raft, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from demoalign.pipeline import Pipeline
from demoalign.rewards.reward_model import RewardModel
from tests.conftest import ModelFolder
from tests.pipeline.runs import Project, cli, make_project, metrics_of

CHECK = {"every": 1, "prompts": 4, "samples": 2}
STEPS: dict[str, Any] = {
    "rounds": 2,
    "prompts": 4,
    "samples_per_prompt": 2,
    "learning_rate": 1e-3,
    "checkpoint_every": 1,
    "check": CHECK,
    "samples": 2,
}
IMPROVE: dict[str, dict[str, Any]] = {
    "rloo": {"method": "rloo", **STEPS},
    "grpo": {"method": "grpo", **STEPS, "reward": "density-ratio", "level": "token"},
    "ppo": {"method": "ppo", **STEPS, "batch_size": 3},
    "adversarial": {
        "method": "adversarial",
        **STEPS,
        "level": "token",
        "divergence": "gail",
        "discriminator": {"warmup": 2, "steps": 1, "batch_size": 4, "gradient_penalty": 0.1},
    },
    "irl": {
        "method": "irl",
        "iterations": 2,
        "reward": {"epochs": 1, "learning_rate": 1e-2, "mix": 0.5, "past": True},
        "step": {"method": "rloo", **{k: v for k, v in STEPS.items() if k != "samples"}},
        "samples": 2,
    },
    "raft": {
        "method": "raft",
        "rounds": 2,
        "samples_per_prompt": 2,
        "train_prompts": 6,
        "epochs": 1,
        "learning_rate": 1e-3,
        "check": CHECK,
        "samples": 2,
    },
}
REWARDS: list[dict[str, Any]] = [
    {"epochs": 1, "learning_rate": 0.003},
    {"model": "density_ratio"},
]


def project(folder: Path, base: Path, method: str) -> Project:
    return make_project(folder, base, reward=REWARDS, improve={**IMPROVE[method], "reward": None})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_one_shot_method_is_no_rounds(model_folder: ModelFolder, tmp_path: Path) -> None:
    """With no rounds the policy stays, and the discriminator is a reward model of the paper's."""
    made = make_project(tmp_path, model_folder("llama", "eos_only"))
    discriminator = {"positives": "sft", "negatives": ["initial"], "warmup": 3, "batch_size": 4}
    section = {"method": "adversarial", "rounds": 0, "prompts": 4, "check": CHECK, "samples": 2}
    Pipeline(made.recipe({"improve": {**section, "discriminator": discriminator}})).advance(
        "policy"
    )
    folder = made.run / "policy"
    reward = RewardModel.load(folder / "discriminator")
    assert np.isfinite(reward.score(["Why?"], [" So."])).all()
    weights = [load_file(each / "adapter_model.safetensors") for each in (folder, made.run / "sft")]
    assert all(torch.equal(weights[0][key], each) for key, each in weights[1].items())


@pytest.mark.parametrize(
    ("start", "adapter"), [("sft", "lora"), ("initial", "lora"), ("sft", "none")]
)
def test_the_discriminator_begins_with_the_sft_policys_weights(
    model_folder: ModelFolder, tmp_path: Path, start: str, adapter: str
) -> None:
    made = make_project(tmp_path, model_folder("llama", "eos_only"), reward=[{"model": "head"}])
    section = {"method": "adversarial", "rounds": 0, "prompts": 4, "check": CHECK, "samples": 2}
    section |= {"discriminator": {"start": start, "warmup": 0}}
    changes: Any = {"improve": section, "model.adapter.kind": adapter}
    Pipeline(made.recipe(changes)).advance("policy")
    name = "adapter_model.safetensors" if adapter == "lora" else "model.safetensors"
    mine = load_file(made.run / "policy" / "discriminator" / name)
    its = load_file(made.run / "sft" / name)
    body = [key for key in its if key in mine]
    assert body
    assert all(torch.equal(mine[key], its[key]) for key in body) == (start == "sft")


@pytest.mark.parametrize(
    ("start", "adapter"), [("sft", "lora"), ("initial", "lora"), ("sft", "none")]
)
def test_irls_reward_begins_with_the_sft_policys_weights(
    model_folder: ModelFolder, tmp_path: Path, start: str, adapter: str
) -> None:
    reward = {"epochs": 1, "learning_rate": 1e-12, "start": start}
    section = {**IMPROVE["irl"], "iterations": 1, "reward": reward}
    made = make_project(tmp_path, model_folder("llama", "eos_only"), reward=[{"model": "head"}])
    changes: Any = {"improve": section, "model.adapter.kind": adapter}
    Pipeline(made.recipe(changes)).advance("policy")
    name = "adapter_model.safetensors" if adapter == "lora" else "model.safetensors"
    stored = made.run / "policy" / "iteration-1" / "reward" / name
    mine, its = load_file(stored), load_file(made.run / "sft" / name)
    body = [key for key in its if key in mine]
    assert body
    same = [torch.allclose(mine[key], its[key], atol=1e-9) for key in body]
    assert all(same) == (start == "sft")


@pytest.mark.parametrize("method", IMPROVE)
def test_a_run_with_each_method(model_folder: ModelFolder, tmp_path: Path, method: str) -> None:
    made = make_project(tmp_path, model_folder("llama", "eos_only"), reward=REWARDS)
    path = made.file({"improve": IMPROVE[method]})
    said = cli("run", path)
    assert said.status == 0, said.err
    run = made.run
    rounds, checks = lines(run / "policy" / "rounds.jsonl"), lines(run / "policy" / "checks.jsonl")
    assert [each["round"] for each in rounds] == [1, 2][: len(rounds)]
    assert checks[0]["round"] == 0
    assert checks[0]["means"]["kl"] == pytest.approx(0, abs=1e-4)
    assert {"golden", "reward", "entropy", "distinct", "cut", "tokens"} <= checks[0]["means"].keys()
    for name, (low, high) in checks[0]["ci95"].items():
        assert low <= checks[0]["means"][name] + 1e-9
        assert high >= checks[0]["means"][name] - 1e-9
    assert {"golden", "kl", "tokens", "cut"} <= checks[0]["ci95"].keys()
    golden = metrics_of(run, "golden_reward")
    assert {(m["policy"], m["selector"]) for m in golden} >= {(method, "none"), (method, "greedy")}
    assert (run / "policy" / "last" / "adapter_model.safetensors").is_file()
    assert not list((run / "policy").rglob("checkpoints")), "resume points of what is finished"
    again = cli("improve", path, "--json")
    assert "policy: up to date" in again.err
    training = again.json["training"]
    assert training["policy"] == method
    assert training["kept"] in [each["round"] for each in checks]
    assert f"{method}: {training['rounds']} " in again.err
    assert "How the policy was trained" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["rloo", "raft", "adversarial", "irl"])
def test_full_fine_tuning(model_folder: ModelFolder, tmp_path: Path, method: str) -> None:
    """Policy and reference are whole models; what is stored is one, too."""
    made = make_project(tmp_path, model_folder("llama", "eos_only"), reward=[REWARDS[1]])
    changes = {"model.adapter": {"kind": "none"}, "improve": IMPROVE[method]}
    Pipeline(made.recipe(changes)).advance("improve")
    run = made.run
    assert (run / "policy" / "model.safetensors").is_file()
    first, *_ = lines(run / "policy" / "checks.jsonl")
    assert first["means"]["kl"] == pytest.approx(0, abs=1e-4)
    assert (run / "improve" / f"{method}.jsonl").is_file()
