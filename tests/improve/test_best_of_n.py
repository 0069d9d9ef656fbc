"""Best-of-n against brute force over all subsets, and the bound on its divergence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from demoalign.config import RolloutsConfig
from demoalign.errors import EvaluationError
from demoalign.improve import (
    best_of_n,
    expected_best_of_n,
    kl_bound,
    order_statistic_weights,
    selection_probabilities,
)
from demoalign.lab import mdp
from demoalign.policies import Policy
from demoalign.records import Prompt
from tests.conftest import ModelFolder
from tests.models import load_backbone

TIED = [
    [2.0],
    [1.0, 1.0],
    [3.0, 1.0, 3.0],
    [0.0, 0.0, 0.0, 0.0],
    [1.0, 2.0, 2.0, 5.0, 1.0],
    [2.0, 2.0, 2.0, -1.0, 7.0, 7.0],
    [4.0, 1.0, 4.0, 4.0, 0.0, 1.0, 9.0],
]
DISTINCT = [0.5, -3.0, 2.5, 9.0, 1.0, -7.0, 4.0]


def brute_probabilities(scores: Sequence[float], n: int) -> list[float]:
    """Over every n-subset, the best is drawn evenly among those that tie for it."""
    total = [Fraction(0)] * len(scores)
    subsets = list(itertools.combinations(range(len(scores)), n))
    for subset in subsets:
        best = max(scores[i] for i in subset)
        winners = [i for i in subset if scores[i] == best]
        for i in winners:
            total[i] += Fraction(1, len(winners) * len(subsets))
    return [float(share) for share in total]


@pytest.mark.parametrize("samples", range(1, 8))
def test_weights_are_those_of_all_subsets(samples: int) -> None:
    for n in range(1, samples + 1):
        subsets = list(itertools.combinations(range(samples), n))
        counts = [sum(max(subset) == k for subset in subsets) for k in range(samples)]
        found = order_statistic_weights(samples, n)
        assert found == pytest.approx([count / len(subsets) for count in counts], abs=1e-15)
        assert found.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("scores", [*TIED, DISTINCT])
def test_selection_probabilities_are_those_of_all_subsets(scores: list[float]) -> None:
    for n in range(1, len(scores) + 1):
        found = selection_probabilities(np.array([scores]), n)
        assert found.shape == (1, len(scores))
        assert found[0] == pytest.approx(brute_probabilities(scores, n), abs=1e-14)


@pytest.mark.parametrize("scores", [row for row in TIED if len(row) <= 5])
def test_ties_are_the_average_over_all_orders_that_break_them(scores: list[float]) -> None:
    orders = list(itertools.permutations(range(len(scores))))
    for n in range(1, len(scores) + 1):
        total = np.zeros(len(scores))
        for order in orders:
            ranked = sorted(range(len(scores)), key=lambda i: (scores[i], order[i]))
            total[ranked] += order_statistic_weights(len(scores), n)
        found = selection_probabilities(np.array([scores]), n)[0]
        assert found == pytest.approx(total / len(orders), abs=1e-14)


def test_rows_are_independent() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [3.0, 3.0, 1.0]])
    together = selection_probabilities(rows, 2)
    alone = [selection_probabilities(row[None], 2)[0] for row in rows]
    assert together.tolist() == [row.tolist() for row in alone]
    assert together.tolist() == [[0, 1 / 3, 2 / 3], [0.5, 0.5, 0]]


@pytest.mark.parametrize("scores", [*TIED, DISTINCT])
def test_expected_value_is_that_of_all_subsets(scores: list[float]) -> None:
    worth = [float((7 * i) % 5 - 2) for i in range(len(scores))]
    for n in range(1, len(scores) + 1):
        wanted = math.fsum(
            value * share
            for value, share in zip(worth, brute_probabilities(scores, n), strict=True)
        )
        found = expected_best_of_n(np.array([worth]), np.array([scores]), n)
        assert found == pytest.approx([wanted], abs=1e-12)


def test_one_of_n_is_the_mean_and_all_of_n_is_the_best() -> None:
    worth = np.array([[4.0, 0.0, 2.0, 6.0]])
    scores = np.array([[1.0, 9.0, 3.0, 2.0]])
    assert expected_best_of_n(worth, scores, 1).tolist() == [3.0]
    assert expected_best_of_n(worth, scores, 4).tolist() == [0.0]


@pytest.mark.parametrize(("samples", "n"), [(4, 0), (4, 5), (4, -1), (1, 2)])
def test_n_out_of_range(samples: int, n: int) -> None:
    wanted = f"best-of-n: n must be between 1 and {samples} samples, found {n}$"
    with pytest.raises(EvaluationError, match=wanted):
        order_statistic_weights(samples, n)
    with pytest.raises(EvaluationError, match=wanted):
        expected_best_of_n(np.zeros((2, samples)), np.zeros((2, samples)), n)


def test_many_samples_stay_finite() -> None:
    weights = order_statistic_weights(1000, 500)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights[-1] == pytest.approx(0.5, abs=1e-15)
    assert (weights[:499] == 0).all()
    assert weights[499] == 0 or weights[499] < 1e-200


scored_rows = st.integers(1, 12).flatmap(
    lambda samples: st.lists(
        st.lists(st.integers(-5, 5).map(float), min_size=samples, max_size=samples),
        min_size=1,
        max_size=3,
    )
)


@given(scored_rows)
@settings(max_examples=60, deadline=None)
def test_the_selectors_own_score_never_falls_with_n(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    curve = [expected_best_of_n(scores, scores, n) for n in range(1, scores.shape[1] + 1)]
    for smaller, larger in itertools.pairwise(curve):
        assert (larger >= smaller - 1e-9).all()
    assert curve[0] == pytest.approx(scores.mean(axis=1))
    assert curve[-1] == pytest.approx(scores.max(axis=1))


@given(scored_rows, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_candidates_does_not_matter(rows: list[list[float]], seed: int) -> None:
    scores = np.array(rows)
    shuffled = np.random.default_rng(seed).permutation(scores.shape[1])
    for n in range(1, scores.shape[1] + 1):
        straight = selection_probabilities(scores, n)
        assert straight.sum(axis=1) == pytest.approx(1)
        turned = selection_probabilities(scores[:, shuffled], n)
        assert turned == pytest.approx(straight[:, shuffled])


def test_kl_bound_by_hand() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(0.1931471805599453)
    assert kl_bound(4) == pytest.approx(0.6362943611198906)


@pytest.mark.parametrize("outcomes", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_kl_bound_holds_for_a_uniform_policy(outcomes: int, n: int) -> None:
    """The best of n draws with replacement from 1..S: P(k) = (k/S)^n - ((k-1)/S)^n."""
    ranks = np.arange(1, outcomes + 1) / outcomes
    best = ranks**n - (ranks - 1 / outcomes) ** n
    kept = best > 0
    exact = float((best[kept] * np.log(best[kept] * outcomes)).sum())
    assert exact <= kl_bound(n) + 1e-12
    if outcomes == 1000:
        assert exact == pytest.approx(kl_bound(n), abs=0.02)


masses = st.lists(st.tuples(st.floats(1e-3, 1.0), st.integers(0, 5)), min_size=1, max_size=12)
"""Texts with unnormalised probabilities and scores, of which some are equal."""


@given(masses, st.integers(1, 64))
def test_kl_bound_holds_for_every_policy_and_score(texts: list[tuple[float, int]], n: int) -> None:
    """Exactly, by the probability of each text to be the best of n."""
    weights, scores = (np.array(each, dtype=float) for each in zip(*texts, strict=True))
    log_p = np.log(weights / weights.sum())
    chosen = mdp.best_of_n(log_p, scores, n)
    assert np.exp(chosen).sum() == pytest.approx(1)
    assert -1e-9 <= mdp.kl(chosen, log_p) <= kl_bound(n) + 1e-9


class LongestAnswer:
    """Scores an answer by its letters; remembers what it was told about its end."""

    name = "longest"

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.finished: list[bool] = []

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> NDArray[np.float64]:
        self.prompts, self.finished = list(prompts), list(finished or ())
        return np.array([float(len(text)) for text in completions])


class Indifferent(LongestAnswer):
    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> NDArray[np.float64]:
        return np.zeros(len(completions))


def test_the_choice_is_the_highest_score_of_its_own_prompt(model_folder: ModelFolder) -> None:
    policy = Policy("initial", load_backbone(model_folder("llama", "bos")))
    prompts = ["Why?", "The router is off."]
    selector = LongestAnswer()
    config = RolloutsConfig(max_new_tokens=8)
    choices = best_of_n(policy, selector, prompts, 5, seed=3, rollouts=config)
    assert [choice.prompt for choice in choices] == prompts
    assert selector.prompts == ["Why?"] * 5 + ["The router is off."] * 5
    said = [rollout for choice in choices for rollout in choice.candidates]
    assert selector.finished == [rollout.finish_reason == "stop" for rollout in said]
    for number, choice in enumerate(choices):
        assert {rollout.prompt_id for rollout in choice.candidates} == {f"prompt-{number}"}
        lengths = [len(rollout.completion) for rollout in choice.candidates]
        assert list(choice.scores) == lengths
        assert len(choice.completion) == max(lengths)
        assert choice.chosen == lengths.index(max(lengths))
    again = best_of_n(policy, LongestAnswer(), prompts, 5, seed=3, rollouts=config)
    assert again == choices
    other = best_of_n(policy, LongestAnswer(), prompts, 5, seed=4, rollouts=config)
    assert other != choices
    tied = best_of_n(policy, Indifferent(), prompts, 5, seed=3, rollouts=config)
    assert [choice.chosen for choice in tied] == [0, 0]
