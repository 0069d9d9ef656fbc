"""Read CSV with a header line; an empty cell is a missing value."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from demoalign.demonstrations.fields import shorten
from demoalign.demonstrations.row import Row, bad_byte, readable, refuse_repeated
from demoalign.errors import DataError

# The standard library's limit of 131,072 characters a cell is less than a long conversation.
LONGEST_CELL = 2**31 - 1


def csv_rows(name: str, lines: Iterable[bytes]) -> Iterator[Row]:
    """One row for each record that is not blank; ``where`` is ``name:line`` of its first line.

    Every cell is text, or None where it is empty. Columns without a name are left out.

    Raises:
        DataError: the header cannot be read or names a column twice.
    """
    previous = csv.field_size_limit(LONGEST_CELL)
    try:
        yield from _records(name, lines)
    finally:
        csv.field_size_limit(previous)


def _records(name: str, lines: Iterable[bytes]) -> Iterator[Row]:
    taken: list[str] = []  # the lines of the record being read

    def decoded() -> Iterator[str]:
        for line in lines:
            taken.append(line.decode("utf-8", "surrogateescape"))
            yield taken[-1]

    reader = csv.reader(decoded(), strict=True)
    header: list[str] | None = None
    while True:
        taken.clear()
        where = f"{name}:{reader.line_num + 1}"
        what = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is never closed takes the rest of the file with it: say how far.
            extent = f" (up to line {reader.line_num})" if len(taken) > 1 else ""
            raw = shorten(readable("".join(taken)))
            what = f"must be valid CSV: {error}{extent}, found {raw}"
        if header is None:
            header = _header(name, where, cells, what)
        elif cells or what:
            yield _row(where, header, cells, what, "".join(taken))


def _header(name: str, where: str, cells: list[str], what: str | None) -> list[str] | None:
    what = what or next((bad for cell in cells if (bad := bad_byte(cell))), None)
    if what:
        raise DataError(f"{where}: the header {what}")
    header = [cell.strip() for cell in cells]
    refuse_repeated(name, header)
    return header or None


def _row(where: str, header: list[str], cells: list[str], what: str | None, raw: str) -> Row:
    what = bad_byte(raw) or what
    if what is None and len(cells) != len(header):
        what = f"must have {len(header)} fields, as the header has, found {len(cells)}"
    if what:
        return Row(where, readable(raw).rstrip("\r\n"), what)
    named = zip(header, cells, strict=True)
    return Row(where, {column: cell or None for column, cell in named if column})
