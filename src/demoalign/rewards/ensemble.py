"""Several reward models seen as one: a guard against gaming any single one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demoalign.config import EnsembleConfig
from demoalign.policies.policy import Policy
from demoalign.records import Prompt
from demoalign.rewards.reward_model import RewardModel

Array = NDArray[np.float64]


def aggregate(members: Sequence[Array], config: EnsembleConfig) -> Array:
    """One score from K members' scores (B,) each.

    ``mean``; ``min`` (the most sceptical member); or ``mean_minus_std``, the mean less k
    standard deviations among members (population formula).
    """
    stacked = np.stack(list(members))
    if config.aggregate == "min":
        lowest: Array = stacked.min(axis=0)
        return lowest
    mean: Array = stacked.mean(axis=0)
    if config.aggregate == "mean":
        return mean
    penalised: Array = mean - config.k * stacked.std(axis=0)
    return penalised


@dataclass(frozen=True, slots=True)
class EnsembleSelector:
    """An ensemble that scores as a single reward model does."""

    name: str
    members: tuple[RewardModel, ...]
    config: EnsembleConfig

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        hidden: NDArray[np.float32] | None = None,
    ) -> Array:
        """Aggregated rewards (B,), in logits; ``hidden`` as in `RewardModel.score`."""
        scores = [
            member.score(prompts, completions, finished, hidden=hidden) for member in self.members
        ]
        return aggregate(scores, self.config)

    def reads(self, policy: Policy) -> bool:
        """Whether all members are heads on this policy's own hidden states."""
        return all(member.reads(policy) for member in self.members)

    def judge_states(self, hidden: NDArray[np.float32]) -> Array:
        """Aggregated rewards (B,) of hidden states (B, H) of the policy that it `reads`."""
        return aggregate([member.judge_states(hidden) for member in self.members], self.config)
