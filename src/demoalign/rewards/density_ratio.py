"""The reward in closed form: both sides of the comparison are policies, so their ratio is known.

The best discriminator between two policies p (positives) and q (negatives) has the logit
log p(y|x) - log q(y|x) (Eq. 9 and 12), a sum over tokens. Where q finds a token all but
impossible, the ratio is large whatever the token is worth: it tells habits of the demonstrator
from the base model, and not good answers from bad ones. So tokens count inside q's support only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.config import RatioConfig
from demoalign.errors import EvaluationError, ModelError
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import TokenLogprobs, completion_logprobs
from demoalign.policies.policy import Policy
from demoalign.policies.within import logprobs_within
from demoalign.processes import joined, mine
from demoalign.records import Prompt
from demoalign.rewards.scoring import Answer, render_rows
from demoalign.rewards.token_reward import inside_support, paid_once, token_rewards

Array = NDArray[np.float64]

Making = Callable[[Policy], tuple[Sequence[Row], Sequence[Sequence[float] | None]]]
"""Gives token ids and, where they are known, log-probabilities under the policy it is shown."""


class TokenRatios(NamedTuple):
    """What the two policies make of one completion's T tokens.

    Attributes:
        rewards: (T,) what counts: shaped, clipped, 0 for tokens that do not count.
        log_ratios: (T,) log p - log q, nats, of all tokens.
        inside: (T,) whether q's support holds the token.
    """

    rewards: Array
    log_ratios: Array
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DensityRatio:
    """A reward model without training: scores by the ratio of two policies.

    Attributes:
        name: label of its scores.
        positive, negative: give the policies p and q when they are needed, one after the other,
            so that only one of them must be in memory; both at once if ``conditional``.
        config: form, clip, support.
    """

    name: str
    positive: Callable[[], Policy]
    negative: Callable[[], Policy]
    config: RatioConfig

    @classmethod
    def between(
        cls,
        positive: Policy,
        negative: Policy,
        config: RatioConfig | None = None,
        name: str = "density-ratio",
    ) -> DensityRatio:
        """The ratio of two policies that are loaded already, best on one backbone.

        Args:
            positive: p, usually the SFT policy.
            negative: q, usually the initial policy (`Policy.base`).
            config: form, clip and support; the defaults if None.
            name: label of its scores.

        Raises:
            ModelError: both are the same policy.
        """
        if positive.backbone is negative.backbone and positive.adapter == negative.adapter:
            raise ModelError(f"reward {name}: needs two policies, found {positive.name} twice")
        return cls(name, lambda: positive, lambda: negative, config or RatioConfig())

    @property
    def tokenizer(self) -> Any:
        """Of its policies."""
        return self.positive().backbone.tokenizer

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        known: Sequence[tuple[Sequence[int], Sequence[float]] | None] | None = None,
    ) -> Array:
        """Rewards (B,) of completions, nats.

        Args:
            prompts, completions, finished: as in `RewardModel.score`.
            known: token ids and log p of their tokens, for completions that p has sampled; used
                where the text encodes to the same ids.

        Raises:
            EvaluationError: a prompt leaves no room for its completion in the context, or a
                policy gives log-probabilities that are NaN.
        """
        return self.totals(completions, self.read(prompts, completions, finished, known))

    def totals(self, completions: Sequence[str], read: Sequence[TokenRatios]) -> Array:
        """Rewards (B,) of completions that `read` has read; raises as `score` does."""
        rewards = [each.rewards for each in read]
        empty = [i for i, each in enumerate(rewards) if not len(each)]
        if lost := sum(bool(completions[i]) for i in empty):
            raise EvaluationError(
                f"reward {self.name}: prompts must leave room for a completion in the model's "
                f"context, found {lost} of {len(rewards)} that do not. Shorten them."
            )
        total = np.array([each.sum() for each in rewards])
        if self.config.per == "sum":
            return total
        mean: Array = total / np.array([max(1, len(each)) for each in rewards])
        return mean

    def score_with_deviation(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> tuple[Array, Array]:
        """As `score`, with V(x,y) of Eq. 15 beside it, which is 1: both (B,)."""
        scores = self.score(prompts, completions, finished)
        return scores, np.ones_like(scores)

    def token_rewards(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        known: Sequence[tuple[Sequence[int], Sequence[float]] | None] | None = None,
    ) -> list[Array]:
        """Rewards (T,) of each completion's tokens; arguments as in `score`."""
        return [each.rewards for each in self.read(prompts, completions, finished, known)]

    def read(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        known: Sequence[tuple[Sequence[int], Sequence[float]] | None] | None = None,
    ) -> list[TokenRatios]:
        """Each completion token by token; arguments as in `score`."""
        flags = [True] * len(completions) if finished is None else list(finished)
        answers = [Answer(*each) for each in zip(prompts, completions, flags, strict=True)]
        number = {key: i for i, key in enumerate(dict.fromkeys(each.key for each in answers))}
        distinct = {number[each.key]: each for each in reversed(answers)}
        distinct = dict(sorted(distinct.items()))
        rows: list[Row] = []

        def render(policy: Policy) -> tuple[list[Row], list[Sequence[float] | None]]:
            tokenizer, context = policy.backbone.tokenizer, policy.backbone.context
            rows.extend(render_rows(tokenizer, list(distinct.values()), context))
            given: list[Sequence[float] | None] = [None] * len(rows)
            for answer, each in zip(answers, known or [None] * len(answers), strict=True):
                place = number[answer.key]
                if each is not None and tuple(each[0]) == rows[place].completion:
                    given[place] = each[1]
            return rows, given

        check = partial(self._check_reads_alike, list(distinct.values()), rows)
        found = self._read(render, check)
        return [found[number[each.key]] for each in answers]

    def read_rows(
        self, rows: Sequence[Row], known: Sequence[Sequence[float] | None] | None = None
    ) -> list[TokenRatios]:
        """Token ids of completions, such as the very ones that a policy has sampled.

        Args:
            rows: prompts and completions as both policies encode them.
            known: log p (T,) of each row's tokens where it is known already.
        """
        return self._read(lambda _: (rows, known or [None] * len(rows)), None)

    def _read(self, make: Making, check: Callable[[Policy], None] | None) -> list[TokenRatios]:
        """As `read_rows`, of rows made with p, after q was shown to a check if it is another's."""
        policy = self.positive()
        made, given = make(policy)
        rows, known = mine(made), mine(given)
        if self.config.conditional:
            return joined(self._once(rows, self._conditional(policy, rows, check)))
        ups = _with_known(policy, rows, known)
        tokenizer = policy.backbone.tokenizer
        del policy  # the other one may need its memory
        reference = self.negative()
        if check is not None and reference.backbone.tokenizer is not tokenizer:
            check(reference)
        downs = completion_logprobs(reference, rows)
        self._check_known(ups, [each.values for each in downs])
        found = [_judge(up, down, self.config) for up, down in zip(ups, downs, strict=True)]
        return joined(self._once(rows, found))

    def _once(self, rows: Sequence[Row], found: Sequence[TokenRatios]) -> list[TokenRatios]:
        """Repetitions lose what they would earn, if the configuration says so."""
        return [
            each._replace(rewards=paid_once(each.rewards, row.completion, self.config.repeats))
            for row, each in zip(rows, found, strict=True)
        ]

    def _conditional(
        self, policy: Policy, rows: Sequence[Row], check: Callable[[Policy], None] | None
    ) -> list[TokenRatios]:
        """As `_read`, given that both policies stay inside q's support; both are in memory.

        Known log-probabilities are of no use: p has to be read for what it gives to the support.
        """
        reference = self.negative()
        if check is not None and reference.backbone.tokenizer is not policy.backbone.tokenizer:
            check(reference)
        found = logprobs_within(policy, reference, rows, self._inside)
        self._check_known(
            [each.first.values for each in found], [each.second.values for each in found]
        )
        with np.errstate(invalid="ignore"):  # nothing inside: no token of the place counts
            excess = [each.first_mass - each.second_mass for each in found]
        return [
            _judge(each.first.values, each.second, self.config, lost)
            for each, lost in zip(found, excess, strict=True)
        ]

    def _inside(self, logprobs: Tensor) -> Tensor:
        return inside_support(logprobs, logprobs.amax(-1, keepdim=True), self.config)

    def _check_known(self, *policies: Sequence[Array]) -> None:
        """NaN lies outside any support, and would count as a reward of 0."""
        if lost := sum(bool(np.isnan(each).any()) for found in policies for each in found):
            raise EvaluationError(
                f"reward {self.name}: log-probabilities must be numbers, found {lost} completions "
                "with NaN. The weights of a policy are broken, or overflow in its dtype."
            )

    def _check_reads_alike(
        self, answers: Sequence[Answer], rows: Sequence[Row], reference: Policy
    ) -> None:
        """A ratio of tokens needs policies to which a text is the same tokens."""
        backbone = reference.backbone
        theirs = render_rows(backbone.tokenizer, answers, backbone.context)
        if differs := sum(own != their for own, their in zip(rows, theirs, strict=True)):
            raise ModelError(
                f"reward {self.name}: both policies must have the same tokenizer, found "
                f"{differs} of {len(rows)} completions that {reference.name} encodes otherwise. "
                "Use policies of one base model, or model: adapter."
            )


def _judge(
    logprobs: Array, reference: TokenLogprobs, config: RatioConfig, excess: Array | None = None
) -> TokenRatios:
    up, down, top = map(torch.from_numpy, (logprobs, reference.values, reference.highest))
    lost = None if excess is None else torch.from_numpy(excess)
    rewards: Array = token_rewards(up, down, top, config, lost).numpy()
    inside: NDArray[np.bool_] = inside_support(down, top, config).numpy()
    return TokenRatios(rewards, logprobs - reference.values, inside)


def _with_known(
    policy: Policy, rows: Sequence[Row], known: Sequence[Sequence[float] | None]
) -> list[Array]:
    """log p of each row's tokens (T,); computed where it is not known."""
    left = [i for i, each in enumerate(known) if each is None]
    computed: list[TokenLogprobs] = (
        completion_logprobs(policy, [rows[i] for i in left]) if left else []
    )
    found = {i: each.values for i, each in zip(left, computed, strict=True)}
    found |= {i: np.array(v, dtype=np.float64) for i, v in enumerate(known) if v is not None}
    return [found[i] for i in range(len(rows))]
