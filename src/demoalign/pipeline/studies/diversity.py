"""How various answers are, and how much of what the demonstrator says is among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from demoalign.config import LAB, Recipe
from demoalign.evaluation.coverage import precision_and_recall
from demoalign.improve.watch import distinct_pairs
from demoalign.lab.reading import sentences, wording
from demoalign.pipeline.data import read_data
from demoalign.records import Rollout

OTHER = "other"
"""Small talk, signatures and garbled sentences, which count as one wording."""

Diversity = Mapping[str, float]


def wordings(texts: Sequence[str]) -> Counter[str]:
    """How often each of the embedded world's wordings is said."""
    return Counter(wording(each) or OTHER for text in texts for each in sentences(text))


def demonstrated(recipe: Recipe, run: Path) -> Counter[str] | None:
    """The demonstrator's wordings, over all demonstrations; None outside the embedded world."""
    if recipe.demonstrations.source != LAB:
        return None
    train, test = read_data(run / "demonstrations")
    return wordings([row.completion for row in (*train, *test)])


def diversity(texts: Sequence[str], reference: Counter[str] | None) -> Diversity:
    """``distinct`` pairs of words; ``precision`` and ``recall`` of wordings, if there are any.

    Args:
        texts: answers; distinct pairs are comparable between equally many of them.
        reference: the demonstrator's wordings.
    """
    found = {"distinct": distinct_pairs(texts)}
    if reference is None:
        return found
    precision, recall = precision_and_recall(wordings(texts), reference)
    return {**found, "precision": precision, "recall": recall}


def first_of_each(rollouts: Sequence[Rollout], count: int) -> list[Rollout]:
    """The first answers to every prompt, whose answers are next to each other."""
    prompts = groupby(rollouts, key=lambda each: each.prompt_id)
    return [each for _, answers in prompts for each in list(answers)[:count]]
