"""Where rows come from: a file, a folder of files, a saved data set, or the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from demoalign.demonstrations.files import ENDINGS, file_rows, is_data_file
from demoalign.demonstrations.row import Row
from demoalign.errors import DataError

SPLITS = ("train", "validation", "valid", "val", "dev", "test", "eval")
SAVED = ("state.json", "dataset_dict.json")
NOT_DATA = ("dataset_info.json", "dataset_infos.json")
BESIDE_DATA = (".rejected.jsonl", ".replies.jsonl", ".dropped.jsonl", ".summary.json")
"""Endings of what this package writes beside a data file."""


def open_source(source: str, split: str) -> tuple[str, Iterator[Row]]:
    """What to call a source, and its rows (read as they are taken).

    Args:
        source: a file, a folder, or the id of a data set on the hub, ``name`` or ``owner/name``;
            ``owner/name:config`` chooses one of its configurations (or one of its folders),
            ``owner/name@split`` another split than ``split``.
        split: of a folder or a hub data set, the split to read.

    Raises:
        DataError: there is no such thing, or it cannot be opened.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path.name or source, _folder_rows(path, split)
    if path.exists():
        return path.name, file_rows(path, path.name)
    if looks_like_path(source):
        raise DataError(f"{source}: no such file (tried {path.absolute()})")
    return source, hub_rows(source, split)


def looks_like_path(source: str) -> bool:
    """Whether somebody who wrote this meant a file and not a data set on the hub."""
    return (
        not source
        or is_data_file(source)
        or source.startswith((".", "/", "~"))
        or "\\" in source
        or source.count("/") > 1
    )


def _folder_rows(folder: Path, split: str) -> Iterator[Row]:
    if any((folder / name).exists() for name in SAVED):
        yield from _saved_rows(folder, split)
        return
    for file in _files_of(folder, split):
        yield from file_rows(file, str(file.relative_to(folder)))


def _files_of(folder: Path, split: str) -> list[Path]:
    """The folder's data files; if their names tell splits, those of the split asked for."""
    files = sorted(
        file
        for place in (folder, folder / "data")
        if place.is_dir()
        for file in place.iterdir()
        if is_data_file(file)
        and file.name not in NOT_DATA
        and not file.name.startswith(".")
        and not file.name.endswith(BESIDE_DATA)
    )
    if not files:
        raise DataError(
            f"{folder.absolute().name}: no data file in this folder (tried {folder.absolute()}); "
            f"one ends in {', '.join(ENDINGS)}"
        )
    told = {file: _splits_in(file) & {*SPLITS, split} for file in files}
    if not any(told.values()):
        return files
    chosen = [file for file in files if split in told[file]]
    if not chosen:
        names = ", ".join(sorted({name for each in told.values() for name in each}))
        raise DataError(f"{folder.name}: no file for split '{split}', found splits {names}")
    return chosen


def _splits_in(file: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", file.name.lower()))


def _saved_rows(folder: Path, split: str) -> Iterator[Row]:
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(folder))
        if isinstance(loaded, dict):
            if split not in loaded:
                names = ", ".join(loaded)
                raise DataError(f"{folder.name}: no split '{split}', found splits {names}")
            loaded = loaded[split]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder.name}: cannot be read as a saved data set: {_first_line(error)}"
        ) from error
    yield from _numbered(folder.name, loaded)


def hub_rows(source: str, split: str) -> Iterator[Row]:
    """The rows of one split of a data set on the hub.

    Args:
        source: ``owner/name``, ``owner/name:config`` or ``owner/name:folder`` for data sets whose
            parts are folders (``Anthropic/hh-rlhf:harmless-base``), each also with ``@split``.
        split: which split, where the source names none.

    Raises:
        DataError: it cannot be loaded, for whatever reason the loader gives.
    """
    where, _, named = source.partition("@")
    try:
        loaded = _load_part(where, named or split)
    except Exception as error:  # a loader of somebody else's data may raise anything
        raise DataError(
            f"{source}: no such file (tried {Path(source).absolute()}), and split "
            f"'{named or split}' of a data set of this name cannot be loaded from the hub: "
            f"{_first_line(error)}"
        ) from error
    yield from _numbered(source, loaded)


def _load_part(where: str, split: str) -> Iterable[object]:
    """A split of a data set, of one of its configurations, or of one of its folders."""
    from datasets import load_dataset

    name, _, part = where.rpartition(":") if ":" in where else (where, "", "")
    try:
        loaded: Iterable[object] = load_dataset(name, part or None, split=split)
    except ValueError as error:
        if not part or "BuilderConfig" not in str(error):
            raise
        loaded = load_dataset(name, data_dir=part, split=split)
    return loaded


def _numbered(name: str, rows: Iterable[object]) -> Iterator[Row]:
    for number, value in enumerate(rows, start=1):
        yield Row(f"{name}:row {number}", value)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0]
