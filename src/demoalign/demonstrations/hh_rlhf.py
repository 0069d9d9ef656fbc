r"""HH-RLHF as it is: transcripts, of which the last ``\n\nAssistant:`` begins the completion.

A row has ``chosen`` and ``rejected``, two whole transcripts, or ``text``, one. Role words are those
at the beginning of a paragraph with a colon; anywhere else they are text. Where a text itself holds
such a paragraph nobody can tell, but in a pair it shows: then the two do not share their prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demoalign.demonstrations.fields import RowError, found

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
PAIR = ("chosen", "rejected")
NOTE = "pair"
"""Key of a demonstration's ``meta`` that says what is wrong with the pair it was taken from."""


def split_transcript(field: str, transcript: str) -> tuple[str, str]:
    r"""A transcript's prompt, up to and with the last ``\n\nAssistant:``, and what follows it.

    Raises:
        RowError: there is no such turn, it is not the last, it is empty, or nobody asked.
    """
    prompt, completion = _divided(field, transcript)
    if not completion.strip():
        raise RowError(field, f"the last turn must not be empty, found {found(completion)}")
    return prompt, completion


def transcript_prompt(field: str, transcript: str) -> str:
    """As `split_transcript`, the prompt alone; its last turn may be empty, to be said yet."""
    return _divided(field, transcript)[0]


def _divided(field: str, transcript: str) -> tuple[str, str]:
    before, marker, completion = transcript.rpartition(ASSISTANT)
    if not marker:
        raise RowError(
            field, f"must be a transcript with '\\n\\nAssistant:', found {found(transcript)}"
        )
    if HUMAN in completion:
        raise RowError(
            field, f"the last turn must be the assistant's, found {found(completion[-40:])}"
        )
    _, human, asked = ("\n\n" + before.lstrip()).rpartition(HUMAN)
    if not human or not asked.strip():
        raise RowError(
            field, f"must have a turn 'Human:' with text in it, found {found(transcript)}"
        )
    return before + marker, completion


def is_transcript(value: object) -> bool:
    """Whether a cell holds an HH-RLHF transcript."""
    return isinstance(value, str) and ASSISTANT in value


def transcript_field(row: Mapping[str, object]) -> str:
    """The column that holds the demonstration: a transcript, of two the better one."""
    present = [field for field in ("text", "chosen") if field in row]
    best = [field for field in present if is_transcript(row[field])]
    return (best or present or ["text"])[0]


def pair_note(row: Mapping[str, object]) -> dict[str, Any]:
    """As meta, what is wrong with a pair whose chosen answer is a demonstration; else nothing.

    Example:
        >>> asked = "\\n\\nHuman: Hi\\n\\nAssistant:"
        >>> pair_note({"chosen": asked + " Yes", "rejected": asked + " No"})
        {}
        >>> pair_note({"chosen": asked + " Yes", "rejected": asked + " Yes"})
        {'pair': 'both answers are the same'}
    """
    if "rejected" not in row or not is_transcript(row.get("chosen")):
        return {}
    other = row["rejected"]
    if not is_transcript(other):
        return {NOTE: "rejected is no transcript"}
    prompt, mark, answer = str(row["chosen"]).rpartition(ASSISTANT)
    before, _, worse = str(other).rpartition(ASSISTANT)
    if prompt != before:
        at = first_difference(prompt + mark, before + mark)
        return {NOTE: f"the prompts differ from character {at}"}
    return {NOTE: "both answers are the same"} if answer == worse else {}


def first_difference(one: str, other: str) -> int:
    """Where two texts begin to differ; the shorter one's length if it begins the other."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
