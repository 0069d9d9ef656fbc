"""A demonstrator with two modes, and policies that cannot hold both: what each divergence does.

A text is T tokens, each a or b. The demonstrator first decides on mostly a or mostly b, and keeps
to it; a policy without memory says a with one probability at every token. All that a policy makes
of a text is decided by its number of a's, so that distributions can be drawn over 0..T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from demoalign.divergences import DivergenceName, divergence
from demoalign.lab.mdp import TextMDP, prefix_sums, sequence_sums

Array = NDArray[np.float64]
Level = Literal["trajectory", "token"]

GRID = np.linspace(0.01, 0.99, 197)
"""Where minima are looked for, before they are made exact."""


@dataclass(frozen=True)
class TwoModes:
    """The demonstrator.

    Attributes:
        longest: T, tokens of every text.
        share: of texts that are of the first mode, mostly a.
        hold: probability with which a token is of the text's mode.
    """

    longest: int = 8
    share: float = 0.6
    hold: float = 0.85

    @cached_property
    def mdp(self) -> TextMDP:
        """Texts of a, b and an end token that nobody says before the T-th token."""
        return TextMDP(3, self.longest)

    def texts(self, theta: float) -> Array:
        """log d(y) (C,) of the policy that says a with probability theta."""
        return sequence_sums(self.mdp, self._table(theta))

    def pairs(self, theta: float) -> Array:
        """log rho(s, a) (S V,) of that policy: how often each prefix is met and gone on from."""
        table = self._table(theta)
        pairs: Array = (prefix_sums(self.mdp, table)[:, None] + table).ravel()
        return pairs

    def demonstrated(self, measure: Callable[[float], Array]) -> Array:
        """`texts` or `pairs` of the demonstrator."""
        first, second = measure(self.hold), measure(1 - self.hold)
        mixed: Array = np.logaddexp(np.log(self.share) + first, np.log1p(-self.share) + second)
        return mixed

    def counts(self, log_texts: Array) -> Array:
        """(T+1,) probability of each number of a's, from log d(y) (C,)."""
        number = sequence_sums(self.mdp, np.array([[1.0, 0, 0]] * self.mdp.states))
        masses: Array = np.zeros(self.longest + 1)
        np.add.at(masses, number.astype(int), np.exp(log_texts))
        return masses

    def minima(
        self, name: DivergenceName, alpha: float | None = None, level: Level = "trajectory"
    ) -> list[tuple[float, float]]:
        """(theta, divergence in nats) of every local minimum over policies, the lowest first.

        Args:
            name, alpha: of the divergence, see `demoalign.divergences`.
            level: between distributions of whole texts, or between occupancy measures.
        """
        measure = self.texts if level == "trajectory" else self.pairs
        wanted = torch.from_numpy(self.demonstrated(measure))

        def value(theta: float) -> float:
            return float(divergence(name, wanted, torch.from_numpy(measure(theta)), alpha))

        values = [value(theta) for theta in GRID]
        found = []
        for i in range(1, len(GRID) - 1):
            if values[i] <= values[i - 1] and values[i] < values[i + 1]:
                best = minimize_scalar(
                    value, bounds=(GRID[i - 1], GRID[i + 1]), options={"xatol": 1e-9}
                )
                found.append((float(best.x), float(best.fun)))
        return sorted(found, key=lambda each: each[1])

    def _table(self, theta: float) -> Array:
        row = np.array([np.log(theta), np.log1p(-theta), -np.inf])
        return np.tile(row, (self.mdp.states, 1))
