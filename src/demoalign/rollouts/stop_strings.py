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
        """Whether each row of sampled ids has come to a stop string."""
        texts = self.tokenizer.batch_decode(
            [list(row[-self.tail :]) for row in rows],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return [any(stop in text for stop in self.texts) for text in texts]

    def cut(self, text: str, before: str) -> str:
        """The text up to the first stop string that the last token completed.

        Args:
            text: everything that was sampled.
            before: the same without the last token.
        """
        places = [
            place
            for stop in self.texts
            if (place := text.find(stop, max(0, len(before) - len(stop) + 1))) >= 0
        ]
        return text[: min(places)] if places else text
