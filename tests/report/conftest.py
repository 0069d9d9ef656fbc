"""A run folder with plausible results, built the same way every time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .world import MODELS, NS, SAMPLES, World, all_metrics, rewards_of, samples_of

RECIPE = {
    "name": "help-desk",
    "seed": 0,
    "model": {"base": "lab/base", "adapter": {"kind": "lora", "r": 8}},
    "demonstrations": {"source": "demonstrations.jsonl", "test_fraction": 0.1},
    "rollouts": {"samples_per_prompt": SAMPLES, "max_new_tokens": 64, "temperature": 1.0},
    "reward": [
        {"positives": "sft", "negatives": "initial", "loss": "bce"},
        {"positives": "demonstrations", "negatives": "initial"},
        {"positives": "sft", "negatives": "initial", "model": "density_ratio"},
    ],
    "improve": {"method": "extrapolate"},
    "evaluation": {"golden": "lab", "n": list(NS)},
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def build_run(folder: Path) -> Path:
    """Write a whole run folder and return it."""
    world = World()
    for place, stage in enumerate(
        (
            *("demonstrations", "sft", "rollouts", "rollouts-test", "best-of-n"),
            *(f"reward/{m}" for m in MODELS),
            "improve",
        )
    ):
        manifest = {
            "stage": stage.partition("/")[0],
            "status": "done",
            "fingerprint": f"{place:064x}",
            "seed": 0,
            "started": "2025-01-01T12:00:00+00:00",
            "seconds": 2.5 + 17.0 * place,
            "files": [{"name": "data.jsonl", "size": 10, "sha256": "0" * 64}],
        }
        write_json(folder / stage / "manifest.json", manifest)
    write_json(
        folder / "evaluation" / "manifest.json",
        {"stage": "evaluation", "status": "done", "seed": 0, "seconds": 31.0, "files": []},
    )
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
    versions = {"torch": "2.8.0", "transformers": "5.10.1"}
    write_json(folder / "env.json", {"python": "3.11.2", "cores": 2, "packages": versions})
    metrics = [dataclasses.asdict(metric) for metric in all_metrics(world)]
    results = {"schema": 1, "run": "help-desk", "metrics": metrics}
    write_json(folder / "evaluation" / "results.json", results)
    write_json(folder / "evaluation" / "rewards.json", rewards_of(world))
    write_json(folder / "evaluation" / "samples.json", samples_of(world))
    return folder


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run folder; read only (`run_copy` may be changed)."""
    return build_run(tmp_path_factory.mktemp("run") / "help-desk")


@pytest.fixture
def run_copy(full_run: Path, tmp_path: Path) -> Path:
    """A copy of the complete run that a test may change."""
    return Path(shutil.copytree(full_run, tmp_path / "help-desk"))


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file with what ``change`` makes of its value."""
    write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))


def shrink(run: Path) -> None:
    """Leave one reward model and one baseline, so that few charts have to be drawn."""
    kept = {"none", "greedy", "init-sft", "length"}
    policies = {"none", "initial", "sft", "demonstrations"}

    def fewer(results: dict[str, Any]) -> dict[str, Any]:
        rows = results["metrics"]
        rows = [m for m in rows if m["selector"] in kept and m["policy"] in policies]
        return {**results, "metrics": rows}

    change_json(run / "evaluation/results.json", fewer)
    change_json(run / "evaluation/rewards.json", lambda r: {"init-sft": r["init-sft"]})
