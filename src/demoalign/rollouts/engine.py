"""What every rollout engine does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from demoalign.policies.policy import Policy
from demoalign.records import Prompt, Rollout

GREEDY = -1
"""The index of a rollout that was decoded deterministically."""


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt to answer, with the id that its rollouts carry.

    Attributes:
        id: goes into the random streams.
        prompt: text or chat messages.
        first: index of the first sample; those before it exist already.
    """

    id: str
    prompt: Prompt
    first: int = 0


class Engine(Protocol):
    """Turns prompts into rollouts of one policy."""

    def sample(
        self, policy: Policy, prompts: Sequence[PromptSpec], n: int, seed: int, greedy: bool = False
    ) -> Iterator[Rollout]:
        """Yield rollouts ``first`` to ``n - 1`` of each prompt (one if greedy), in order."""
        ...

    def describe(self) -> dict[str, str]:
        """How the last rollouts were sampled, in words for the report."""
        ...


def sample_indices(spec: PromptSpec, n: int, greedy: bool) -> range:
    """The sample indices that are wanted for a prompt."""
    return range(GREEDY, GREEDY + 1) if greedy else range(spec.first, n)


def rollout_id(spec: PromptSpec, policy: str, index: int) -> str:
    """``prompt/policy/index``."""
    return f"{spec.id}/{policy}/{'greedy' if index == GREEDY else index}"
