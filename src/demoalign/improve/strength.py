"""How far to extrapolate, chosen without a golden reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What is tried; 0 is the SFT policy, cut to plausible tokens."""

ENOUGH = 0.9
"""Share of the most that any strength gains in proxy reward: no more is worth going further for."""

MORE_CUT = 0.05
"""A strength at which this many more answers no longer end is not chosen."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What samples of one strength look like.

    Attributes:
        strength: of the extrapolation.
        proxy: mean reward in closed form (nats) of an answer, as the selector scores it.
        cut: share of answers that came to the length limit.
        tokens: mean length.
    """

    strength: float
    proxy: float
    cut: float
    tokens: float


def choose_strength(tried: Sequence[Tried]) -> Tried:
    """The smallest strength that gains `ENOUGH` of what any does, without endless answers.

    Args:
        tried: ascending, from strength 0.
    """
    nothing = tried[0]
    allowed = [each for each in tried if each.cut <= nothing.cut + MORE_CUT]
    most = max(each.proxy for each in allowed) - nothing.proxy
    return next(each for each in allowed if each.proxy - nothing.proxy >= ENOUGH * most)
