"""Made-up rows in the formats of real data: HH-RLHF transcripts, TL;DR posts, chats, questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

DEEDS = ("mend", "clean", "paint", "move", "buy", "sell", "store", "lift", "fold", "wash")
LOOKS = ("red", "old", "small", "heavy", "wooden", "broken", "new", "cheap", "round", "soft")
THINGS = ("chair", "lamp", "boat", "coat", "table", "clock", "door", "bag", "kettle", "fence")
FIRST = ("Begin by", "I would start by", "It helps to go about", "The best way is")
CAREFUL = ("testing it first", "asking a friend", "reading the label", "taking your time")
RUDE = ("No idea", "Who cares", "Just do it", "Look it up")


@dataclass(frozen=True, slots=True)
class Talk:
    """One question with a good and a bad answer, and what was said before it.

    Attributes:
        before: earlier (question, answer) turns.
    """

    question: str
    good: str
    bad: str
    before: tuple[tuple[str, str], ...] = ()


def talks(count: int, seed: int) -> list[Talk]:
    """Distinct questions; a third of them follow an earlier turn."""
    kinds = [(deed, look, thing) for deed in DEEDS for look in LOOKS for thing in THINGS]
    draw = random.Random(seed)
    chosen = [draw.choice(kinds) for _ in range(count)]
    return [_talk(draw, number, *kind) for number, kind in enumerate(chosen)]


def _talk(draw: random.Random, number: int, deed: str, look: str, thing: str) -> Talk:
    question = f"How do I {deed} my {look} {thing} number {number}?"
    good = f"{draw.choice(FIRST)} {draw.choice(CAREFUL)}. Then {deed} the {thing} with care."
    bad = f"{draw.choice(RUDE)}. It is only a {thing}."
    before = ((f"Do you know about a {thing}?", f"Yes, I know a {look} {thing}."),)
    return Talk(question, good, bad, before if draw.random() < 1 / 3 else ())


def transcript(talk: Talk) -> str:
    """A prompt as HH-RLHF has it, up to the last ``Assistant:``."""
    earlier = "".join(f"\n\nHuman: {asked}\n\nAssistant: {said}" for asked, said in talk.before)
    return f"{earlier}\n\nHuman: {talk.question}\n\nAssistant:"


def post(talk: Talk) -> str:
    """A prompt as TL;DR has it."""
    story = " ".join(f"{asked} {said}" for asked, said in talk.before)
    body = f"{story} I have had it for years. {talk.question}".strip()
    return f"SUBREDDIT: r/Advice\n\nTITLE: {talk.question}\n\nPOST: {body}\n\nTL;DR:"


def question(talk: Talk) -> str:
    """A question alone, with a line break before its answer."""
    return talk.question + "\n"


def messages(talk: Talk) -> list[dict[str, str]]:
    """A prompt as chat messages."""
    turns = [*talk.before, (talk.question, "")]
    found = []
    for asked, said in turns:
        found.append({"role": "user", "content": asked})
        if said:
            found.append({"role": "assistant", "content": said})
    return found


STYLES: Mapping[str, Callable[[Talk], str]] = {
    "transcript": transcript,
    "post": post,
    "question": question,
}
"""How plain prompts are written."""


def style_of(*sources: str | None) -> str:
    """The style of the first source whose name tells one, else ``question``."""
    for source in sources:
        name = (source or "").lower()
        if "hh-rlhf" in name or "hh_rlhf" in name:
            return "transcript"
        if "tldr" in name or "summarize" in name:
            return "post"
    return "question"


def demonstration(talk: Talk, form: str, style: str) -> Row:
    """One row of a demonstrations file in a format of `demonstrations.formats`."""
    plain = STYLES[style](talk)
    answer = {"role": "assistant", "content": talk.good}
    if form == "messages":
        return {"messages": [*messages(talk), answer]}
    if form == "sharegpt":
        speakers = {"user": "human", "assistant": "gpt"}
        turns = [*messages(talk), answer]
        said = [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in turns]
        return {"conversations": said}
    if form == "alpaca":
        return {"instruction": talk.question, "input": "", "output": talk.good}
    if form == "hh-rlhf":
        return preference(talk, "transcript", in_transcripts=True)
    return {"prompt": plain, "completion": f" {talk.good}"}


def preference(talk: Talk, style: str, *, chat: bool = False, in_transcripts: bool = False) -> Row:
    """One row of a preferences file: transcripts of their own, messages, or prompt and answers."""
    if chat:
        sides = {"chosen": talk.good, "rejected": talk.bad}
        asked = messages(talk)
        return {
            side: [*asked, {"role": "assistant", "content": said}] for side, said in sides.items()
        }
    prompt = STYLES[style](talk)
    if in_transcripts:
        return {"chosen": f"{prompt} {talk.good}", "rejected": f"{prompt} {talk.bad}"}
    return {"prompt": prompt, "chosen": f" {talk.good}", "rejected": f" {talk.bad}"}


def benchmark(talk: Talk, subset: str, number: int) -> Row:
    """One row of RewardBench."""
    return {
        "prompt": talk.question,
        "chosen": talk.good,
        "rejected": talk.bad,
        "subset": subset,
        "id": number,
    }


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """A row with the columns that a recipe's ``map`` names."""
    return {columns.get(key, key): value for key, value in row.items()}
