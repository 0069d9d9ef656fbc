"""Two modes and a policy that cannot hold both: which divergences cover and which pick."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import comb

from demoalign.divergences import DivergenceName, divergence
from demoalign.lab.modes import GRID, Level, TwoModes

WORLD = TwoModes()
LEVELS: tuple[Level, ...] = ("trajectory", "token")


def test_texts_by_hand() -> None:
    world = TwoModes(longest=2, share=0.75, hold=0.9)
    found = world.counts(world.demonstrated(world.texts))
    np.testing.assert_allclose(found, [0.75 * 0.01 + 0.25 * 0.81, 2 * 0.09, 0.61])
    assert found.sum() == pytest.approx(1)
    pairs = np.exp(world.demonstrated(world.pairs)).reshape(-1, 3)
    np.testing.assert_allclose(pairs.sum(), 2)  # tokens of a text
    np.testing.assert_allclose(pairs[0], [0.75 * 0.9 + 0.25 * 0.1, 0.75 * 0.1 + 0.25 * 0.9, 0])


def test_a_policy_is_binomial_in_the_number_of_as() -> None:
    numbers = np.arange(9)
    wanted = comb(8, numbers) * 0.3**numbers * 0.7 ** (8 - numbers)
    np.testing.assert_allclose(WORLD.counts(WORLD.texts(0.3)), wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_forward_kl_matches_the_demonstrators_mean(level: Level) -> None:
    """So SFT of such a policy covers both modes, and mostly says what neither of them does."""
    mean = 0.6 * 0.85 + 0.4 * 0.15
    ((theta, _),) = WORLD.minima("fairl", level=level)
    assert theta == pytest.approx(mean, abs=1e-6)
    both = WORLD.counts(WORLD.demonstrated(WORLD.texts))
    ours = WORLD.counts(WORLD.texts(theta))
    assert both[3:6].sum() < 0.2
    assert ours[3:6].sum() > 0.6


def test_reverse_kl_picks_a_mode_and_may_be_caught_in_the_other() -> None:
    (best, lower), (caught, higher) = WORLD.minima("airl")
    assert best == pytest.approx(0.85, abs=0.02)
    assert caught == pytest.approx(0.15, abs=0.02)
    assert lower < higher
    assert WORLD.counts(WORLD.texts(best))[6:].sum() > 0.85


@pytest.mark.parametrize("level", LEVELS)
def test_jensen_shannon_and_alpha_lie_in_between_and_alpha_goes_from_one_to_the_other(
    level: Level,
) -> None:
    def theta(name: DivergenceName, alpha: float | None = None) -> float:
        return WORLD.minima(name, alpha, level)[0][0]

    along = [theta("alpha", alpha) for alpha in (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0)]
    assert along == sorted(along)
    assert along[1] == pytest.approx(theta("fairl"), abs=1e-6)
    assert along[5] == pytest.approx(theta("airl"), abs=1e-6)
    assert along[1] + 0.02 < theta("gail") < along[5]


def test_minima_are_minima() -> None:
    """Against a finer search for one of them."""
    coarse = WORLD.minima("gail")
    near = [abs(theta - GRID).min() for theta, _ in coarse]
    assert max(near) > 1e-4  # they lie between points of the grid
    for theta, value in coarse:
        for other in (theta - 1e-3, theta + 1e-3):
            assert _value(other) > value


def _value(theta: float) -> float:
    log_p, log_q = WORLD.demonstrated(WORLD.texts), WORLD.texts(theta)
    return float(divergence("gail", torch.from_numpy(log_p), torch.from_numpy(log_q)))
