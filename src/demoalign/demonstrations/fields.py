"""Look into one row of somebody's data: what may stand in a field, and how to say what does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

SHOWN = 60


class RowError(ValueError):
    """A row breaks a rule.

    Attributes:
        field: the column, or a place inside it such as ``messages[2].content``.
        rule: what must hold, and the value found.
    """

    def __init__(self, field: str, rule: str) -> None:
        self.field = field
        self.rule = rule
        super().__init__(f"{field}: {rule}")

    def in_columns(self, columns: Mapping[str, str]) -> str:
        """The message, with the user's own name of a mapped column beside ours."""
        base = re.split(r"[.\[]", self.field, maxsplit=1)[0]
        theirs = columns.get(base, base)
        note = f" (your column '{theirs}')" if theirs != base else ""
        return f"{self.field}{note}: {self.rule}"


def is_missing(value: object) -> bool:
    """Whether a cell is empty: null, or the NaN that tables use for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def shorten(text: str) -> str:
    """``text`` on one line, cut in the end to about 60 characters."""
    flat = text.strip("\r\n").replace("\r", "\\r").replace("\n", "\\n")
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 3] + "..."


def found(value: object) -> str:
    """The value as JSON on one line of about 60 characters."""
    if isinstance(value, str):
        # No need to quote a whole book in order to show its first words.
        value = value[: SHOWN + 1]
    return shorten(json.dumps(value, ensure_ascii=False, default=str))


def cell(row: Mapping[str, object], field: str) -> object:
    """``row[field]``.

    Raises:
        RowError: the row has no such column.
    """
    if field not in row:
        have = ", ".join(str(key) for key in row) or "no columns"
        raise RowError(field, f"is missing; the row has {shorten(have)}")
    return row[field]


def text(row: Mapping[str, object], field: str, *, may_be_blank: bool = False) -> str:
    """The text in ``row[field]``.

    Raises:
        RowError: it is missing, not a string, not valid Unicode, or blank.
    """
    return checked_text(field, cell(row, field), may_be_blank=may_be_blank)


def checked_text(field: str, value: object, *, may_be_blank: bool = False) -> str:
    """``value`` if it is usable text.

    Raises:
        RowError: it is not a string, not valid Unicode, or blank where that is not allowed.
    """
    if is_missing(value):
        raise RowError(field, "must be text, found null")
    if not isinstance(value, str):
        raise RowError(field, f"must be text, found {found(value)}")
    if not may_be_blank and not value.strip():
        raise RowError(field, f"must not be empty or only whitespace, found {found(value)}")
    if not value.isascii():
        check_unicode(field, value)
    return value


def check_unicode(field: str, value: str) -> None:
    r"""Refuse half of a surrogate pair, which JSON can escape (``\ud83d``) but no file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise RowError(
            field,
            f"must be valid Unicode, found a lone surrogate \\u{code:04x} "
            f"at character {error.start}",
        ) from error


def plain(value: object, *, repair: bool = True) -> Any:
    """``value`` in what JSON can hold: a non-finite number becomes None, other objects text.

    With ``repair``, half of a surrogate pair becomes ``?``, so that a file can hold it too.
    """
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item, repair=repair) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, repair=repair) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if repair else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


def canonical(value: object) -> str:
    """One spelling of a prompt, or of anything in JSON: for hashing and comparing."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
