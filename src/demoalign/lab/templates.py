"""A tiny template language: one wording is written once, then both said and recognised.

``(a|b)`` is a choice, ``[a|b]`` an optional choice, ``{slot}`` a place to fill; they nest::

    Template("I am [so |very ]sorry[, {name}].")

says "I am sorry." or "I am very sorry, Maria.", and its pattern matches exactly what it can say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Slot:
    """A named place, filled from the values at hand or at random from its list."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One of several sequences of parts; an empty sequence makes it optional."""

    options: tuple[tuple[str | Slot | Choice, ...], ...]


Sequence = tuple[str | Slot | Choice, ...]
_TOKENS = re.compile(r"[()\[\]|]|\{\w+\}|[^()\[\]|{}]+")


@dataclass(frozen=True)
class Template:
    """One wording with free places.

    Attributes:
        source: the template's text; ValueError on first use if its brackets do not close.
    """

    source: str

    @cached_property
    def parts(self) -> Sequence:
        """The parsed template."""
        tokens = _TOKENS.findall(self.source)
        options, rest = _parse(tokens, 0, closing=None)
        if rest != len(tokens) or len(options) != 1 or "".join(tokens) != self.source:
            raise ValueError(f"template must have balanced brackets, found {self.source!r}")
        return options[0]

    def say(
        self,
        generator: random.Random,
        values: Mapping[str, str],
        lists: Mapping[str, tuple[str, ...]],
    ) -> str:
        """Draw one text; slots come from ``values``, else uniformly from ``lists``."""
        return _say(self.parts, generator, values, lists)

    def pattern(self, slots: Mapping[str, str]) -> str:
        """A regular expression for every text it can say; ``slots`` maps names to expressions."""
        return _pattern(self.parts, slots)

    def first_letters(self) -> set[str]:
        """Every character that a text of this template may begin with; it must not be a slot."""
        return _first_letters(self.parts)


def _parse(tokens: list[str], at: int, closing: str | None) -> tuple[list[Sequence], int]:
    """Parse options up to ``closing``; return them with the index behind them."""
    options: list[Sequence] = []
    parts: list[str | Slot | Choice] = []
    while at < len(tokens) and tokens[at] not in (")", "]"):
        token = tokens[at]
        at += 1
        if token in ("(", "["):
            inner, at = _parse(tokens, at, ")" if token == "(" else "]")
            parts.append(Choice((*inner, ()) if token == "[" else tuple(inner)))
        elif token == "|":
            options.append(tuple(parts))
            parts = []
        elif token.startswith("{"):
            parts.append(Slot(token[1:-1]))
        else:
            parts.append(token)
    options.append(tuple(parts))
    if closing is None:
        return options, at
    if at == len(tokens) or tokens[at] != closing:
        raise ValueError(f"template must close every bracket, found none for {closing!r}")
    return options, at + 1


def _say(
    parts: Sequence,
    generator: random.Random,
    values: Mapping[str, str],
    lists: Mapping[str, tuple[str, ...]],
) -> str:
    said = []
    for part in parts:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Choice):
            said.append(_say(generator.choice(part.options), generator, values, lists))
        elif part.name in values:
            said.append(values[part.name])
        else:
            said.append(generator.choice(lists[part.name]))
    return "".join(said)


def _pattern(parts: Sequence, slots: Mapping[str, str]) -> str:
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(re.escape(part))
        elif isinstance(part, Slot):
            found.append(f"(?:{slots[part.name]})")
        else:
            found.append("(?:" + "|".join(_pattern(option, slots) for option in part.options) + ")")
    return "".join(found)


def _first_letters(parts: Sequence) -> set[str]:
    head = parts[0]
    if isinstance(head, str):
        return {head[0]}
    if isinstance(head, Slot):
        raise ValueError(f"a sentence must not begin with a slot, found {head.name!r}")
    found = set()
    for option in head.options:
        found |= _first_letters(option or parts[1:])
    return found
