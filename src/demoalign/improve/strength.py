"""How far to extrapolate, chosen without a golden reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What is tried; 0 is the SFT policy, cut to plausible tokens."""

PRICE = 0.25
"""beta of the objective: nats of reward that a nat of KL to the SFT policy must bring."""

MORE_CUT = 0.05
"""A strength at which this many more answers no longer end is not chosen."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What samples of one strength look like.

    Attributes:
        strength: of the extrapolation.
        proxy: mean reward in closed form (nats) of an answer, as the selector scores it.
        kl: to the SFT policy, nats an answer.
        cut: share of answers that came to the length limit.
        tokens: mean length.
    """

    strength: float
    proxy: float
    kl: float
    cut: float
    tokens: float

    @property
    def objective(self) -> float:
        """E[r] - beta KL(pi || pi_SFT), what extrapolation is to maximise."""
        return self.proxy - PRICE * self.kl


def choose_strength(tried: Sequence[Tried]) -> Tried:
    """The strength with the highest objective, of those whose answers still end.

    Args:
        tried: ascending, from strength 0.
    """
    allowed = [each for each in tried if each.cut <= tried[0].cut + MORE_CUT]
    return max(allowed, key=lambda each: each.objective)
