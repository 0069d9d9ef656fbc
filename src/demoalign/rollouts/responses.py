"""What a server has answered, kept until it stands in the rollouts' file.

Answers come out of order, rollouts are written in order. A process that is killed has answers
that it has not written yet; they were paid for. Each is appended to a file as it comes, and the
next attempt takes it from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from demoalign.rollouts.choices import Choice

Key = tuple[str, int]
"""Prompt id and index of the sample."""


class Responses:
    """An append-only file of choices, one JSON object a line; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    @property
    def are_there(self) -> bool:
        """Whether an earlier attempt left any."""
        return self._path is not None and self._path.is_file()

    def held(self, wanted: Mapping[str, tuple[str, int]]) -> dict[Key, Choice]:
        """The stored choices that are still of use.

        Args:
            wanted: prompt id -> digest of what is asked (answers to anything else do not count),
                and the first index that is wanted.
        """
        found: dict[Key, Choice] = {}
        if self._path is None or not self.are_there:
            return found
        with self._path.open("rb") as stream:
            for line in stream:
                try:
                    raw = json.loads(line)
                    prompt, index, digest = raw["prompt_id"], raw["index"], raw["digest"]
                    choice = Choice.from_plain(raw["choice"])
                except (ValueError, KeyError, TypeError):
                    continue  # half a line, where the process was killed
                if prompt in wanted and wanted[prompt][0] == digest and index >= wanted[prompt][1]:
                    found[prompt, index] = choice
        return found

    def add(
        self, prompt_id: str, indices: Sequence[int], digest: str, choices: Sequence[Choice]
    ) -> None:
        """Store the choices for the first of the indices.

        When this returns, the end of the process loses none of them.
        """
        if self._path is None:
            return
        if self._stream is None:
            half = _ends_in_half_a_line(self._path)
            self._stream = self._path.open("ab")
            self._stream.write(b"\n" if half else b"")
        lines = [
            {"prompt_id": prompt_id, "index": i, "digest": digest, "choice": choice.as_plain()}
            for i, choice in zip(indices, choices, strict=False)
        ]
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
