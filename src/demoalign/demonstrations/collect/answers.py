"""From what a demonstrator said to a demonstration, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from demoalign.config import CollectConfig
from demoalign.demonstrations.collect.prompts import Asked
from demoalign.demonstrations.collect.template import Template, seam
from demoalign.demonstrations.fields import shorten
from demoalign.demonstrations.quality.refusals import is_refusal
from demoalign.records import Demonstration

COLLECTED = "collected"
"""Key of a collected demonstration's ``meta`` that says where it comes from."""

Kind = Literal[
    "unreadable", "repeated", "prompt too long", "refused", "filtered", "empty", "cut",
    "too short", "too long", "no answer", "not asked",
]  # fmt: skip

OPEN: frozenset[Kind] = frozenset({"no answer", "not asked"})
"""What another attempt may still answer; everything else is settled."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A prompt without a demonstration.

    Attributes:
        where: ``file:line``.
        kind: of reason.
        what: the reason in words.
        row: the prompt, or the row as it stood.
    """

    where: str
    kind: Kind
    what: str
    row: object


@dataclass(frozen=True, slots=True)
class Said:
    """What a demonstrator said to a prompt, whoever it was.

    Attributes:
        text: as it came.
        cut: whether a limit of tokens ended it.
        refusal: why there is no answer, if it or its server declined.
        filtered: whether it was the server that declined, or its filter.
        provenance: who said it, when and how.
    """

    text: str
    cut: bool
    refusal: str | None
    filtered: bool
    provenance: dict[str, Any]


def missing(asked: Asked, kind: Kind, what: str) -> Missing:
    """A prompt that has no demonstration for a reason."""
    return Missing(asked.where, kind, what, {"id": asked.id, "prompt": asked.prompt})


def demonstration_of(
    asked: Asked, said: Said, template: Template, config: CollectConfig
) -> Demonstration | Missing:
    """The demonstration that an answer makes, or why it makes none."""
    if said.refusal is not None:
        kind: Kind = "filtered" if said.filtered else "refused"
        who = "the server would not answer" if said.filtered else "the demonstrator declined"
        return missing(asked, kind, f"{who}: {one_line(said.refusal)}")
    answer = template.answer(said.text)
    if (fault := _fault(answer, said, config)) is not None:
        return missing(asked, *fault)
    meta = {**asked.meta, COLLECTED: said.provenance}
    return Demonstration(asked.id, asked.prompt, seam(asked.prompt, answer), meta)


def _fault(answer: str, said: Said, config: CollectConfig) -> tuple[Kind, str] | None:
    """What of the rules for answers one breaks."""
    length, least, most = len(answer), config.min_characters, config.max_characters
    if not answer:
        return "empty", f"must say something, found {said.text[:60]!r}"
    if said.cut and not config.keep_cut:
        return "cut", f"was cut at the limit of tokens: ...{answer[-60:]!r}"
    if length < least:
        rule = f"must have at least {least} characters (min_characters)"
        return "too short", f"{rule}, found {length}: {shorten(answer)!r}"
    if most is not None and length > most:
        rule = f"must have at most {most} characters (max_characters)"
        return "too long", f"{rule}, found {length}"
    if config.refusals == "reject" and is_refusal(answer):
        return "refused", f"declines in words: {one_line(answer)}"
    return None


def too_long_to_ask(asked: Asked, config: CollectConfig) -> Missing | None:
    """Why a prompt is not asked at all."""
    limit, prompt = config.max_prompt_characters, asked.prompt
    length = (
        len(prompt)
        if isinstance(prompt, str)
        else sum(len(message["content"]) for message in prompt)
    )
    if limit is None or length <= limit:
        return None
    return missing(
        asked,
        "prompt too long",
        f"must have at most {limit} characters (max_prompt_characters), found {length}",
    )


def one_line(text: str, most: int = 200) -> str:
    """A reason on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."
