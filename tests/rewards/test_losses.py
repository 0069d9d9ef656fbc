"""Losses by hand, and what they are minimised by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erf
from torch import Tensor

from demoalign.rewards.losses import (
    MINIMUM_DEVIATION,
    bce,
    bradley_terry,
    bradley_terry_variance,
    calibration_error,
    deviation,
    pair_loss,
    squared_error,
)

UPS, DOWNS = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_bce_by_hand() -> None:
    wanted = -(log_sigmoid(2) + log_sigmoid(-1) + log_sigmoid(-0.5) + log_sigmoid(-1)) / 4
    assert bce(UPS, DOWNS).item() == pytest.approx(wanted, rel=1e-6)
    assert bce(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))


def test_squared_error_by_hand() -> None:
    ups, downs = torch.tensor([2.5, -3.0]), torch.tensor([0.5, 2.0])
    wanted = (0.5**2 + 2.0**2 + 0.0 + 1.0) / 4
    assert squared_error(UPS, DOWNS, ups, downs).item() == pytest.approx(wanted, rel=1e-6)
    assert squared_error(UPS, DOWNS, UPS, DOWNS).item() == 0


def test_bradley_terry_by_hand() -> None:
    wanted = -(log_sigmoid(1.5) + log_sigmoid(-2)) / 2
    assert bradley_terry(UPS, DOWNS).item() == pytest.approx(wanted, rel=1e-6)
    assert bradley_terry(UPS + 7, DOWNS + 7).item() == pytest.approx(wanted, rel=1e-5)


def test_bradley_terry_variance_by_hand() -> None:
    """Eq. 15: V = (1, 7) gives sqrt(25) = 5; V = (0.6, 0.8) gives sqrt(0.5)."""
    up_v, down_v = torch.tensor([1.0, 0.6]), torch.tensor([7.0, 0.8])
    wanted = -(log_sigmoid(1.5 / 5) + log_sigmoid(-2 / math.sqrt(0.5))) / 2
    found = bradley_terry_variance(UPS, DOWNS, up_v, down_v)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_the_likelihoods_behind_it() -> None:
    """Eq. 15 is Eq. 14's cross-entropy, and Eq. 16 with V = 1; Eq. 13 has Gaussian noise."""
    gaps, spreads = np.linspace(-3, 3, 13), [(1.0, 1.0), (0.3, 2.0)]
    for up_v, down_v in spreads:
        variance = up_v**2 + down_v**2
        wins = 0.5 + 0.5 * np.tanh(gaps / np.sqrt(2 * variance))  # Eq. 14
        for gap, win in zip(gaps, wins, strict=True):
            sides = (torch.tensor([each], dtype=torch.float64) for each in (gap, 0, up_v, down_v))
            assert bradley_terry_variance(*sides).item() == pytest.approx(-math.log(win), rel=1e-9)
        probit = 0.5 + 0.5 * erf(gaps / np.sqrt(2 * variance))  # Eq. 13
        drawn = np.random.default_rng(0).normal(size=(2, 100_000, 1))
        simulated = (gaps + up_v * drawn[0] >= down_v * drawn[1]).mean(0)
        np.testing.assert_allclose(simulated, probit, atol=4 * 0.5 / math.sqrt(100_000))
        if variance == 2:
            ones = [bradley_terry(torch.tensor([gap]), torch.zeros(1)).item() for gap in gaps]
            np.testing.assert_allclose(ones, -np.log(wins), rtol=1e-5)
            assert np.abs(wins - probit).max() > 0.03  # two models of noise, not one


def test_variance_one_is_bradley_terry() -> None:
    one = deviation(torch.zeros(2))
    torch.testing.assert_close(one, torch.ones(2))
    found = bradley_terry_variance(UPS, DOWNS, torch.ones(2), torch.ones(2))
    assert found.item() == pytest.approx(bradley_terry(UPS, DOWNS).item(), rel=1e-7)


def test_deviations_are_positive_and_rise() -> None:
    raw = torch.tensor([-1e4, -20.0, -1.0, 0.0, 3.0, 1e4])
    found = deviation(raw)
    assert found[0] == found[1] == pytest.approx(MINIMUM_DEVIATION)
    assert (found[2:].diff() > 0).all()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ["bce", "bradley_terry", "bradley_terry_variance"])
def test_loss_and_gradient_stay_finite(name: str) -> None:
    for scale in (1.0, 1e3, 1e4):
        ups = torch.tensor([scale, -scale, 0.0], requires_grad=True)
        downs = torch.tensor([-scale, scale, 0.0], requires_grad=True)
        raw = torch.tensor([-scale, 0.0, scale], requires_grad=True)
        loss = pair_loss(name, (ups, raw), (downs, raw))
        inputs = [ups, downs] + ([raw] if name.endswith("variance") else [])
        gradients = torch.autograd.grad(loss, inputs)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert gradients[0][1] < 0 < gradients[1][1]  # the pair in the wrong order is put right


def test_pair_loss_chooses_by_name() -> None:
    raw = torch.tensor([0.5, -0.5])
    sides = (UPS, raw), (DOWNS, 2 * raw)
    wanted: dict[str, Tensor] = {
        "bce": bce(UPS, DOWNS),
        "bradley_terry": bradley_terry(UPS, DOWNS),
        "bradley_terry_variance": bradley_terry_variance(
            UPS, DOWNS, deviation(raw), deviation(2 * raw)
        ),
    }
    assert len({round(value.item(), 6) for value in wanted.values()}) == 3
    for name, value in wanted.items():
        assert pair_loss(name, *sides) == value
    with pytest.raises(ValueError, match="needs the variance head's output"):
        pair_loss("bradley_terry_variance", (UPS, None), (DOWNS, None))


def minimise(loss: Callable[[Tensor], Tensor], size: int) -> Tensor:
    def value_and_gradient(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = torch.tensor(point, requires_grad=True)
        value = loss(logits)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.item(), gradient.numpy()

    found = minimize(value_and_gradient, np.zeros(size), jac=True, method="BFGS", tol=1e-8)
    return torch.from_numpy(found.x)


def test_the_minimiser_of_bce_is_the_log_ratio() -> None:
    """Eq. 9 and 12: three outcomes, p = (6, 3, 1)/10 and q = (2, 3, 5)/10, enumerated."""
    p, q = torch.tensor([6, 3, 1]), torch.tensor([2, 3, 5])
    outcomes = torch.arange(3)
    ups, downs = outcomes.repeat_interleave(p), outcomes.repeat_interleave(q)
    found = minimise(lambda logits: bce(logits[ups], logits[downs]), 3)
    torch.testing.assert_close(found, (p / q).log().double(), atol=1e-4, rtol=0)


def test_the_minimiser_of_bradley_terry_is_the_log_odds_of_winning() -> None:
    """Outcome 1 beats outcome 0 in 3 pairs of 4."""
    ups, downs = torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 0, 1])
    found = minimise(lambda logits: bradley_terry(logits[ups], logits[downs]), 2)
    assert (found[1] - found[0]).item() == pytest.approx(math.log(3), abs=1e-4)


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([0.9, 0.1, 0.8, 0.4])
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    # two bins of equal mass: {0.1, 0.4} with labels {0, 1}, and {0.8, 0.9} with {0, 1}
    wanted = (abs(0.25 - 0.5) + abs(0.85 - 0.5)) / 2
    assert calibration_error(probabilities, labels, bins=2) == pytest.approx(wanted)
    assert calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(0.55 - 0.5))
    each = (0.1 + 0.6 + 0.8 + 0.1) / 4
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx(each)
    # bins of unequal size weigh as much as they hold: {0.1, 0.4, 0.8} and {0.9}
    three = torch.tensor([0.1, 0.4, 0.8]), torch.tensor([0.0, 1.0, 0.0])
    assert calibration_error(*three, bins=2) == pytest.approx((2 * 0.25 + 0.8) / 3)
