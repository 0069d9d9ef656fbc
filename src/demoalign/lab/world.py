"""The world's dynamics: customers arrive with a fault, answers are planned and then worded.

A plan is a list of sentence kinds, drawn from the rates of a `Mix`; wording comes after, so that
two speakers with the same plan differ in surface only. All draws come from `random.Random`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from demoalign.lab.faults import FAULTS, Fault
from demoalign.lab.templates import Template
from demoalign.lab.wordings import FACETS, LISTS, OWN, STANDARD, Kind, templates

_STANDARD = templates(STANDARD)
_OWN = templates(OWN)
_PROMPT = Template(
    "Customer: [Hello, |Hi, |Good morning, ](this is|I am) {name}. (My|Our|The) {appliance} "
    "{symptom}[ since {day}| again| today]. (My order is|Order|It is order) {order}.\nAgent:"
)
# How early a kind tends to stand in an answer; a uniform draw from [0, 2) is added to each.
_PLACE: dict[Kind, float] = {
    "filler": 0.2,
    "empathy": 0.4,
    "safety": 1.0,
    "fix": 1.0,
    "rudeness": 1.0,
    "timing": 1.6,
    "warranty": 1.6,
    "advertising": 2.0,
    "follow_up": 2.2,
}


@dataclass(frozen=True)
class Case:
    """One customer: the fault, their name, the four digits of their order, and the prompt."""

    fault: Fault
    name: str
    order: str
    prompt: str


@dataclass(frozen=True)
class Mix:
    """Rates of what is said, as probabilities per answer.

    Attributes:
        right: the right fix; ``wrong``: else a fix of another fault; else no fix at all.
        facet: each of the five facets, independently.
        rude: one rude sentence. ``advert``: one advertisement.
        repeat: one of the sentences is said twice.
        fillers: the number of neutral sentences is uniform on this tuple.
    """

    right: float
    wrong: float
    facet: float
    rude: float
    advert: float
    repeat: float
    fillers: tuple[int, ...]


@dataclass(frozen=True)
class Planned:
    """One sentence to come: its kind, the fault a fix belongs to, and its ``choice`` of wording.

    The sentences of an answer stand in the order of their ``place``.
    """

    kind: Kind
    fault: Fault
    choice: int
    place: float = 0.0


def draw_case(generator: random.Random) -> Case:
    """A customer with a uniformly drawn fault."""
    fault = generator.choice(FAULTS)
    values = {
        "name": generator.choice(LISTS["name"]),
        "order": str(generator.randrange(1000, 10000)),
        "appliance": fault.appliance,
        "symptom": generator.choice(fault.symptoms).say(generator, {}, LISTS),
    }
    return Case(fault, values["name"], values["order"], _PROMPT.say(generator, values, LISTS))


def plan(case: Case, mix: Mix, generator: random.Random) -> list[Planned]:
    """Draw what one answer says, in order; never empty."""
    kinds: list[tuple[Kind, Fault]] = []
    draw = generator.random()
    if draw < mix.right:
        kinds.append(("fix", case.fault))
    elif draw < mix.right + mix.wrong:
        others = [fault for fault in FAULTS if fault is not case.fault]
        kinds.append(("fix", generator.choice(others)))
    kinds += [(facet, case.fault) for facet in FACETS if generator.random() < mix.facet]
    if generator.random() < mix.rude:
        kinds.append(("rudeness", case.fault))
    if generator.random() < mix.advert:
        kinds.append(("advertising", case.fault))
    planned = [
        Planned(kind, fault, generator.randrange(len(STANDARD[kind]))) for kind, fault in kinds
    ]
    count = generator.choice(mix.fillers)
    choices = generator.sample(range(len(STANDARD["filler"])), count if planned else max(1, count))
    planned += [Planned("filler", case.fault, choice) for choice in choices]
    placed = [replace(each, place=draw_place(each.kind, generator)) for each in planned]
    return sorted(placed, key=lambda sentence: sentence.place)


def draw_place(kind: Kind, generator: random.Random) -> float:
    """Where a sentence of this kind stands, against the places of the others."""
    return _PLACE[kind] + 2 * generator.random()


def word(case: Case, sentence: Planned, generator: random.Random, own: bool = False) -> str:
    """Say one planned sentence; ``own`` picks among the demonstrator's own wordings instead."""
    wordings = (_OWN if own else _STANDARD)[sentence.kind]
    values = {
        "name": case.name,
        "order": case.order,
        "appliance": case.fault.appliance,
        "symptom": generator.choice(case.fault.symptoms).say(generator, {}, LISTS),
        "fix": generator.choice(sentence.fault.fixes).say(generator, {}, LISTS),
    }
    choice = generator.randrange(len(wordings)) if own else sentence.choice
    return wordings[choice].say(generator, values, LISTS)
