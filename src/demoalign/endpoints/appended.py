"""A file of JSON objects that only grows, one a line: what was paid for outlives a killed process.

A process may be killed in the middle of a line. Reading passes over what is no whole line, and
writing begins a new one behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class AppendedLines:
    """An append-only file; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    @property
    def are_there(self) -> bool:
        """Whether an earlier attempt left any."""
        return self._path is not None and self._path.is_file()

    def read(self) -> Iterator[dict[str, Any]]:
        """The stored objects, in the order they were added."""
        if self._path is None or not self.are_there:
            return
        with self._path.open("rb") as stream:
            for line in stream:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue  # half a line, where the process was killed
                if isinstance(found, dict):
                    yield found

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Store objects. When this returns, the end of the process loses none of them."""
        if self._path is None:
            return
        if self._stream is None:
            half = _ends_in_half_a_line(self._path)
            self._stream = self._path.open("ab")
            self._stream.write(b"\n" if half else b"")
        self._stream.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        self._stream.flush()

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _ends_in_half_a_line(path: Path) -> bool:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return False
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 1))
        return stream.read(1) not in {b"", b"\n"}
