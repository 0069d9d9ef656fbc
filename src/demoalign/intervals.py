"""95 % intervals: bootstrap over prompts for means, Wilson for proportions. Pure functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


def bootstrap_mean(
    values: NDArray[np.float64], seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean.

    Args:
        values: (P,) one number per independent unit (prompt); all finite, P >= 1.
        seed: of the resampling stream; the same seed gives the same interval.
        resamples: how many bootstrap means are drawn.

    Returns:
        Lower and upper 95 % bound, in the unit of ``values``. With P = 1 both are the value:
        one unit says nothing about its spread.
    """
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be a non-empty finite vector, found shape {values.shape}")
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 200):
        draws = generator.integers(0, values.size, size=(min(200, resamples - start), values.size))
        means[start : start + len(draws)] = values[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson, 1927), for 0 <= successes <= trials.

    ``successes`` may be fractional, as when a tie counts one half.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials, found {successes} of {trials}")
    share = successes / trials
    denominator = 1 + Z95**2 / trials
    centre = (share + Z95**2 / (2 * trials)) / denominator
    half = Z95 * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)
