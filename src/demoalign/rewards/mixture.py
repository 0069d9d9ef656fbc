"""Rewards of different kinds seen as one, each on the scale of its own spread.

A log-ratio runs over tens of nats where a classifier's logit runs over a few: a plain mean would be
the ratio alone, and a minimum would always be the same member. So each member's score s becomes
(s - m) / d first, with the mean m and the standard deviation d that it had on held-out samples of
the SFT policy. Both are measured once and stored, so that a single answer has a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoalign.config import EnsembleConfig
from demoalign.errors import EvaluationError
from demoalign.policies.policy import Policy
from demoalign.records import Prompt
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.ensemble import EnsembleSelector, aggregate
from demoalign.rewards.reward_model import MIXTURE
from demoalign.rewards.scoring import score_together
from demoalign.store import read_json, write_json

Array = NDArray[np.float64]

UNIT = "standard deviations of SFT samples"
FLAT = 1e-9
"""A member's deviation must be more than this share of its largest score."""


@dataclass(frozen=True, slots=True)
class Standard:
    """Where a member's scores lie: their mean, and their standard deviation (> 0)."""

    mean: float
    deviation: float

    def __call__(self, scores: Array) -> Array:
        """Scores (B,) in standard deviations from the mean."""
        return (scores - self.mean) / self.deviation


Standards = Mapping[str, Standard]
"""By member, in the mixture's order."""


def measure_standards(mixture: str, scores: Mapping[str, Array]) -> dict[str, Standard]:
    """Mean and standard deviation (population formula) of each member's scores (B,).

    Raises:
        EvaluationError: there are fewer than two scores, or a member gives all the same one.
    """
    found = {}
    for member, values in scores.items():
        if len(values) < 2:
            raise EvaluationError(
                f"reward {mixture}: needs at least 2 held-out SFT samples to standardise its "
                f"members, found {len(values)}. Raise rollouts.samples_per_prompt or "
                "holdout_fraction."
            )
        mean, deviation = float(values.mean()), float(values.std())
        if deviation <= FLAT * float(np.abs(values).max()):
            raise EvaluationError(
                f"reward {mixture}: members must tell completions apart, found {member}, which "
                f"scores all {len(values)} held-out SFT samples {mean:.6g}. Take it out of members."
            )
        found[member] = Standard(mean, deviation)
    return found


def mix(standards: Standards, scores: Mapping[str, Array], config: EnsembleConfig) -> Array:
    """Aggregate of the members' standardised scores, (B,) as theirs."""
    return aggregate([each(scores[member]) for member, each in standards.items()], config)


def write_standards(folder: Path, standards: Standards, prompts: int, samples: int) -> None:
    """Store them as JSON, with how many prompts and samples they were measured on."""
    members = [
        {"name": name, "mean": each.mean, "deviation": each.deviation}
        for name, each in standards.items()
    ]
    write_json(folder / MIXTURE, {"members": members, "prompts": prompts, "samples": samples})


def read_standards(folder: Path) -> dict[str, Standard]:
    """What `write_standards` wrote."""
    members = read_json(folder / MIXTURE)["members"]
    return {each["name"]: Standard(each["mean"], each["deviation"]) for each in members}


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture that scores as a single reward model does.

    Attributes:
        name: label of its scores.
        members: in the order of the standards.
        standards: by the members' names.
        config: how standardised scores are aggregated.
    """

    name: str
    members: tuple[EnsembleSelector | DensityRatio, ...]
    standards: Standards
    config: EnsembleConfig

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        hidden: NDArray[np.float32] | None = None,
    ) -> Array:
        """Mixed rewards (B,), in standard deviations; arguments as in `RewardModel.score`."""
        trained = [each for each in self.members if isinstance(each, EnsembleSelector)]
        scores = scores_of(trained, prompts, completions, finished, hidden)
        for member in self.members:
            if isinstance(member, DensityRatio):
                scores[member.name] = member.score(prompts, completions, finished)
        return mix(self.standards, scores, self.config)

    def reads(self, policy: Policy) -> bool:
        """Whether all members are heads on this policy's own hidden states."""
        return all(
            isinstance(member, EnsembleSelector) and member.reads(policy) for member in self.members
        )

    def judge_states(self, hidden: NDArray[np.float32]) -> Array:
        """Mixed rewards (B,) of hidden states (B, H) of the policy that it `reads`."""
        scores = {
            member.name: member.judge_states(hidden)
            for member in self.members
            if isinstance(member, EnsembleSelector)
        }
        return mix(self.standards, scores, self.config)


def scores_of(
    selectors: Sequence[EnsembleSelector],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    hidden: NDArray[np.float32] | None = None,
) -> dict[str, Array]:
    """Scores (B,) of trained reward models by name; those that read the same share a pass."""
    models = [model for selector in selectors for model in selector.members]
    scored = iter(score_together(models, prompts, completions, finished, hidden=hidden))
    return {
        each.name: aggregate([next(scored)[0] for _ in each.members], each.config)
        for each in selectors
    }
