"""Small runs for the tests: data, recipes, the command line in this process, what was written."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demoalign.cli import main
from demoalign.config import Recipe, parse_recipe
from tests.demonstrations.files import jsonl

THINGS = ("lamp", "router", "printer")
ALWAYS_NEW = {"recipe.yaml", "env.json", "report.html", "run.log", "README.md"}
"""Files of a run that are written again even if there was nothing to do."""

TIMED = {"manifest.json", *ALWAYS_NEW}
"""Files that hold times, or the name of the folder."""

Json = dict[str, Any]


def demonstrations(count: int = 24, chat: bool = False) -> list[Json]:
    """Rows with distinct prompts."""
    rows: list[Json] = []
    for i in range(count):
        question = f"Why is {THINGS[i % 3]} {i} off?"
        answer = f" Turn key {i % 5} on, please."
        if chat:
            asked = {"role": "user", "content": question}
            said = {"role": "assistant", "content": answer.strip()}
            rows.append({"messages": [asked, said]})
        else:
            rows.append({"prompt": question, "completion": answer})
    return rows


def preferences(count: int = 12) -> list[Json]:
    return [
        {"prompt": f"Is key {i} on?", "chosen": " Yes, please.", "rejected": f" Not key {i}"}
        for i in range(count)
    ]


@dataclass(frozen=True)
class Project:
    """A user's folder: data, a recipe that can be changed, and runs below it."""

    folder: Path
    plain: Json

    @property
    def run(self) -> Path:
        return Path(self.plain["output"]) / str(self.plain["name"])

    @property
    def data(self) -> Path:
        return Path(self.plain["demonstrations"]["source"])

    def recipe(self, changes: Mapping[str, Any] | None = None) -> Recipe:
        return parse_recipe(self.changed(changes or {}))

    def changed(self, changes: Mapping[str, Any]) -> Json:
        return changed(self.plain, changes)

    def file(self, changes: Mapping[str, Any] | None = None, name: str = "recipe.yaml") -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(self.changed(changes or {})), encoding="utf-8")
        return path


def make_project(folder: Path, base: Path | str, chat: bool = False, **changes: Any) -> Project:
    """A recipe small enough for a second or two; keys are changed as ``sft__epochs=2``."""
    plain: Json = {
        "name": "small",
        "output": str(folder / "runs"),
        "model": {"base": str(base), "device": "cpu", "adapter": {"r": 4, "alpha": 8}},
        "demonstrations": {
            "source": str(jsonl(folder / "data.jsonl", demonstrations(chat=chat))),
            "test_fraction": 0.25,
            "max_prompt_tokens": 64,
        },
        "sft": {"epochs": 1, "learning_rate": 0.003},
        "rollouts": {"max_new_tokens": 8},
        "reward": [{"epochs": 1, "learning_rate": 0.003}],
        "evaluation": {"golden": "tests.pipeline.goldens:letters", "n": 4, "initial_samples": 2},
    }
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return Project(folder, changed(plain, dotted))


def changed(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """A copy with keys such as ``sft.epochs`` or ``reward.0.loss`` set; None takes one out."""
    found: Json = copy.deepcopy(dict(plain))
    for key, value in changes.items():
        *parents, last = key.split(".")
        target: Any = found
        for parent in parents:
            index: Any = int(parent) if parent.isdigit() else parent
            target = target[index] if isinstance(target, list) else target.setdefault(index, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return found


@dataclass(frozen=True, slots=True)
class Said:
    """What a command did: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """The one JSON object that --json prints, which is all of stdout."""
        (line,) = self.out.splitlines()
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


def cli(*arguments: object) -> Said:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Said(status, out.getvalue(), err.getvalue())


def refusal(*arguments: object) -> str:
    """The message of a command that must end with status 1 and nothing on stdout."""
    said = cli(*arguments)
    assert said.status == 1, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "error: " in said.err
    return said.err[said.err.index("error: ") :]


def digests(folder: Path, skip: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path there."""
    left_out = set(skip)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def results_of(run: Path) -> Json:
    found: Json = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    return found


def metrics_of(run: Path, name: str) -> list[Json]:
    return [metric for metric in results_of(run)["metrics"] if metric["metric"] == name]


def lines_of(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def stages_done(outcomes: Sequence[Any]) -> list[str]:
    """Names of the stages that were not up to date."""
    return [each.stage for each in outcomes if each.status == "done"]
