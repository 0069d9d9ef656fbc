"""What chooses among candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from demoalign.policies.policy import Policy
from demoalign.records import Prompt

Array = NDArray[np.float64]


class Selector(Protocol):
    """Anything with a name that scores completions of prompts."""

    @property
    def name(self) -> str:
        """Label of its scores."""
        ...

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> Array:
        """(B,) scores; the largest is chosen."""
        ...


@runtime_checkable
class StateReader(Protocol):
    """A selector that may be a head on a policy's own hidden states."""

    def reads(self, policy: Policy) -> bool:
        """Whether it is one on this policy's."""
        ...

    def judge_states(self, hidden: NDArray[np.float32]) -> Array:
        """Scores (B,) of states (B, H)."""
        ...


def reads_states(selector: object, policy: Policy) -> bool:
    """Whether the selector scores what sampling with this policy computes anyway."""
    return isinstance(selector, StateReader) and selector.reads(policy)
