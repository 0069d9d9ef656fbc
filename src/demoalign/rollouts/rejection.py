"""Speculative rejection: judge completions while they are being written and stop the worst.

After Sun et al., "Fast Best-of-N Decoding via Speculative Rejection" (2024). A *cohort* of a
prompt's samples starts together; at each checkpoint the partial completions that are still going
on are scored, and all but the best share of them are stopped. What survives is, token for token,
what full best-of-N would have sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demoalign.errors import RolloutError
from demoalign.records import Prompt


@dataclass(frozen=True, slots=True)
class Partial:
    """The beginning of a completion.

    Attributes:
        prompt: what is answered.
        token_ids: what was sampled so far.
        text: the same as text.
        hidden: (H,) final hidden state of the last token under the policy that samples.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    text: str
    hidden: NDArray[np.float32]


class PartialJudge(Protocol):
    """Scores beginnings of completions."""

    def __call__(self, partials: Sequence[Partial]) -> NDArray[np.float64]:
        """(B,) scores; the lowest are stopped."""
        ...


@dataclass(frozen=True, slots=True)
class Rejection:
    """When to judge, how many go on, and who judges.

    Attributes:
        checkpoints: numbers of new tokens, ascending.
        keep: share of the completions still going on that survives a checkpoint, in (0, 1].
        cohort: samples of a prompt that are judged against each other.
        judge: scores partial completions.
    """

    checkpoints: tuple[int, ...]
    keep: float
    cohort: int
    judge: PartialJudge


def survivors(scores: Sequence[float], indices: Sequence[int], keep: float) -> list[bool]:
    """Which of a cohort's completions go on: the best ``ceil(keep * count)``.

    Ties go to the smaller sample index, so that the order of the rows does not matter.

    Raises:
        RolloutError: a score is not finite.
    """
    if wrong := sum(not math.isfinite(score) for score in scores):
        raise RolloutError(
            "rejection: every score of a partial completion must be finite, found "
            f"{wrong} of {len(scores)} that are not. Turn improve.rejection off, or mend the "
            "selector."
        )
    count = math.ceil(round(keep * len(scores), 9))  # 0.07 * 100 is 7.000000000000001
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], indices[i]))
    best = set(ranked[:count])
    return [i in best for i in range(len(scores))]
