"""Two processes give what one gives: trainings, rollouts and scores.

They run on this machine's CPU and talk by gloo; batches divide the rows, so that none is filled.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from demoalign.cli.options import launcher, launchers
from demoalign.config import SftConfig
from demoalign.errors import RecipeError, TrainingError
from demoalign.pipeline import Pipeline
from demoalign.pipeline.resolve import check_shared
from demoalign.policies.training import shared_arguments
from demoalign.processes import (
    add_up_gradients,
    agreed,
    from_main,
    gather,
    is_main,
    joined,
    mine,
    of_all,
    parts,
    shared,
    world,
)
from demoalign.rollouts.write import join_shares, read_hidden
from tests.conftest import ModelFolder
from tests.pipeline.runs import Project, cli, lines_of, make_project, metrics_of

ROOT = Path(__file__).parents[2]
FAST = {"epochs": 1, "learning_rate": 0.003}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def launch(
    count: int, *arguments: object, module: str = "demoalign", **variables: str
) -> subprocess.CompletedProcess[str]:
    """`demoalign` in several processes, as `accelerate launch` starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}"]
    command += [f"--master_port={free_port()}", "-m", module, *map(str, arguments)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    path = os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": path, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> tuple[Path, Path]:
    """The same run by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    project = make_project(
        folder,
        model_folder("llama", "bos"),
        sft__batch_size=2,
        sft__group_by_length=True,
        reward=[
            {**FAST, "batch_size": 2, "accumulation": 1, "holdout_fraction": 0.12},
            {"positives": "demonstrations", "negatives": "initial", "model": "head"},
            {"model": "density_ratio"},
        ],
        rollouts__samples_per_prompt=2,
        evaluation__golden=None,
    )
    Pipeline(project.recipe({"name": "one"})).advance()
    said = launch(2, "run", project.file({"name": "two"}), "--json")
    assert said.returncode == 0, said.stderr[-3000:]
    (line,) = said.stdout.splitlines()
    assert {each["status"] for each in json.loads(line)["stages"]} == {"done"}
    return project.run.with_name("one"), project.run.with_name("two")


def same_weights(one: Path, two: Path, name: str, atol: float = 1e-5) -> None:
    first, second = load_file(one / name), load_file(two / name)
    assert first.keys() == second.keys()
    for key, weight in first.items():
        assert torch.allclose(weight, second[key], atol=atol), key
    assert max(float(w.abs().max()) for key, w in first.items() if "lora_B" in key) > 1e-4


def test_the_same_files(pair: tuple[Path, Path]) -> None:
    processes = [json.loads((run / "env.json").read_text())["processes"] for run in pair]
    assert processes == [1, 2]
    found = [
        {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        for run in pair
    ]
    assert found[0] == found[1], "no share is left over"


def test_the_same_sft_policy_and_reward_models(pair: tuple[Path, Path]) -> None:
    one, two = pair
    steps = [json.loads((run / "sft" / "training.json").read_text())["steps"] for run in pair]
    assert steps[0] == steps[1] > 2
    same_weights(one, two, "sft/adapter_model.safetensors")
    training = [json.loads((run / "reward/init-sft/training.json").read_text()) for run in pair]
    assert training[0]["pairs"] == training[1]["pairs"]
    assert training[0]["pairs"] % 2 == 0, "else the last batch is filled up"
    same_weights(one, two, "reward/init-sft/adapter_model.safetensors")
    same_weights(one, two, "reward/init-demo/adapter_model.safetensors", atol=1e-3)


def test_the_same_rollouts(pair: tuple[Path, Path]) -> None:
    names = sorted(p.relative_to(pair[0]) for p in pair[0].glob("rollouts*/*.jsonl"))
    assert len(names) > 3
    for name in names:
        first, second = (lines_of(run / name) for run in pair)
        assert [each["id"] for each in first] == [each["id"] for each in second]
        assert [each["token_ids"] for each in first] == [each["token_ids"] for each in second]
        for ours, theirs in zip(first, second, strict=True):
            assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-3)
    states = [read_hidden(run / "rollouts-test" / "sft.jsonl") for run in pair]
    assert states[0] is not None
    assert states[1] is not None
    np.testing.assert_allclose(states[0], states[1], atol=1e-4)


def test_the_same_scores(pair: tuple[Path, Path]) -> None:
    first, second = (lines_of(run / "best-of-n" / "scores.jsonl") for run in pair)
    assert [each["rollout_id"] for each in first] == [each["rollout_id"] for each in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], abs=5e-3), ours
    names = [{m["metric"] for m in metrics_of(run, "proxy_reward")} for run in pair]
    assert names[0] == names[1] == {"proxy_reward"}


def test_what_is_done_is_not_done_again(pair: tuple[Path, Path]) -> None:
    """One process takes over what two have made."""
    stages = cli("run", pair[1] / "recipe.yaml", "--json").json["stages"]
    assert {each["status"] for each in stages} == {"current"}


def test_one_process_is_not_asked_to_wait() -> None:
    assert (world(), is_main(), parts()) == (1, True, 1)
    with shared():
        assert parts() == 1
    assert from_main(lambda: 3) == 3
    assert gather("a") == of_all("a") == ["a"]
    assert agreed(lambda: 4) == 4
    assert joined(mine([1, 2, 3])) == [1, 2, 3]
    weight = torch.ones(2, requires_grad=True)
    add_up_gradients([weight])
    assert weight.grad is None


def test_a_batch_that_cannot_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match="must be a multiple of the number of processes, 3"):
        shared_arguments(SftConfig(batch_size=4), torch.device("cpu"), 0, "folder")
    found = shared_arguments(SftConfig(batch_size=6), torch.device("cpu"), 0, "folder")
    assert found["per_device_train_batch_size"] == 2


def test_what_one_process_must_do(
    tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Project = make_project(tmp_path, model_folder("llama", "bos"))
    kto = {"baselines": [{"method": "kto", "name": "kto"}]}
    check_shared(project.recipe(kto))
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_shared(project.recipe())
    with pytest.raises(RecipeError, match=r"baselines\.method: kto .* in one process, found 2"):
        check_shared(project.recipe(kto))


@pytest.mark.parametrize("prompts", [1, 3, 7])
def test_shares_are_joined_in_the_order_of_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    rows = [(prompt, index) for prompt in range(prompts) for index in range(2)]
    path = tmp_path / "sft.jsonl"
    for number in range(3):
        share = path.with_name(f"sft.part-{number}-of-3.jsonl")
        mine = [row for row in rows if row[0] % 3 == number]
        share.write_text("".join(json.dumps(row) + "\n" for row in mine))
        share.with_suffix(".engine.json").write_text("{}")
        if mine:
            states = np.array([[prompt, index] for prompt, index in mine], np.float32)
            np.save(share.with_suffix(".hidden.npy"), states)
    join_shares(path, prompts, 2)
    found: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
    assert [tuple(row) for row in found] == rows
    np.testing.assert_array_equal(read_hidden(path), np.array(rows, np.float32))
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["sft.engine.json", "sft.hidden.npy", "sft.jsonl"]


def test_configurations_of_accelerate(tmp_path: Path) -> None:
    assert launchers() == ["deepspeed-zero2", "fsdp", "multi-gpu", "single-gpu"]
    types = {"deepspeed-zero2": "DEEPSPEED", "fsdp": "FSDP", "multi-gpu": "MULTI_GPU"}
    for name in launchers():
        output = tmp_path / f"{name}.yaml"
        assert cli("init", "--accelerate", name, "--output", output).status == 0
        assert output.read_bytes() == launcher(name).read_bytes()
        found = yaml.safe_load(output.read_text())
        assert found["distributed_type"] == types.get(name, "NO")
    said = cli("init", "--accelerate", "tpu", "--output", tmp_path / "tpu.yaml")
    assert said.status == 1
    assert "must be one of deepspeed-zero2, fsdp, multi-gpu, single-gpu, found 'tpu'" in said.err


def test_accelerate_reads_them() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    for name in launchers():
        loaded = load_config_from_file(str(launcher(name)))
        assert loaded.num_processes == (1 if name == "single-gpu" else 2)
