"""The same seed gives the same bytes, in this process and in another; another seed does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from demoalign.pipeline import Pipeline
from tests.pipeline.runs import TIMED, Project, digests, results_of

SECRETS = {"OPENAI_API_KEY": "canary-123", "HF_TOKEN": "canary-456"}


def test_same_seed_same_bytes_in_two_folders(same_project: Project, finished: Project) -> None:
    Pipeline(same_project.recipe()).advance("evaluation")
    found = digests(same_project.run, skip=TIMED)
    assert found == digests(finished.run, skip=TIMED)
    assert {
        "sft/adapter_model.safetensors",
        "rollouts/initial.jsonl",
        "reward/init-sft/member-1/adapter_model.safetensors",
        "best-of-n/scores.jsonl",
        "evaluation/results.json",
    } <= set(found)


def test_a_fresh_process_gives_the_same_bytes_and_keeps_secrets(
    same_project: Project, finished: Project
) -> None:
    other = same_project.folder / "other"
    path = same_project.file({"output": str(other)})
    said = subprocess.run(
        [sys.executable, "-m", "demoalign", "run", str(path), "--json"],
        env={**os.environ, **SECRETS, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    (line,) = said.stdout.splitlines()
    assert json.loads(line)["run"] == str(other / "small")
    assert "[2/8] sft: running" in said.stderr
    assert "Loading weights" not in said.stderr, "other libraries' bars are hidden"
    assert "Warning" not in said.stderr
    assert digests(other / "small", skip=TIMED) == digests(finished.run, skip=TIMED)
    refuse_secrets(other)
    assert not any(secret in said.stdout + said.stderr for secret in SECRETS.values())


def refuse_secrets(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    for path in files:
        text = path.read_bytes()
        assert not any(secret.encode() in text for secret in SECRETS.values()), path


def test_another_seed_gives_other_results(same_project: Project, finished: Project) -> None:
    Pipeline(same_project.recipe({"seed": 1})).advance("evaluation")
    first, second = (digests(run, skip=TIMED) for run in (finished.run, same_project.run))
    for name in (
        "demonstrations/test.jsonl",
        "sft/adapter_model.safetensors",
        "rollouts/initial.jsonl",
        "rollouts-test/sft.jsonl",
        "reward/init-sft/member-0/adapter_model.safetensors",
        "best-of-n/scores.jsonl",
    ):
        assert first[name] != second[name], name
    assert results_of(finished.run)["metrics"] != results_of(same_project.run)["metrics"]
