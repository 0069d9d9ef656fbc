"""What is said on the test prompts: by which policy, decoded how, stored where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demoalign.config import TRUNCATIONS, Recipe, RolloutsConfig, policies_of
from demoalign.policies.policy import INITIAL, SFT
from demoalign.records import Rollout
from demoalign.rollouts.write import read_rollouts

CANDIDATES, GREEDY, NONE = "candidates", "greedy", "none"

WHOLE: dict[str, object] = {"temperature": 1.0, "top_p": 1.0, "top_k": None, "min_p": None}
"""No truncation at all."""


@dataclass(frozen=True, slots=True)
class Source:
    """Completions of the test prompts.

    Attributes:
        key: its name among the sources of a run.
        policy, selector: what its metrics are called by; the selector is ``none``, ``greedy`` or
            a truncation.
        stage: the folder of the stage that samples it.
    """

    key: str
    policy: str
    selector: str
    stage: str

    @property
    def path(self) -> Path:
        """Where its rollouts are, below the run's folder."""
        suffix = "" if self.selector == NONE else f"-{self.selector}"
        return Path(self.stage) / f"{self.policy}{suffix}.jsonl"

    @property
    def is_greedy(self) -> bool:
        """Whether it was decoded deterministically: one completion a prompt."""
        return self.selector == GREEDY

    def rollouts(self, config: RolloutsConfig) -> RolloutsConfig:
        """The recipe's rollouts, truncated as the source says."""
        if self.selector not in TRUNCATIONS:
            return config
        return config.model_copy(update={**WHOLE, **TRUNCATIONS[self.selector]})


def sft_sources(recipe: Recipe) -> list[Source]:
    """What the initial and the SFT policy say: candidates for best-of-n, and what to beat."""
    stage = "rollouts-test"
    plain = [
        Source(CANDIDATES, SFT, NONE, stage),
        Source(GREEDY, SFT, GREEDY, stage),
        Source(INITIAL, INITIAL, NONE, stage),
    ]
    if not recipe.evaluation.truncated_samples:
        return plain
    served = recipe.rollouts.engine == "openai"  # the API has no min_p; servers may refuse it
    known = [name for name, cut in TRUNCATIONS.items() if not (served and "min_p" in cut)]
    return plain + [Source(f"{SFT}-{name}", SFT, name, stage) for name in known]


def improved_sources(recipe: Recipe) -> list[Source]:
    """What the policies of ``improve`` say."""
    return [
        Source(name if selector == NONE else f"{name}-{selector}", name, selector, "improve")
        for name in policies_of(recipe.improve)
        for selector in (NONE, GREEDY)
    ]


def baseline_sources(recipe: Recipe) -> list[Source]:
    """What the policies of ``baselines`` say."""
    return [
        Source(
            name if selector == NONE else f"{name}-{selector}",
            name,
            selector,
            f"baseline-rollouts/{name}",
        )
        for name in (each.name for each in recipe.baselines)
        for selector in (NONE, GREEDY)
    ]


def test_sources(recipe: Recipe) -> list[Source]:
    """Everything said on the test prompts."""
    return sft_sources(recipe) + improved_sources(recipe) + baseline_sources(recipe)


def read_sampled(recipe: Recipe, run: Path) -> dict[str, list[Rollout]]:
    """Rollouts on the test prompts by source."""
    return {source.key: read_rollouts(run / source.path) for source in test_sources(recipe)}
