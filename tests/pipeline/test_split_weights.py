"""Weights or optimiser states that are split among processes: FSDP 2 and DeepSpeed, on CPUs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from demoalign.cli.options import launcher
from demoalign.pipeline import Pipeline
from tests.conftest import ModelFolder
from tests.pipeline.runs import Project, lines_of, make_project
from tests.pipeline.test_processes import FAST, launch, same_weights


def settings(name: str) -> dict[str, str]:
    """What accelerate's launcher would set for one of the bundled configurations."""
    given: dict[str, Any] = yaml.safe_load(launcher(name).read_text())
    if name == "fsdp":
        found = {"ACCELERATE_USE_FSDP": "true"}
        return found | {key.upper(): str(value) for key, value in given["fsdp_config"].items()}
    return {
        "ACCELERATE_USE_CPU": "false",  # which DeepSpeed has its own word for
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(given["deepspeed_config"]["zero_stage"]),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
        "ACCELERATE_MIXED_PRECISION": given["mixed_precision"],
    }


def project(folder: Path, base: Path) -> Project:
    made = make_project(
        folder,
        base,
        sft__batch_size=2,
        sft__checkpoints=0,
        reward=[
            {**FAST, "batch_size": 2, "accumulation": 1, "holdout_fraction": 0.12},
            {**FAST, "batch_size": 2, "name": "spread", "loss": "bradley_terry_variance"},
        ],
        evaluation__golden=None,
    )
    Pipeline(made.recipe({"name": "one"})).advance()
    return made


def same_runs(one: Path, two: Path) -> None:
    same_weights(one, two, "sft/adapter_model.safetensors")
    same_weights(one, two, "reward/init-sft/adapter_model.safetensors")
    name = "reward/spread/variance_head.safetensors"
    spread, its = (load_file(each / name)["weight"] for each in (one, two))
    assert torch.allclose(spread, its, atol=1e-3)
    ours, theirs = (lines_of(each / "best-of-n/scores.jsonl") for each in (one, two))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["value"] == pytest.approx(other["value"], abs=5e-3)


def test_fsdp_trains_what_one_process_trains(model_folder: ModelFolder, tmp_path: Path) -> None:
    made = project(tmp_path, model_folder("llama", "bos"))
    split, asked = settings("fsdp"), made.file({"name": "two"})
    said = launch(2, "run", asked, module="tests.pipeline.fsdp_on_cpu", **split)
    assert said.returncode == 0, said.stderr[-3000:]
    same_runs(made.run.with_name("one"), made.run.with_name("two"))


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_deepspeed_trains_what_one_process_trains(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    made = project(tmp_path, model_folder("llama", "bos"))
    said = launch(2, "run", made.file({"name": "two"}), **settings("deepspeed-zero2"))
    assert said.returncode == 0, said.stderr[-3000:]
    assert "DeepSpeed" in said.stdout + said.stderr
    same_runs(made.run.with_name("one"), made.run.with_name("two"))
