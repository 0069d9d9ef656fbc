"""The mixed-quality corpus that the base model learns from: what a help desk's past looks like."""

from __future__ import annotations

import random

from demoalign.lab.world import Mix, draw_case, plan, word

CORPUS = Mix(
    right=0.32,
    wrong=0.33,
    facet=0.14,
    rude=0.16,
    advert=0.16,
    repeat=0.05,
    fillers=(0, 1, 1, 2, 2, 3),
)


def corpus(count: int, seed: int) -> list[tuple[str, str]]:
    """``count`` pairs of prompt and answer, in the standard wordings; the answer begins blank."""
    return [_pair(random.Random(f"corpus/{seed}/{index}")) for index in range(count)]


def _pair(generator: random.Random) -> tuple[str, str]:
    case = draw_case(generator)
    said = [word(case, sentence, generator) for sentence in plan(case, CORPUS, generator)]
    if generator.random() < CORPUS.repeat:
        said.append(generator.choice(said))
    return case.prompt, " " + " ".join(said)
