"""Read preference sets: prompts with answers of which it is known which are better.

===============  =======================================  ======================================
form             columns                                  a choice
===============  =======================================  ======================================
``pairs``        chosen, rejected (prompt, subset)        one answer against another
``best-of-k``    prompt, chosen, rejected as lists        one chosen answer against several
                 (subset)
``rewardbench``  prompt, chosen, rejected, subset (id)    as pairs, in sections
``rewardbench-2``  prompt, chosen, rejected as lists,     one against three; in the subset Ties
                 subset, id (num_correct)                 any number against any number
===============  =======================================  ======================================

Which form a file has is told by all of its rows, so their order changes nothing.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from demoalign.demonstrations.fields import RowError, cell, checked_text, found, is_missing, text
from demoalign.demonstrations.formats import Cells, prompt_of
from demoalign.demonstrations.ids import assign_ids, content_id, own_id
from demoalign.demonstrations.preferences import pair_of
from demoalign.demonstrations.row import Row
from demoalign.demonstrations.rows import Collected, collect, refuse
from demoalign.demonstrations.sources import open_source
from demoalign.errors import DataError
from demoalign.evaluation.preferences.rewardbench import SECTION_OF, SUBSETS_2, TIES
from demoalign.records import Prompt

log = logging.getLogger(__name__)

Form = Literal["pairs", "best-of-k", "rewardbench", "rewardbench-2"]
TIES_ID = re.compile(r"(ref|tied):(\d+)")
WRONG_ANSWERS = 3
"""Of RewardBench 2 outside of Ties."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A prompt with answers that are better and answers that are worse.

    Attributes:
        id: unique within the set; the row's own id, or a digest of its content.
        prompt: text or chat messages.
        chosen: the better answers; one of them, except in the subset Ties.
        rejected: the worse ones, at least one.
        subset: which part of the set it belongs to; "" if the set has none.
        group: in Ties, the number that ties a question to its reference; "" elsewhere.
    """

    id: str
    prompt: Prompt
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    subset: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class PreferenceSet:
    """A file of choices, sorted by subset and id, whatever the order of its rows.

    Attributes:
        name: the file's, without its ending.
        form: how it is scored.
        choices: at least one.
        skipped: rows that could not be used.
    """

    name: str
    form: Form
    choices: tuple[Choice, ...]
    skipped: int = 0


def as_asked(found: PreferenceSet, *, is_chat: bool) -> PreferenceSet:
    """The set with the benchmarks' questions in the form that a reward model is used to.

    RewardBench's prompts are what a user says: a chat message, or as plain text a question with a
    blank line before its answer unless one of both has white space there. Other sets are asked as
    they are written.
    """
    if found.form not in ("rewardbench", "rewardbench-2"):
        return found
    return replace(found, choices=tuple(_asked(each, is_chat) for each in found.choices))


def _asked(choice: Choice, is_chat: bool) -> Choice:
    if not isinstance(choice.prompt, str):
        return choice
    if is_chat:
        return replace(choice, prompt=[{"role": "user", "content": choice.prompt}])
    answers = (*choice.chosen, *choice.rejected)
    apart = choice.prompt[-1:].isspace() or all(each[:1].isspace() for each in answers)
    return choice if apart else replace(choice, prompt=f"{choice.prompt}\n\n")


class _Made(NamedTuple):
    prompt: Prompt
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    subset: str
    own: str | None


def read_preference_set(
    source: str | Path, *, split: str = "train", skip_invalid: bool = False
) -> PreferenceSet:
    """Read a preference set of any form.

    Args:
        source: a file (jsonl, json, csv, parquet), a folder of them, or a hub id, as for
            `read_demonstrations`; lists of answers need a format that has lists, so no csv.
        split: which split of a folder or a hub data set.
        skip_invalid: go on without the rows that cannot be used (how many, is kept and logged).

    Raises:
        DataError: the source cannot be read, a column is missing, or rows cannot be used; it
            carries a problem for each, with its line and column.
    """
    name, stream = open_source(str(source), split)
    rows = list(stream)
    objects = [row.value for row in rows if row.what is None and isinstance(row.value, Mapping)]
    _check_columns(name, objects)
    form = form_of(objects)
    result = collect(rows, _MAKERS[form], {})
    refuse(name, result, skip_invalid=skip_invalid)
    if result.rejected:
        log.warning("%s: %d rows skipped", name, len(result.rejected))
    if form == "rewardbench-2":
        _check_references(name, rows, result)
    return PreferenceSet(set_name(source), form, _choices(result.made), len(result.rejected))


def set_name(source: str | Path) -> str:
    """What a set is called in results: its file's, folder's or data set's name without endings."""
    last = str(source).rstrip("/").rpartition("/")[2]
    if not Path(source).expanduser().exists():
        last = re.sub(r"[:@]", "-", last.removesuffix("@train"))
    return re.sub(r"(\.(jsonl|json|csv|parquet))?(\.gz)?$", "", last) or "preferences"


def form_of(rows: Sequence[Cells]) -> Form:
    """The form of a file's rows, told by all of them."""
    subsets = {row.get("subset") for row in rows if isinstance(row.get("subset"), str)}
    if any(_is_texts(row.get(side)) for row in rows for side in ("chosen", "rejected")):
        is_known = any(str(each).lower() in SUBSETS_2 for each in subsets)
        return "rewardbench-2" if is_known else "best-of-k"
    return "rewardbench" if subsets & set(SECTION_OF) else "pairs"


def _is_texts(value: object) -> bool:
    """Whether a cell is a list of answers; a list of messages is one answer."""
    return isinstance(value, list | tuple) and any(isinstance(each, str) for each in value)


def _check_columns(name: str, rows: Sequence[Cells]) -> None:
    have = {str(column) for row in rows for column in row}
    if rows and (missing := [each for each in ("chosen", "rejected") if each not in have]):
        raise DataError(
            f"{name}: a preference set needs the columns chosen and rejected (and prompt, unless "
            f"these hold it); {' and '.join(missing)} missing, found the columns "
            f"{', '.join(sorted(have)) or 'none'}"
        )


def _choices(made: Sequence[_Made]) -> tuple[Choice, ...]:
    content = [content_id(*each[:4]) for each in made]
    ids = assign_ids([each.own for each in made], content)
    choices = [
        Choice(given, each.prompt, each.chosen, each.rejected, each.subset, _group(each))
        for given, each in zip(ids, made, strict=True)
    ]
    return tuple(sorted(choices, key=lambda each: (each.subset, each.id)))


def _group(made: _Made) -> str:
    return (made.own or "") if made.subset == TIES else ""


def _pair(row: Cells) -> _Made:
    pair = pair_of(row)
    subset = "" if is_missing(row.get("subset")) else str(row["subset"])
    return _Made(pair.prompt, (pair.chosen,), (pair.rejected,), subset, pair.own_id)


def _rewardbench(row: Cells) -> _Made:
    subset = _known(row, SECTION_OF, "RewardBench's subsets")
    sides = [(text(row, side, may_be_blank=True),) for side in ("chosen", "rejected")]
    return _Made(prompt_of(row), sides[0], sides[1], subset, own_id(row.get("id")))


def _best_of_k(row: Cells) -> _Made:
    chosen, rejected = _answers(row, "chosen"), _answers(row, "rejected")
    if len(chosen) != 1:
        raise RowError("chosen", f"must hold one answer, found {len(chosen)}")
    subset = "" if is_missing(row.get("subset")) else str(row["subset"])
    return _Made(prompt_of(row), chosen, rejected, subset, own_id(row.get("id")))


def _rewardbench_2(row: Cells) -> _Made:
    subset = SUBSETS_2[_known(row, SUBSETS_2, "RewardBench 2's subsets", str.lower)]
    chosen, rejected = _answers(row, "chosen"), _answers(row, "rejected")
    number = row.get("num_correct")
    if not is_missing(number) and number != len(chosen):
        raise RowError(
            "num_correct", f"must be the number of chosen answers, {len(chosen)}, found {number}"
        )
    own = own_id(row.get("id"))
    if subset == TIES:
        _check_ties(own, chosen)
    elif len(chosen) != 1 or len(rejected) != WRONG_ANSWERS:
        raise RowError(
            "rejected" if len(chosen) == 1 else "chosen",
            f"must be one chosen and three rejected answers in subset {subset}, found "
            f"{len(chosen)} and {len(rejected)}",
        )
    return _Made(prompt_of(row), chosen, rejected, subset, own)


def _check_ties(own: str | None, chosen: Sequence[str]) -> None:
    told = TIES_ID.fullmatch(own or "")
    if not told:
        raise RowError(
            "id", f"must be ref:NUMBER or tied:NUMBER in subset {TIES}, found {found(own)}"
        )
    if (told[1] == "ref") != (len(chosen) == 1):
        needs = "one chosen answer" if told[1] == "ref" else "two or more chosen answers"
        raise RowError("chosen", f"must hold {needs} in row {own} of {TIES}, found {len(chosen)}")


def _check_references(name: str, rows: Sequence[Row], result: Collected[_Made]) -> None:
    """Ties need at least one question that has its reference."""
    own = [each.own or "" for each in result.made if each.subset == TIES]
    sides = [
        {each.partition(":")[2] for each in own if each.startswith(s)} for s in ("ref", "tied")
    ]
    if own and not sides[0] & sides[1]:
        raise DataError(
            f"{name}: subset {TIES} needs rows ref:NUMBER and tied:NUMBER of one number, found "
            f"{', '.join(sorted(own)[:5])} and no such two among {len(rows)} rows"
        )


def _answers(row: Cells, side: str) -> tuple[str, ...]:
    value = cell(row, side)
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise RowError(side, f"must be a list of one or more answers, found {found(value)}")
    return tuple(
        checked_text(f"{side}[{place}]", each, may_be_blank=True)
        for place, each in enumerate(value)
    )


def _known(row: Cells, names: Mapping[str, str], what: str, key: Callable[[str], str] = str) -> str:
    subset = text(row, "subset")
    if key(subset) in names:
        return key(subset)
    close = difflib.get_close_matches(key(subset), list(names), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f" ({', '.join(names)})"
    raise RowError("subset", f"must be one of {what}, found {found(subset)}{hint}")


_MAKERS: Mapping[Form, Callable[[Cells], _Made]] = {
    "pairs": _pair,
    "best-of-k": _best_of_k,
    "rewardbench": _rewardbench,
    "rewardbench-2": _rewardbench_2,
}
