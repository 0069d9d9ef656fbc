"""Prompts of an evaluation set that are trained on, as they stand or nearly."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from demoalign.demonstrations.quality.near import LEAST, Signature, Signatures, matches
from demoalign.records import Prompt

_LETTERS = re.compile(r"[^\W_]+")


def words_of(prompt: Prompt) -> str:
    """A prompt's words in lower case, without marks and blanks: what two spellings share."""
    text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
    return " ".join(_LETTERS.findall(text.lower())) or text


def same_words(prompt: Prompt) -> int:
    """A key (64 bits) that prompts share which have the same words in the same order."""
    digest = hashlib.blake2b(words_of(prompt).encode(errors="replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What of an evaluation set stands in the demonstrations.

    Attributes:
        name: of the evaluation set.
        prompts: distinct ones that it has.
        same: of them with the same words as a demonstration's prompt.
        near: further ones that share at least 80 % of their phrases with one.
        rows: indices of the demonstrations -> what they share.
    """

    name: str
    prompts: int
    same: int
    near: int
    rows: dict[int, str]


class EvaluationSet:
    """The prompts of an evaluation set."""

    def __init__(self, name: str, prompts: Iterable[Prompt]) -> None:
        self.name = name
        self._places: dict[int, int] = {}
        signatures = Signatures()
        for prompt in prompts:
            key = same_words(prompt)
            if key not in self._places:
                self._places[key] = len(self._places)
                signatures.add(words_of(prompt))
        self._signatures = signatures.all()

    def overlap(self, keys: Iterable[int], texts: Signature) -> Overlap:
        """What of it stands in the demonstrations, given their prompts' keys and signatures."""
        rows: dict[int, str] = {}
        same: set[int] = set()
        for index, key in enumerate(keys):
            if key in self._places:
                same.add(self._places[key])
                rows[index] = f"its prompt stands in {self.name}"
        near: set[int] = set()
        for match in matches(texts, self._signatures, LEAST):
            if match.other not in same:
                near.add(match.other)
            rows.setdefault(
                match.index,
                f"its prompt nearly stands in {self.name} (similarity {match.similarity:.2f})",
            )
        return Overlap(self.name, len(self._places), len(same), len(near), rows)
