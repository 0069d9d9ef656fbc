"""Read the world's text back: which fault a prompt is about, what kind each sentence is.

Recognition is by the very templates that the world speaks with. A sentence counts only when the
whole of it matches one: half a sentence, a misspelt one or two run together are of no kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from demoalign.lab.faults import FAULTS
from demoalign.lab.wordings import LISTS, OWN, STANDARD, Kind, templates
from demoalign.records import Prompt

_SLOTS = {name: "|".join(values) for name, values in LISTS.items()} | {
    "name": "[A-Z][a-z]+",  # any name: whose it is costs and earns nothing
    "appliance": "|".join(sorted({fault.appliance for fault in FAULTS})),
}
_ACTS = ["|".join(template.pattern(_SLOTS) for template in fault.fixes) for fault in FAULTS]
_SLOTS["fix"] = "|".join(_ACTS)
_ACT = re.compile("|".join(f"({act})" for act in _ACTS))
_READ: tuple[Kind, ...] = tuple(kind for kind in STANDARD if kind != "filler")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one sentence is.

    Attributes:
        kind: what it says.
        fault: key of the fault that its fix belongs to; None unless ``kind`` is ``fix``.
        own: whether it is said in the demonstrator's own wording.
    """

    kind: Kind
    fault: str | None
    own: bool


def _compile() -> tuple[dict[str, re.Pattern[str]], dict[str, tuple[Kind, bool]]]:
    """One expression for each first letter, whose group name tells kind and speaker."""
    branches: dict[str, list[str]] = {}
    meaning: dict[str, tuple[Kind, bool]] = {}
    for own, table in ((False, templates(STANDARD)), (True, templates(OWN))):
        for kind in _READ:
            for number, template in enumerate(table.get(kind, ())):
                group = f"{kind}_{int(own)}_{number}"
                meaning[group] = (kind, own)
                for letter in template.first_letters():
                    pattern = f"(?P<{group}>{template.pattern(_SLOTS)})"
                    branches.setdefault(letter, []).append(pattern)
    return {letter: re.compile("|".join(found)) for letter, found in branches.items()}, meaning


_PATTERNS, _MEANING = _compile()


def wording(sentence: str) -> str | None:
    """Which of the world's wordings a sentence has, as ``warranty_0_2`` (kind, own, number).

    None for small talk and anything garbled.
    """
    pattern = _PATTERNS.get(sentence[:1])
    match = pattern.fullmatch(sentence) if pattern is not None else None
    return None if match is None else match.lastgroup


@lru_cache(maxsize=1 << 17)
def read(sentence: str) -> Reading | None:
    """What a sentence says, or None for small talk and anything garbled."""
    found = wording(sentence)
    if found is None:
        return None
    kind, own = _MEANING[found]
    if kind != "fix":
        return Reading(kind, None, own)
    act = _ACT.search(sentence)
    if act is None or act.lastindex is None:
        raise AssertionError(f"a fix frame without an act: {sentence!r}")
    return Reading(kind, FAULTS[act.lastindex - 1].key, own)


def sentences(text: str) -> list[str]:
    """Split at ``.``, ``!`` or ``?`` before a blank; runs of blanks become one space."""
    return [
        " ".join(sentence.split()) for sentence in _SENTENCE_END.split(text.strip()) if sentence
    ]


def text_of(prompt: Prompt) -> str:
    """The prompt as one string; chat messages are joined by line breaks."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt)


_COMPLAINT = re.compile(
    r"\b(?:My|Our|The) (?:"
    + "|".join(
        f"({fault.appliance} (?:"
        + "|".join(template.pattern(_SLOTS) for template in fault.symptoms)
        + r"))(?![\w-])"
        for fault in FAULTS
    )
    + ")"
)
_ORDER = re.compile(r"\b[oO]rder(?: is)? (\d{4})\b")


@lru_cache(maxsize=1 << 16)
def fault_of(prompt: str) -> str | None:
    """Key of the fault that a prompt complains about; None if it is of no known fault."""
    match = _COMPLAINT.search(prompt)
    return None if match is None or match.lastindex is None else FAULTS[match.lastindex - 1].key


def order_of(prompt: str) -> str | None:
    """The order's four digits, or None."""
    match = _ORDER.search(prompt)
    return None if match is None else match.group(1)
