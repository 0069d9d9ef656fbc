"""Make small files for the tests, and read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from demoalign.demonstrations import Demonstrations, read_demonstrations
from demoalign.errors import DataError

GOOD = '{"prompt": "Why?", "completion": " Because."}'


def jsonl(path: Path, rows: Iterable[object]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def read_row(tmp_path: Path, row: object, format: str = "auto") -> Demonstrations:
    return read_demonstrations(jsonl(tmp_path / "data.jsonl", [row]), format=format)


def problem_of(tmp_path: Path, row: object, format: str = "auto") -> str:
    """What is said about a row that stands on the second line, after a good one."""
    path = jsonl(tmp_path / "data.jsonl", [json.loads(GOOD), row])
    return only_problem(path, "data.jsonl:2", format)


def only_problem(path: Path, where: str, format: str = "auto") -> str:
    """The text of a file's one problem, which must be at ``where``."""
    with pytest.raises(DataError) as caught:
        read_demonstrations(path, format=format)
    (problem,) = caught.value.problems
    assert problem.where == where
    return problem.what


def error_of(
    path: Path | str, *, format: str = "auto", columns: Mapping[str, str] | None = None
) -> str:
    with pytest.raises(DataError) as caught:
        read_demonstrations(path, format=format, columns=columns)
    return str(caught.value)
