"""A reward that stays as it is while a policy is trained against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from demoalign.errors import TrainingError
from demoalign.improve.experience import Said
from demoalign.improve.selector import Selector
from demoalign.rewards.density_ratio import DensityRatio

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FixedReward:
    """Scores of a reward, in units in which the SFT policy's answers have mean 0 and deviation 1.

    Attributes:
        reward: any selector.
        by_token: one reward a token, which only a reward in closed form knows.
        is_of_reference: whether the positives of a reward in closed form are the reference policy,
            whose log-probabilities are known then.
        mean, deviation: of the reward over the SFT policy's answers; 0 and 1 to leave it alone.
        clip: most that an answer's reward may be from 0, None for all.
        unfinished: what an answer that does not end by itself loses.
    """

    reward: Selector | DensityRatio
    by_token: bool = False
    is_of_reference: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    clip: float | None = None
    unfinished: float = 0.0

    @property
    def is_fixed(self) -> bool:
        """Yes."""
        return True

    def begin(self) -> None:
        """Nothing."""

    def view(self, said: Said) -> Array:
        """(B,) rewards of whole completions, sums over their tokens."""
        return np.array([each.sum() for each in self.judge(said)])

    def learn(self, said: Said, number: int) -> dict[str, float | None]:
        """Nothing."""
        return {}

    def judge(self, said: Said) -> list[Array]:
        """Rewards of whole completions (1,), or of their tokens (T,).

        Raises:
            TrainingError: token by token of a reward that has none.
        """
        found = (
            self._tokens(said)
            if self.by_token
            else [np.array([(value - self.mean) / self.deviation]) for value in self.raw(said)]
        )
        return said.shaped(found, self.clip, self.unfinished)

    def raw(self, said: Said) -> Array:
        """(B,) as the reward itself says."""
        if isinstance(self.reward, DensityRatio):
            return np.array([float(each.sum()) for each in self._read(said)])
        texts = [each.completion for each in said.rollouts]
        return self.reward.score(list(said.prompts), texts, said.finished)

    def measured(self, said: Said) -> FixedReward:
        """The same reward in units of what these answers have."""
        values = self.raw(said)
        known = values[np.isfinite(values)]
        deviation = float(known.std()) if len(known) > 1 else 0.0
        if deviation <= 0:
            raise TrainingError(
                f"improve.reward: {self.reward.name} must tell the SFT policy's answers apart, "
                f"found the same score for all {len(known)}"
            )
        return replace(self, mean=float(known.mean()), deviation=deviation)

    def state(self) -> dict[str, Tensor]:
        """Nothing changes."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing has changed."""

    def _tokens(self, said: Said) -> list[Array]:
        if not isinstance(self.reward, DensityRatio):
            raise TrainingError(
                f"improve.level: token needs a reward for every token, found {self.reward.name}, "
                "which judges whole answers. Use a reward in closed form (model: density_ratio) "
                "or level: trajectory."
            )
        return [each / self.deviation for each in self._read(said)]

    def _read(self, said: Said) -> Sequence[Array]:
        assert isinstance(self.reward, DensityRatio)
        known = [each.tolist() for each in said.reference] if self.is_of_reference else None
        return [each.rewards for each in self.reward.read_rows(said.rows, known)]
