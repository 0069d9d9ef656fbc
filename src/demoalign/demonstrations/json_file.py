"""Read JSON: one object a line, or one array of objects."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator

from demoalign.demonstrations.fields import shorten
from demoalign.demonstrations.row import Row, bad_byte, readable
from demoalign.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")


class _Decoder:
    """A JSON decoder that notes a key given twice in one object."""

    def __init__(self) -> None:
        self._repeated: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def decode(self, text: str, start: int = 0) -> tuple[object, int, str | None]:
        """The value at ``start``, where it ends, and a complaint about its keys or None.

        Raises:
            ValueError: there is no JSON value at ``start``.
        """
        self._repeated.clear()
        try:
            value, end = self._decoder.raw_decode(text, start)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if self._repeated:
            return value, end, f"{self._repeated[0]}: a key may stand once, found it twice"
        return value, end, None

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            self._repeated.extend(key for key in made if keys.count(key) > 1)
        return made


def jsonl_rows(name: str, lines: Iterable[bytes]) -> Iterator[Row]:
    """One row for each line that is not blank; ``where`` is ``name:line``."""
    decoder = _Decoder()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            text = line.decode("utf-8", "surrogateescape")
            value, what = _parse_line(decoder, text)
            raw = readable(text).rstrip("\r\n")
            yield Row(f"{name}:{number}", raw if what else value, what)


def _parse_line(decoder: _Decoder, text: str) -> tuple[object, str | None]:
    if what := bad_byte(text):
        return None, what
    body = text.strip(" \t\r\n")
    try:
        value, end, what = decoder.decode(body)
    except ValueError as error:
        cut = "" if text.endswith("\n") else "; the file ends in the middle of this line"
        return None, f"must be valid JSON{cut}: {_reason(error)}, found {shorten(body)}"
    if end < len(body):
        return None, f"must be one JSON object and no more, found after it {shorten(body[end:])}"
    return value, what


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' starting at')} at column {error.colno}"
    return str(error)


def json_rows(name: str, lines: Iterable[bytes]) -> Iterator[Row]:
    """One row for each object of the array; ``where`` is ``name:line`` of its first line.

    Some people write one object a line under this name too: that is read as such.

    Raises:
        DataError: it is neither.
    """
    content = b"".join(lines)
    text = content.decode("utf-8", "surrogateescape")
    start = _skip(text, 0)
    if text.startswith("[", start):
        yield from _array_rows(name, text, start + 1)
        return
    first = text[start:].partition("\n")[0]
    if text[start:] and _parse_line(_Decoder(), first + "\n")[1]:
        raise DataError(
            f"{name}: must be one array of objects, or one object a line, found {shorten(first)}"
        )
    yield from jsonl_rows(name, io.BytesIO(content))


def _array_rows(name: str, text: str, position: int) -> Iterator[Row]:
    decoder = _Decoder()
    line, counted = 1, 0
    while True:
        position = _skip(text, position)
        line, counted = line + text.count("\n", counted, position), position
        where = f"{name}:{line}"
        if text.startswith("]", position):
            if rest := text[position + 1 :].strip():
                rest = readable(rest)
                yield Row(where, rest, f"nothing may follow the array, found {shorten(rest)}")
            return
        try:
            value, end, what = decoder.decode(text, position)
            after = _skip(text, end)
            if text[after : after + 1] not in {",", "]"}:
                raise ValueError("expected ',' or ']' after the object")
        except ValueError as error:
            rest = readable(text[position:])
            what = f"must be valid JSON: {_reason(error)}, found {shorten(rest)}"
            yield Row(where, rest.partition("\n")[0], f"{what}; what follows was not read")
            return
        raw = text[position:end]
        what = bad_byte(raw) or what
        yield Row(where, readable(raw) if what else value, what)
        position = after + 1 if text[after] == "," else after


def _skip(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    return match.end() if match else position
