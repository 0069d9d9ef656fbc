"""The prompts that are to be answered, from any file with prompts in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demoalign.demonstrations.fields import RowError, found, plain
from demoalign.demonstrations.formats import FORMATS, prompt_of
from demoalign.demonstrations.hh_rlhf import (
    PAIR,
    is_transcript,
    transcript_field,
    transcript_prompt,
)
from demoalign.demonstrations.ids import assign_ids, content_id, own_id
from demoalign.demonstrations.row import Row
from demoalign.demonstrations.rows import Rejected
from demoalign.demonstrations.sources import open_source
from demoalign.demonstrations.split import prompt_key
from demoalign.errors import DataError, Problem
from demoalign.records import Prompt


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt to be answered.

    Attributes:
        id: unique, and the same whatever else is in the file.
        prompt: text or chat messages.
        where: ``file:line``.
        meta: the row's other columns, without its answers.
    """

    id: str
    prompt: Prompt
    where: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a source holds: distinct prompts, and rows that are not to be asked."""

    asked: tuple[Asked, ...]
    unreadable: tuple[Rejected, ...]
    repeated: tuple[Rejected, ...]

    @property
    def rows(self) -> int:
        """Rows that were looked at."""
        return len(self.asked) + len(self.unreadable) + len(self.repeated)


def read_prompts(
    source: str, *, split: str = "train", limit: int | None = None, skip_invalid: bool = False
) -> Prompts:
    """Read prompts: a column ``prompt``, bare texts, or any format of demonstrations or pairs.

    The answers of rows that have some are left out: they are what is to be collected.

    Args:
        source: as for `read_demonstrations`.
        split: of a folder or a hub data set.
        limit: stop after so many distinct prompts.
        skip_invalid: go on without rows that hold no prompt.

    Raises:
        DataError: the source cannot be read or has no prompt; or rows hold none and are not to be
            skipped, with a problem for each.
    """
    name, rows = open_source(source, split)
    made: list[tuple[Row, Prompt, dict[str, Any], str | None]] = []
    unreadable: list[Rejected] = []
    repeated: list[Rejected] = []
    first: dict[str, str] = {}
    for row in rows:
        try:
            prompt, meta, given = _prompt(row)
        except RowError as error:
            unreadable.append(Rejected(row.where, str(error), row.value))
            continue
        key = prompt_key(prompt)
        if key in first:
            what = f"prompt: must be new, found the prompt of {first[key]} again"
            repeated.append(Rejected(row.where, what, row.value))
            continue
        first[key] = row.where
        made.append((row, prompt, meta, given))
        if len(made) == limit:
            break
    if unreadable and not (skip_invalid and made):
        raise DataError(
            f"{name}: {len(unreadable)} of {len(unreadable) + len(made) + len(repeated)} rows hold "
            "no prompt" + ("; fix them or pass --skip-invalid" if made else ""),
            [Problem(each.where, each.what) for each in unreadable],
        )
    if not made:
        raise DataError(f"{name}: has no rows; at least one prompt is needed")
    ids = assign_ids([given for *_, given in made], [content_id(each[1]) for each in made])
    asked = [
        Asked(id_, prompt, row.where, meta)
        for id_, (row, prompt, meta, _) in zip(ids, made, strict=True)
    ]
    return Prompts(tuple(asked), tuple(unreadable), tuple(repeated))


def _prompt(row: Row) -> tuple[Prompt, dict[str, Any], str | None]:
    """A row's prompt, its other columns, and its own id."""
    if row.what is not None:
        raise RowError("row", row.what)
    value = row.value
    if isinstance(value, str | list | tuple):
        return prompt_of({"prompt": value}), {}, None
    if not isinstance(value, Mapping):
        raise RowError("row", f"must be an object or text, found {found(value)}")
    if "prompt" in value:
        uses: tuple[str, ...] = ("prompt", "completion", *PAIR)
        prompt = prompt_of(value)
    elif is_transcript(value.get("chosen")) or is_transcript(value.get("text")):
        column = transcript_field(value)
        uses, prompt = ("text", *PAIR), transcript_prompt(column, str(value[column]))
    else:
        form = next((form for form in FORMATS.values() if form.fits(value)), None)
        if form is None:
            have = ", ".join(str(key) for key in value) or "no columns"
            raise RowError("prompt", f"is missing; the row has {have}")
        uses, (prompt, _) = form.uses, form.convert(value)
    others = {key: item for key, item in value.items() if key not in (*uses, "id")}
    return prompt, plain(others), own_id(value.get("id"))
