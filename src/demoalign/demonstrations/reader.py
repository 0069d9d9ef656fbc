"""Read demonstrations in any common format, name every row that cannot be used, hold some out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.demonstrations.fields import plain
from demoalign.demonstrations.formats import FORMATS, Cells, Format, convert
from demoalign.demonstrations.ids import assign_ids, content_id, own_id
from demoalign.demonstrations.recognise import (
    AUTO,
    check_columns,
    check_format,
    check_request,
    recognise,
    rename,
)
from demoalign.demonstrations.row import Row
from demoalign.demonstrations.rows import Rejected, collect, look_ahead, refuse
from demoalign.demonstrations.sources import open_source
from demoalign.demonstrations.split import choose_test_prompts, prompt_key
from demoalign.errors import DataError, Problem
from demoalign.records import Demonstration, Prompt


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrations in the order of their source.

    Attributes:
        rows: those that can be used; their ids are unique.
        source: the file, folder or hub id they came from.
        format: the format they were in.
        why: why they were taken to be in that format.
        problems: one for each row that cannot be used (none unless ``skip_invalid``).
        rejected: the same rows themselves.
    """

    rows: tuple[Demonstration, ...]
    source: str = "memory"
    format: str = "prompt-completion"
    why: str = ""
    problems: tuple[Problem, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Demonstration:
        return self.rows[index]

    @classmethod
    def read(
        cls,
        source: str | Path,
        *,
        format: str = AUTO,
        columns: Mapping[str, str] | None = None,
        split: str = "train",
        skip_invalid: bool = False,
        limit: int | None = None,
    ) -> Demonstrations:
        """As `read_demonstrations`."""
        return read_demonstrations(
            source,
            format=format,
            columns=columns,
            split=split,
            skip_invalid=skip_invalid,
            limit=limit,
        )

    @classmethod
    def from_rows(cls, rows: Iterable[Demonstration]) -> Demonstrations:
        """Demonstrations already in memory.

        Raises:
            DataError: there are none, or two have one id.
        """
        kept = tuple(rows)
        if not kept:
            raise DataError("demonstrations: at least one is needed, found none")
        ids = {row.id for row in kept}
        if len(ids) < len(kept):
            raise DataError(
                f"demonstrations: every id must be unique, found {len(ids)} ids on {len(kept)} rows"
            )
        return cls(kept)

    def split(self, test_fraction: float, seed: int) -> Split:
        """Hold out the demonstrations of some prompts.

        All demonstrations of a prompt fall on one side, since a prompt that was trained on would
        flatter the policy in the test. Both sides keep the order of the source.

        Args:
            test_fraction: share of the distinct prompts to test on, between 0 and 1.
            seed: another one holds out others.

        Raises:
            DataError: see `choose_test_prompts`.
        """
        chosen = choose_test_prompts((row.prompt for row in self.rows), test_fraction, seed)
        train: list[Demonstration] = []
        test: list[Demonstration] = []
        for row in self.rows:
            (test if prompt_key(row.prompt) in chosen else train).append(row)
        return Split(self._with_rows(train), self._with_rows(test))

    def _with_rows(self, rows: Iterable[Demonstration]) -> Demonstrations:
        return Demonstrations(tuple(rows), self.source, self.format, self.why)


@dataclass(frozen=True)
class Split:
    """Demonstrations to train on and to test on, with no prompt in common."""

    train: Demonstrations
    test: Demonstrations


@dataclass(frozen=True, slots=True)
class _Example:
    prompt: Prompt
    completion: str
    meta: dict[str, Any]
    own_id: object


def read_demonstrations(
    source: str | Path,
    *,
    format: str = AUTO,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    skip_invalid: bool = False,
    limit: int | None = None,
) -> Demonstrations:
    """Read demonstrations from a file, a folder or the Hugging Face hub.

    Args:
        source: a ``.jsonl``, ``.json`` or ``.csv`` file (or one of these with ``.gz``), a
            ``.parquet`` file, a folder of such files, or, where no such path exists, a hub id.
        format: a key of `FORMATS`, or ``auto`` to recognise it from the columns.
        columns: the map from our columns to the source's, as ``{"prompt": "question"}``.
        split: which split of a folder or a hub data set.
        skip_invalid: go on without the rows that cannot be used.
        limit: stop after so many usable rows.

    Raises:
        DataError: the source cannot be read, its format is unclear, or rows cannot be used; it
            carries a problem for each of those.
    """
    source, columns = str(source), dict(columns or {})
    if limit is not None and limit < 1:
        raise DataError(f"limit: must be at least 1, found {limit}")
    opened = _open(source, format, columns, split)
    result = collect(opened.rows, opened.make, columns, limit)
    refuse(opened.name, result, skip_invalid=skip_invalid)
    return Demonstrations(
        rows=_with_ids(result.made),
        source=source,
        format=opened.form.name,
        why=opened.why,
        problems=result.problems,
        rejected=tuple(result.rejected),
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """Demonstrations that are read as they are taken, and never held all at once.

    Attributes:
        name: of the source.
        format: the format they are in.
        why: why they are taken to be in that format.
        rows: each a demonstration, or a row that cannot be used. An id is the row's own or made
            of its content; two rows may have the same.
    """

    name: str
    format: str
    why: str
    rows: Iterator[Demonstration | Rejected]


def stream_demonstrations(
    source: str | Path,
    *,
    format: str = AUTO,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
) -> Stream:
    """Read demonstrations one at a time, in memory that does not grow with the source.

    Args:
        source, format, columns, split: as for `read_demonstrations`.

    Raises:
        DataError: the source cannot be read or its format is unclear; also while rows are taken.
    """
    columns = dict(columns or {})
    opened = _open(str(source), format, columns, split)

    def rows() -> Iterator[Demonstration | Rejected]:
        for row in opened.rows:
            found = collect([row], opened.make, columns)
            yield from found.rejected
            for made in found.made:
                name = own_id(made.own_id) or content_id(made.prompt, made.completion)
                yield Demonstration(name, made.prompt, made.completion, made.meta)

    return Stream(opened.name, opened.form.name, opened.why, rows())


@dataclass(frozen=True, slots=True)
class _Opened:
    """A source whose format is known."""

    name: str
    rows: Iterator[Row]
    form: Format
    why: str
    columns: Mapping[str, str]

    def make(self, row: Cells) -> _Example:
        return _example(rename(row, self.columns), self.form)


def _open(source: str, format: str, columns: Mapping[str, str], split: str) -> _Opened:
    check_format(format)
    forms = FORMATS.values() if format == AUTO else [FORMATS[format]]
    check_request(columns, (column for form in forms for column in form.uses))
    name, rows = open_source(source, split)
    first, rows = look_ahead(rows)
    form, why = FORMATS["prompt-completion"], ""
    if first:
        check_columns(name, first, columns)
        form, why = recognise(name, [rename(row, columns) for row in first], format, columns)
    return _Opened(name, rows, form, why, columns)


def _example(row: Cells, form: Format) -> _Example:
    prompt, completion, meta = convert({k: v for k, v in row.items() if k != "id"}, form)
    return _Example(prompt, completion, meta, row.get("id"))


def _with_ids(examples: list[_Example]) -> tuple[Demonstration, ...]:
    own = [own_id(each.own_id) for each in examples]
    ids = assign_ids(own, [content_id(each.prompt, each.completion) for each in examples])
    made = []
    for example, mine, given in zip(examples, own, ids, strict=True):
        unused = example.own_id is not None and mine != given
        meta = {**example.meta, "id": plain(example.own_id)} if unused else example.meta
        made.append(Demonstration(given, example.prompt, example.completion, meta))
    return tuple(made)


def write_rejected(path: Path | str, result: Demonstrations) -> int:
    """Write the rejected rows, one object ``{where, what, row}`` a line; return how many.

    The file appears whole or not at all.

    ``row`` is the row's object, or its raw text if it could not be read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        for each in result.rejected:
            line = json.dumps(
                {"where": each.where, "what": each.what, "row": plain(each.row, repair=False)},
                ensure_ascii=False,
            )
            # Half of a surrogate pair goes back to the escape that it was.
            stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
    partial.replace(path)
    return len(result.rejected)
