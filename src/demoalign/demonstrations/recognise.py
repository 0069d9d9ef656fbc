"""Find out which format a file's rows are in, after renaming the user's columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from demoalign.demonstrations.formats import FORMATS, Cells, Format
from demoalign.errors import DataError

AUTO = "auto"
ALSO = ("id",)
# What other people call a prompt and an answer: only to suggest a map, never to guess one.
PROMPT_NAMES = ("question", "query", "instruction", "input", "problem", "prompt", "text")
ANSWER_NAMES = ("answer", "response", "output", "solution", "chosen", "completion", "reply")


def rename(row: Cells, columns: Mapping[str, str]) -> dict[str, object]:
    """The row with the user's columns under our names; ``columns`` maps ours to theirs.

    Example:
        >>> rename({"question": "Why?", "n": 1}, {"prompt": "question"})
        {'prompt': 'Why?', 'n': 1}
    """
    ours = {theirs: name for name, theirs in columns.items()}
    renamed = {ours[key]: value for key, value in row.items() if key in ours}
    return renamed | {
        key: value for key, value in row.items() if key not in ours and key not in renamed
    }


def check_request(columns: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse a map with a key that is no column of ours, or with one column mapped twice.

    Raises:
        DataError: with the nearest name.
    """
    known = sorted({*known, *ALSO})
    for ours in columns:
        if ours not in known:
            raise DataError(
                f"map: a key must be one of {', '.join(known)}, "
                f"found '{ours}'{nearest(ours, known)}"
            )
    theirs = list(columns.values())
    for column in theirs:
        if theirs.count(column) > 1:
            raise DataError(f"map: column '{column}' may stand for one of ours, not two")


def check_format(form: str) -> None:
    """Refuse a format that nobody knows.

    Raises:
        DataError: with the formats known and the nearest.
    """
    known = [*FORMATS, AUTO]
    if form not in known:
        raise DataError(
            f"format: must be one of {', '.join(known)}, found '{form}'{nearest(form, known)}"
        )


def check_columns(name: str, rows: Sequence[Cells], columns: Mapping[str, str]) -> None:
    """Refuse a map that names a column which none of the first rows has.

    Raises:
        DataError: with the columns found and the nearest.
    """
    have = columns_of(rows)
    for ours, theirs in columns.items():
        if theirs not in have:
            raise DataError(
                f"{name}: map: '{ours}' is to be read from a column '{theirs}', "
                f"found the columns {', '.join(have)}{nearest(theirs, have)}"
            )


def recognise(
    name: str, rows: Sequence[Cells], asked: str, columns: Mapping[str, str]
) -> tuple[Format, str]:
    """The format of a file's first rows, and why it is taken to be that one.

    Args:
        name: the file, for the error.
        rows: at least one of its first rows, after `rename`.
        asked: a format's name, or ``auto``.
        columns: the map that was given: only formats with its columns come into question.

    Raises:
        DataError: none or several formats fit (or, if one was asked for, that one does not).
    """
    have = columns_of(rows)
    if asked != AUTO:
        form = FORMATS[asked]
        if not any(form.fits(row) for row in rows):
            raise DataError(
                f"{name}: format {asked} needs the columns {form.columns}; "
                f"found the columns {', '.join(have)}\n{_how_to_map(have)}"
            )
        return form, "it was asked for"
    mapped = set(columns) - set(ALSO)
    fitting = [
        form
        for form in FORMATS.values()
        if mapped <= set(form.uses) and any(form.fits(row) for row in rows)
    ]
    if len(fitting) == 1:
        return fitting[0], f"the rows have {fitting[0].columns}"
    if fitting:
        names = " and ".join(form.name for form in fitting)
        raise DataError(
            f"{name}: the columns {', '.join(have)} fit the formats {names}; "
            f"choose one, for example format: {fitting[0].name}"
        )
    table = "\n".join(f"  {form.name:18} {form.columns}" for form in FORMATS.values())
    raise DataError(
        f"{name}: no format has the columns found: {', '.join(have) or '(none)'}\n"
        f"The formats and their columns:\n{table}\n{_how_to_map(have)}"
    )


def columns_of(rows: Sequence[Cells]) -> list[str]:
    """Every column that any of the rows has, in order of appearance."""
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean '...'?"``, or nothing where no name is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _how_to_map(have: Sequence[str]) -> str:
    prompt = next((name for name in PROMPT_NAMES if name in have), "YOUR_PROMPT_COLUMN")
    answer = next(
        (name for name in ANSWER_NAMES if name in have and name != prompt), "YOUR_ANSWER_COLUMN"
    )
    return f"Say which columns to read, for example map: {{prompt: {prompt}, completion: {answer}}}"
