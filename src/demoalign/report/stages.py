"""The stages of a run folder, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demoalign.report.stored import (
    Problems,
    mapping_of,
    number_of,
    printable,
    read_json,
    text_of,
)

STAGES = (
    "demonstrations",
    "sft",
    "rollouts",
    "reward",
    "rollouts-test",
    "strength",
    "policy",
    "improve",
    "best-of-n",
    "preferences",
    "lm-eval",
    "evaluation",
)
OPTIONAL_STAGES = ("reward", "strength", "policy", "improve", "preferences", "lm-eval")
GROUPS = ("reward", "preferences", "lm-eval")
"""Stages that have a folder for each of several things."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage folder's manifest says; ``seconds`` is None if it was not measured."""

    name: str
    status: str
    started: str
    seconds: float | None
    files: int | None


def read_stages(run: Path, problems: Problems) -> Iterator[Stage]:
    """Every stage that a run has; one without a folder has not run."""
    for name in STAGES:
        folders = [run / name]
        if name in GROUPS and folders[0].is_dir():
            folders = sorted(path for path in folders[0].iterdir() if path.is_dir())
        if name in OPTIONAL_STAGES:
            folders = [folder for folder in folders if folder.is_dir()]
        for folder in folders:
            shown = printable(folder.relative_to(run).as_posix())
            if not folder.is_dir():
                yield Stage(shown, "not run", "", None, None)
                continue
            stored = read_json(folder / "manifest.json", problems, f"{shown}/manifest.json")
            manifest = mapping_of(stored)
            files = manifest.get("files")
            yield Stage(
                name=shown,
                status=text_of(manifest.get("status")) or "unknown",
                started=text_of(manifest.get("started")),
                seconds=number_of(manifest.get("seconds")),
                files=len(files) if isinstance(files, list | dict) else None,
            )
