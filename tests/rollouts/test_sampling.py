"""Inverse-CDF sampling and top-p, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demoalign.rollouts.sampling import inverse_cdf, truncate

ALMOST_ONE = float(np.nextafter(1.0, 0.0))


def pick(probabilities: list[float], draw: float) -> int:
    drawn = torch.tensor([draw], dtype=torch.float64)
    return int(inverse_cdf(torch.tensor([probabilities]), drawn))


@pytest.mark.parametrize(
    ("draw", "token"),
    [
        (0.0, 0),
        (0.2499, 0),
        (0.25, 1),  # a token's interval is closed below and open above
        (0.4999, 1),
        (0.5, 3),
        (0.9999, 3),
        (ALMOST_ONE, 3),
    ],
)
def test_by_hand(draw: float, token: int) -> None:
    assert pick([0.25, 0.25, 0.0, 0.5], draw) == token


@pytest.mark.parametrize(("draw", "token"), [(0.0, 2), (0.5, 4), (ALMOST_ONE, 4)])
def test_tokens_of_probability_zero_are_never_taken(draw: float, token: int) -> None:
    assert pick([0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0], draw) == token


def test_rows_that_do_not_quite_sum_to_one() -> None:
    assert pick([0.3, 0.3, 0.3, 0.0], ALMOST_ONE) == 2
    assert pick([0.3, 0.3, 0.3, 0.0], 0.5) == 1
    assert pick([0.6, 0.6, 0.6], 0.999) == 2


def test_a_large_vocabulary_in_single_precision() -> None:
    """float32 sums would lose the tail: each of 200,000 tokens must be reached by its own draw."""
    size = 200_000
    probabilities = torch.full((1, size), 1 / size).expand(8, size)
    tokens = torch.tensor([0, 1, 2, 999, 100_000, 150_001, size - 2, size - 1])
    assert torch.equal(inverse_cdf(probabilities, (tokens + 0.5).double() / size), tokens)


def test_rows_are_independent() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    draws = torch.tensor([ALMOST_ONE, 0.0, 0.7], dtype=torch.float64)
    assert inverse_cdf(probabilities, draws).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("top_p", "wanted"),
    [
        (1.0, [0.125, 0.5, 0.125, 0.25]),
        (0.875, [0.125, 0.5, 0.125, 0.25]),
        (0.8, [0.125, 0.5, 0.125, 0.25]),
        (0.75, [0, 2 / 3, 0, 1 / 3]),
        (0.51, [0, 2 / 3, 0, 1 / 3]),
        (0.5, [0, 1, 0, 0]),
        (1e-9, [0, 1, 0, 0]),
    ],
)
def test_top_p_by_hand(top_p: float, wanted: list[float]) -> None:
    """The smallest set whose mass reaches p; those that tie for last place stay, too."""
    found = truncate(torch.tensor([[0.125, 0.5, 0.125, 0.25]]), None, top_p)[0]
    assert (found / found.sum()).tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("size", [100, 1000])
def test_top_p_keeps_the_smallest_set(size: int) -> None:
    """With 1,000 tokens the set is larger than what is looked at first."""
    probabilities = torch.softmax(torch.randn(5, size, generator=torch.manual_seed(0)), dim=-1)
    found = truncate(3 * probabilities, None, 0.7)
    assert ((probabilities * (found > 0)).sum(-1) >= 0.7).all()
    smallest = torch.where(found > 0, probabilities, 1.0).min(-1).values
    assert ((probabilities * (found > 0)).sum(-1) - smallest < 0.7).all()
