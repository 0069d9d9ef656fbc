"""What every rollout engine does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from demoalign.errors import RolloutError
from demoalign.policies.combined import CombinedPolicy
from demoalign.policies.policy import Policy
from demoalign.records import Prompt, Rollout

AnyPolicy = Policy | CombinedPolicy
"""What rollouts are sampled from. Servers have no combined policies."""

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
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        """Yield rollouts ``first`` to ``n - 1`` of each prompt (one if greedy), in order."""
        ...

    def describe(self) -> dict[str, str]:
        """How the last rollouts were sampled, in words for the report."""
        ...


def plain_policy(policy: AnyPolicy, engine: str) -> Policy:
    """The policy, for engines that know logits of one model only.

    Raises:
        RolloutError: it is a combined one.
    """
    if isinstance(policy, CombinedPolicy):
        raise RolloutError(
            f"rollouts.engine: {policy.name} combines the logits of two policies at every token, "
            f"which needs engine: transformers, found {engine}. Distilled into one policy "
            "(improve.distil) it can be sampled by any engine."
        )
    return policy


def sample_indices(spec: PromptSpec, n: int, greedy: bool) -> range:
    """The sample indices that are wanted for a prompt."""
    return range(GREEDY, GREEDY + 1) if greedy else range(spec.first, n)


def rollout_id(spec: PromptSpec, policy: str, index: int) -> str:
    """``prompt/policy/index``."""
    return f"{spec.id}/{policy}/{'greedy' if index == GREEDY else index}"
