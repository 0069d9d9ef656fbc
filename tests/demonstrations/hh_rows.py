r"""Rows as HH-RLHF has them: multi-turn transcripts of real length, with the real files' traps.

Form: ``{"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": ...}``. The words are made up.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = dict[str, str]

TEXT = (
    "the a to of and in you that it is for on with are be can do what how your this have not but "
    "my or if some would like about people time good help think know make want need way thing "
    "recipe garden kettle window letter doctor engine police school money winter river dog paint "
    "bread music movie car house friend water story game phone book city question answer idea"
)
WORDS = TEXT.split()
TRAPS = {
    "another prompt": 0.002,
    "no answer": 0.003,
    "rejected says nothing": 0.003,
    "same answers": 0.001,
    "ends with human": 0.0005,
    "nobody asks": 0.0005,
    "empty turn": 0.004,
    "role words in text": 0.01,
    "role words after a line break": 0.005,
    "people in a paragraph": 0.003,
    "odd characters": 0.01,
    "no blank": 0.005,
    "a repeated row": 0.005,
    "nearly a repeated row": 0.005,
}
"""What a row may have, and how often."""

REJECTED = {"no answer", "ends with human", "nobody asks"}
"""Those that leave nothing to learn from."""

NOTED = {"another prompt", "same answers"}
"""Those that make no pair, though the chosen answer is a demonstration."""


def kinds(count: int, seed: int) -> Iterator[tuple[str, Row]]:
    """What is special about each row ("" if nothing), and the row."""
    draw = random.Random(seed)
    names, weights = list(TRAPS), list(TRAPS.values())
    earlier: list[Row] = []
    for _ in range(count):
        kind = draw.choices(["", *names], [1 - sum(weights), *weights])[0]
        if kind.endswith("a repeated row") and not earlier:
            kind = ""
        row = _row(draw, kind, earlier)
        if not kind and len(earlier) < 500:
            earlier.append(row)
        yield kind, row


def hh_rows(count: int, seed: int) -> Iterator[Row]:
    return (row for _, row in kinds(count, seed))


def write_gz(path: Path, rows: Iterable[Row]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def said(draw: random.Random, least: int, most: int) -> str:
    words = draw.choices(WORDS, k=draw.randint(least, most))
    return " ".join(words).capitalize() + draw.choice(".?!")


ADDED = {
    "role words in text": " In it the Assistant: speaks after the Human: does.",
    "role words after a line break": "\nHuman: this is a play.\nAssistant: indeed.",
    "people in a paragraph": "\n\nHuman beings do that.\n\nAssistants too.",
    "odd characters": "\u2028\r\n\u00a0\U0001f642\x85 na\u00efve \u201cquotes\u201d",
}
"""What the better answer ends in."""


def _row(draw: random.Random, kind: str, earlier: list[Row]) -> Row:
    if kind == "a repeated row":
        return draw.choice(earlier)
    if kind == "nearly a repeated row":
        return {key: text + " Indeed." for key, text in draw.choice(earlier).items()}
    prompt, other = _prompts(draw, kind)
    good, bad = said(draw, 3, 90) + ADDED.get(kind, ""), said(draw, 3, 90)
    good = "" if kind == "no answer" else good
    bad = {"rejected says nothing": "", "same answers": good}.get(kind, bad)
    blank = "" if kind == "no blank" else " "
    end = "\n\nHuman: And now?" if kind == "ends with human" else ""
    return {"chosen": f"{prompt}{blank}{good}{end}", "rejected": f"{other}{blank}{bad}{end}"}


def _prompts(draw: random.Random, kind: str) -> tuple[str, str]:
    """The prompts of both answers: one and the same, but for one kind."""
    if kind == "nobody asks":
        return ("\n\nHuman: \n\nAssistant:",) * 2
    turns = draw.choices([0, 1, 2, 3, 5], [40, 30, 15, 10, 5])[0]
    before = "".join(
        f"\n\nHuman: {said(draw, 5, 30)}\n\nAssistant: {said(draw, 5, 60)}" for _ in range(turns)
    )
    if kind == "empty turn":
        before += "\n\nHuman: \n\nAssistant: " + said(draw, 3, 9)
    asked = said(draw, 4, 30)
    if kind == "role words in text":
        asked += " He wrote: Human: hello Assistant: hello, and nothing else."
    more = " Really?" if kind == "another prompt" else ""
    begun = f"{before}\n\nHuman: {asked}"
    return f"{begun}\n\nAssistant:", f"{begun}{more}\n\nAssistant:"
