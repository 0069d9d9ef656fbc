"""Comparisons: positives against negatives for the same prompt, from declared sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from demoalign.errors import DataError
from demoalign.records import Demonstration, Preference, Prompt, Rollout


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion to be judged; ``finished`` is False if it was cut at its length limit."""

    completion: str
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """One positive and one negative answer to one prompt."""

    prompt_id: str
    prompt: Prompt
    positive: Answer
    negative: Answer


Answers = Mapping[str, Sequence[Answer]]
"""Answers of one source by prompt id."""


def answers_of_rollouts(rollouts: Iterable[Rollout]) -> dict[str, list[Answer]]:
    """Rollouts as a source."""
    found: dict[str, list[Answer]] = {}
    for rollout in rollouts:
        answer = Answer(rollout.completion, rollout.finish_reason == "stop")
        found.setdefault(rollout.prompt_id, []).append(answer)
    return found


def answers_of_demonstrations(rows: Iterable[Demonstration]) -> dict[str, list[Answer]]:
    """Demonstrations as a source."""
    return {row.id: [Answer(row.completion)] for row in rows}


def pair_sources(
    prompts: Mapping[str, Prompt], positives: Answers, negatives: Answers
) -> list[Comparison]:
    """Pair two sources prompt by prompt.

    With several answers a prompt, answer k of one side meets answer k (cyclically) of the
    other, as many times as the longer side has answers.

    Raises:
        DataError: the sources share no prompt.
    """
    comparisons = []
    for prompt_id, prompt in prompts.items():
        ups, downs = positives.get(prompt_id, ()), negatives.get(prompt_id, ())
        if ups and downs:
            comparisons += [
                Comparison(prompt_id, prompt, ups[k % len(ups)], downs[k % len(downs)])
                for k in range(max(len(ups), len(downs)))
            ]
    if not comparisons:
        raise DataError("reward: positives and negatives must share prompts, found none in both")
    return comparisons


def pair_preferences(preferences: Iterable[Preference]) -> list[Comparison]:
    """Labelled preferences as comparisons: chosen is positive."""
    return [
        Comparison(row.id, row.prompt, Answer(row.chosen), Answer(row.rejected))
        for row in preferences
    ]


def label_pairs(
    comparisons: Sequence[Comparison],
    golden: Sequence[tuple[float, float]],
    seed: int,
    temperature: float = 1.0,
) -> list[Comparison]:
    """Simulated annotators: each pair is put in the order that a noisy judge prefers.

    The judge prefers the first with probability sigmoid((g1 - g2) / temperature), the
    Bradley-Terry model on the golden reward.

    Args:
        comparisons: pairs in arbitrary order.
        golden: golden reward of the first and second answer of each.
        seed: of the judge's noise.
        temperature: in units of golden reward; larger is noisier.
    """
    draws = np.random.default_rng(seed).random(len(comparisons))
    ordered = []
    for pair, (first, second), draw in zip(comparisons, golden, draws, strict=True):
        prefers_first = draw < expit((first - second) / temperature)
        up, down = (
            (pair.positive, pair.negative) if prefers_first else (pair.negative, pair.positive)
        )
        ordered.append(Comparison(pair.prompt_id, pair.prompt, up, down))
    return ordered


def held_out_ids(prompt_ids: Iterable[str], share: float, seed: int) -> set[str]:
    """The prompts that are held out: of equal ids, a smaller share is part of a larger one.

    Raises:
        DataError: fewer than two prompts.
    """
    ids = sorted(set(prompt_ids))
    if len(ids) < 2:
        raise DataError(f"reward: needs at least 2 prompts to hold some out, found {len(ids)}")
    count = min(len(ids) - 1, max(1, round(share * len(ids))))
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[i] for i in order[:count]}


def drawn_again(comparisons: Sequence[Comparison], seed: int) -> list[int]:
    """Places of a bootstrap sample: as many prompts, drawn with replacement, with all their pairs.

    A prompt that is drawn twice is there twice.
    """
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(comparisons):
        places.setdefault(pair.prompt_id, []).append(place)
    prompts = list(places.values())
    draw = np.random.default_rng(seed).integers(0, len(prompts), size=len(prompts))
    return [place for number in draw for place in prompts[number]]


def hold_out(
    comparisons: Sequence[Comparison], share: float, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """Split by prompt into (training, held out); a prompt is never on both sides.

    Raises:
        DataError: fewer than two prompts.
    """
    held = held_out_ids((pair.prompt_id for pair in comparisons), share, seed)
    training = [pair for pair in comparisons if pair.prompt_id not in held]
    return training, [pair for pair in comparisons if pair.prompt_id in held]
