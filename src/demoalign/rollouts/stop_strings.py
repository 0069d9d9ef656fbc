"""Texts that end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StopStrings:
    """Finds stop strings at the end of what was sampled.

    Attributes:
        tokenizer: decodes token ids.
        texts: not empty, none of them empty.
    """

    tokenizer: Any
    texts: tuple[str, ...]

    @property
    def tail(self) -> int:
        """Tokens that may hold the longest stop string: one a byte, and some that are empty."""
        return max(len(text.encode()) for text in self.texts) + 8

    def ends(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Whether the last token of each row of sampled ids completes a stop string."""
        tails = [list(row[-self.tail :]) for row in rows]
        return [
            any(stop in text for stop in self.texts)
            and self._first(text, self._decode([ids[:-1]])[0]) is not None
            for ids, text in zip(tails, self._decode(tails), strict=True)
        ]

    def cut(self, text: str, before: str) -> str:
        """The text up to the first stop string that the last token completed.

        Args:
            text: everything that was sampled.
            before: the same without the last token.
        """
        return text[: self._first(text, before)]

    def _first(self, text: str, before: str) -> int | None:
        """Where the first stop string begins that ends behind ``before``; None without one.

        ``before`` may end in half a character.
        """
        known = len(before.rstrip("\N{REPLACEMENT CHARACTER}"))
        starts = (text.find(stop, max(0, known - len(stop) + 1)) for stop in self.texts)
        return min((start for start in starts if start >= 0), default=None)

    def _decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        found: list[str] = self.tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return found
