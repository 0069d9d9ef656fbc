"""Marks of templates in answers: role words and special tokens that a model should never say."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROLES = "Human|Assistant|User|System"
MARKS = (
    rf"(?:^|\n)\s*(?:{ROLES}):(?=\s|$)",
    r"<\|[A-Za-z0-9_ -]{1,40}\|>",
    r"</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>",
    r"\[/?INST\]|<</?SYS>>",
    r"(?:^|\n)#{2,3} ?(?:Instruction|Response|Input|Human|Assistant|Conversation)\b",
)
_LEAK = re.compile("|".join(f"(?:{mark})" for mark in MARKS))


class Leaks:
    """Finds marks of templates.

    Args:
        specials: further texts that are marks, such as a tokenizer's special tokens.
    """

    def __init__(self, specials: Iterable[str] = ()) -> None:
        own = sorted({each for each in specials if each.strip()}, key=len, reverse=True)
        self._own = re.compile("|".join(map(re.escape, own))) if own else None

    def find(self, answer: str) -> str | None:
        """The first mark in an answer.

        Example:
            >>> Leaks().find(" Turn it on.\\n\\nHuman: Why?")
            'Human:'
            >>> Leaks().find(" Human: he wrote.") is None
            False
            >>> Leaks().find(" As the Human: said") is None
            True
        """
        found = _LEAK.search(answer)
        if found is None and self._own is not None:
            found = self._own.search(answer)
        return found[0].strip() if found else None
