"""Best-of-N: policy improvement without training.

The expected value of best-of-n is computed exactly from M >= n samples by order statistics, not
by resampling: if candidates are ranked by the selector's score, the k-th from below (k = 1..M)
is the best of a random n-subset with probability C(k-1, n-1) / C(M, n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demoalign.config import RejectionConfig, RolloutsConfig
from demoalign.errors import EvaluationError, RecipeError
from demoalign.improve.rejection import make_rejection
from demoalign.improve.selector import Selector, reads_states
from demoalign.policies.combined import CombinedPolicy
from demoalign.policies.policy import Policy
from demoalign.records import Prompt, Rollout
from demoalign.rollouts.engine import AnyPolicy, Engine, PromptSpec
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.transformers_engine import TransformersEngine

Array = NDArray[np.float64]

SAMPLED_AT_ONCE = 8192
"""Candidates that are sampled before they are scored: bounds what is held of them."""


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates of one prompt with their scores (M,), and which one was chosen.

    A candidate that speculative rejection stopped has no score.
    """

    prompt: Prompt
    candidates: tuple[Rollout, ...]
    scores: tuple[float | None, ...]
    chosen: int

    @property
    def completion(self) -> str:
        """The chosen answer."""
        return self.candidates[self.chosen].completion

    @property
    def score(self) -> float:
        """The chosen answer's score."""
        score = self.scores[self.chosen]
        assert score is not None
        return score

    @property
    def tokens(self) -> int:
        """How many tokens were sampled for it."""
        return sum(len(rollout.token_ids) for rollout in self.candidates)


def best_of_n(
    policy: AnyPolicy,
    selector: Selector,
    prompts: Sequence[Prompt],
    n: int,
    *,
    seed: int = 0,
    rollouts: RolloutsConfig | None = None,
    rejection: RejectionConfig | None = None,
) -> list[Choice]:
    """Sample n completions of each prompt and choose the one that the selector likes best.

    A selector that is a head on the policy's own hidden states (see `RewardModel.reads`) scores
    what sampling computed already.

    Args:
        policy: samples the candidates; an extrapolated one (see `extrapolate`) may.
        selector: a reward model, or anything that scores.
        prompts: what to answer.
        n: candidates per prompt.
        seed: of the rollouts' random streams; the same seed gives the same choice.
        rollouts: temperature, length and so on; the paper's defaults if None.
        rejection: stop the least promising completions early; off if None.

    Returns:
        One choice a prompt, in order. Ties go to the earliest candidate.

    Raises:
        ModelError: a prompt does not fit the model's context.
        RecipeError: rejection was asked of an engine that cannot do it.
    """
    config = rollouts or RolloutsConfig()
    specs = [PromptSpec(f"prompt-{number}", prompt) for number, prompt in enumerate(prompts)]
    engine = _engine(config, rejection, policy, selector, n)
    size = max(1, SAMPLED_AT_ONCE // n)
    choices: list[Choice] = []
    for start in range(0, len(specs), size):
        part = specs[start : start + size]
        candidates, scores = _sample_and_score(engine, policy, selector, part, n, seed)
        choices += [
            _choose(spec.prompt, candidates[k * n : (k + 1) * n], scores[k * n : (k + 1) * n])
            for k, spec in enumerate(part)
        ]
    return choices


def _engine(
    config: RolloutsConfig,
    rejection: RejectionConfig | None,
    policy: AnyPolicy,
    selector: Selector,
    n: int,
) -> Engine:
    if rejection is None or rejection.level == "off":
        return make_engine(config)
    if config.engine != "transformers":
        raise RecipeError(
            "improve.rejection: needs rollouts.engine: transformers, which can stop completions "
            f"midway, found {config.engine}"
        )
    judged = _whose_states(policy)
    return TransformersEngine(config, make_rejection(rejection, config, judged, selector, n))


def _whose_states(policy: AnyPolicy) -> Policy:
    """The policy whose hidden states sampling computes."""
    return policy.first if isinstance(policy, CombinedPolicy) else policy


def _sample_and_score(
    engine: Engine,
    policy: AnyPolicy,
    selector: Selector,
    specs: Sequence[PromptSpec],
    n: int,
    seed: int,
) -> tuple[list[Rollout], list[float | None]]:
    """Candidates prompt by prompt, and their scores; None for those that were stopped."""
    hidden: list[NDArray[np.float32]] = []
    reads = isinstance(engine, TransformersEngine) and reads_states(selector, _whose_states(policy))
    if reads and isinstance(engine, TransformersEngine):
        unknown = np.full(policy.backbone.hidden_size, np.nan, np.float32)
        sampled = list(engine.sample_hidden(policy, specs, n, seed))
        candidates = [each.rollout for each in sampled]
        hidden = [unknown if each.hidden is None else each.hidden for each in sampled]
    else:
        candidates = list(engine.sample(policy, specs, n, seed))
    whole = [i for i, each in enumerate(candidates) if each.finish_reason != "rejected"]
    prompts = {spec.id: spec.prompt for spec in specs}
    known = {"hidden": np.stack([hidden[i] for i in whole])} if reads else {}
    values = selector.score(
        [prompts[candidates[i].prompt_id] for i in whole],
        [candidates[i].completion for i in whole],
        [candidates[i].finish_reason == "stop" for i in whole],
        **known,
    )
    scores: list[float | None] = [None] * len(candidates)
    for place, value in zip(whole, values, strict=True):
        scores[place] = float(value)
    return candidates, scores


def _choose(
    prompt: Prompt, candidates: Sequence[Rollout], scores: Sequence[float | None]
) -> Choice:
    best = max(range(len(scores)), key=lambda i: (_rank(scores[i]), -i))
    return Choice(prompt, tuple(candidates), tuple(scores), best)


def _rank(score: float | None) -> float:
    return -math.inf if score is None else score
