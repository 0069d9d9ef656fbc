"""What a server has answered, kept until it stands in the rollouts' file.

Answers come out of order, rollouts are written in order. A process that is killed has answers
that it has not written yet; they were paid for. Each is appended to a file as it comes, and the
next attempt takes it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from demoalign.endpoints.appended import AppendedLines
from demoalign.rollouts.choices import Choice

Key = tuple[str, int]
"""Prompt id and index of the sample."""


class Responses:
    """An append-only file of choices, one JSON object a line; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._lines = AppendedLines(path)

    @property
    def are_there(self) -> bool:
        """Whether an earlier attempt left any."""
        return self._lines.are_there

    def held(self, wanted: Mapping[str, tuple[str, int]]) -> dict[Key, Choice]:
        """The stored choices that are still of use.

        Args:
            wanted: prompt id -> digest of what is asked (answers to anything else do not count),
                and the first index that is wanted.
        """
        found: dict[Key, Choice] = {}
        for raw in self._lines.read():
            try:
                prompt, index, digest = raw["prompt_id"], raw["index"], raw["digest"]
                choice = Choice.from_plain(raw["choice"])
            except (KeyError, TypeError):
                continue
            if prompt in wanted and wanted[prompt][0] == digest and index >= wanted[prompt][1]:
                found[prompt, index] = choice
        return found

    def add(
        self, prompt_id: str, indices: Sequence[int], digest: str, choices: Sequence[Choice]
    ) -> None:
        """Store the choices for the first of the indices.

        When this returns, the end of the process loses none of them.
        """
        self._lines.add(
            {"prompt_id": prompt_id, "index": i, "digest": digest, "choice": choice.as_plain()}
            for i, choice in zip(indices, choices, strict=False)
        )

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        self._lines.close()
