"""One row of a source, as far as it could be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demoalign.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        where: ``file:line``, or ``file:row N`` where a file has no lines; both counted from 1.
        value: what stands there; the raw text if it could not be read.
        what: why it could not be read, or None.
    """

    where: str
    value: object
    what: str | None = None


def bad_byte(text: str) -> str | None:
    """What is wrong with text that was decoded with ``surrogateescape``, or None."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode())
        byte = ord(text[error.start]) & 0xFF
        return f"must be UTF-8, found byte 0x{byte:02x} at byte offset {offset} of the row"
    return None


def readable(text: str) -> str:
    r"""Text decoded with ``surrogateescape``, with each bad byte as ``\xNN``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def refuse_repeated(name: str, columns: Sequence[str]) -> None:
    """Refuse a table in which two columns have one name.

    Raises:
        DataError: naming them.
    """
    repeated = sorted({column for column in columns if column and columns.count(column) > 1})
    if repeated:
        raise DataError(
            f"{name}: every column needs its own name, found more than one called "
            f"{', '.join(repeated)}"
        )


Rows = Iterator[Row]
