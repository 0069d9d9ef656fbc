"""Best-of-N: policy improvement without training.

The expected value of best-of-n is computed exactly from M >= n samples by order statistics, not
by resampling: if candidates are ranked by the selector's score, the k-th from below (k = 1..M)
is the best of a random n-subset with probability C(k-1, n-1) / C(M, n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demoalign.config import RolloutsConfig
from demoalign.errors import EvaluationError
from demoalign.policies.policy import Policy
from demoalign.records import Prompt, Rollout
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine

Array = NDArray[np.float64]


def order_statistic_weights(samples: int, n: int) -> Array:
    """Probability that the k-th ranked of ``samples`` is the best of a random n-subset.

    Args:
        samples: M.
        n: subset size, 1 <= n <= M.

    Returns:
        (M,) weights C(k-1, n-1) / C(M, n) for k = 1..M ascending; they sum to 1.

    Raises:
        EvaluationError: n is outside 1..M.
    """
    if not 1 <= n <= samples:
        raise EvaluationError(f"best-of-n: n must be between 1 and {samples} samples, found {n}")
    whole = math.comb(samples, n)
    return np.array([math.comb(k - 1, n - 1) / whole for k in range(1, samples + 1)])


def selection_probabilities(scores: Array, n: int) -> Array:
    """Probability of each candidate to be the best of a random n-subset of its row.

    Tied candidates share their weight, as a random tie-break would on average.

    Args:
        scores: (P, M) of P prompts and M candidates; finite.
        n: subset size.

    Returns:
        (P, M); each row sums to 1.
    """
    weights = order_statistic_weights(scores.shape[1], n)
    result = np.empty_like(scores, dtype=np.float64)
    for row, values in enumerate(scores):
        _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        mass = np.add.reduceat(weights, bounds[:-1])
        result[row] = (mass / sizes)[group]
    return result


def expected_best_of_n(values: Array, scores: Array, n: int) -> Array:
    """Expected value of the candidate that the scores select among n.

    Args:
        values: (P, M) what the choice is worth (golden reward, length, a win, ...).
        scores: (P, M) the selector's scores.
        n: subset size.

    Returns:
        (P,) expectation for each prompt.
    """
    expected: Array = (values * selection_probabilities(scores, n)).sum(axis=1)
    return expected


def kl_bound(n: int) -> float:
    """Upper bound log n - (n-1)/n, in nats, on KL(best-of-n policy || policy).

    It is exact for a continuous score without ties and an upper bound otherwise
    (Beirami et al., 2024).
    """
    return math.log(n) - (n - 1) / n


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates of one prompt with their scores (M,), and which one was chosen."""

    prompt: Prompt
    candidates: tuple[Rollout, ...]
    scores: tuple[float, ...]
    chosen: int

    @property
    def completion(self) -> str:
        """The chosen answer."""
        return self.candidates[self.chosen].completion


def best_of_n(
    policy: Policy,
    selector: Selector,
    prompts: Sequence[Prompt],
    n: int,
    *,
    seed: int = 0,
    rollouts: RolloutsConfig | None = None,
) -> list[Choice]:
    """Sample n completions of each prompt and choose the one that the selector likes best.

    Args:
        policy: samples the candidates.
        selector: a reward model, or anything that scores.
        prompts: what to answer.
        n: candidates per prompt.
        seed: of the rollouts' random streams; the same seed gives the same choice.
        rollouts: temperature, length and so on; the paper's defaults if None.

    Returns:
        One choice a prompt, in order. Ties go to the earliest candidate.
    """
    engine = make_engine(rollouts or RolloutsConfig())
    specs = [PromptSpec(f"prompt-{number}", prompt) for number, prompt in enumerate(prompts)]
    sampled = list(engine.sample(policy, specs, n, seed))
    repeated = [prompt for prompt in prompts for _ in range(n)]
    scores = selector.score(
        repeated,
        [rollout.completion for rollout in sampled],
        [rollout.finish_reason == "stop" for rollout in sampled],
    ).reshape(len(prompts), n)
    return [
        Choice(
            prompt,
            tuple(sampled[number * n : (number + 1) * n]),
            tuple(float(score) for score in scores[number]),
            int(scores[number].argmax()),
        )
        for number, prompt in enumerate(prompts)
    ]
