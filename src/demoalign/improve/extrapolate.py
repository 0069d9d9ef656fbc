"""Extrapolated decoding: a better policy from two that are there, without training one.

The SFT policy p is tilted by the token-level reward in closed form against the initial policy q,

    pi(a | s)  proportional to  p(a | s) exp(strength * r(a | s)),

among tokens that p itself finds plausible. With the plain log-ratio this is p^(1+strength)
q^(-strength) at every token, what contrastive decoding and proxy tuning do; here r is clipped and
counts inside q's support only, as in `rewards.token_reward`. Per sequence the same formula with
strength = 1/beta is the optimum of E[r] - beta KL(pi || p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demoalign.config import EXTRAPOLATED, ExtrapolateConfig
from demoalign.policies.combined import CombinedPolicy
from demoalign.policies.policy import Policy
from demoalign.rewards.token_reward import inside_support, next_rewards


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """The combination of logits: `policies.combined.Combination`.

    Attributes:
        config: strength, reward and plausibility.
    """

    config: ExtrapolateConfig

    def combine(self, first: Tensor, second: Tensor, since: Tensor) -> Tensor:
        """Logits (B, V) of the extrapolated policy, -inf for what is not plausible.

        Args:
            first: (B, V) logits of p.
            second: (B, V) log-probabilities of q.
            since: (B,) tokens since the last one outside q's support.
        """
        strength, ratio = self.config.settled_strength, self.config.ratio
        up, down = first.float().log_softmax(-1), second.float()
        if self.config.plausibility is None:
            return up + strength * next_rewards(up, down, since, ratio)
        least = up.amax(-1, keepdim=True) + math.log(self.config.plausibility)
        rows, tokens = (up >= least).nonzero(as_tuple=True)  # few: the rest is not computed with
        rewards = next_rewards(up, down, since, ratio, (rows, tokens))
        logits = torch.full_like(up, -math.inf)
        logits[rows, tokens] = up[rows, tokens] + strength * rewards
        return logits

    def outside(self, second: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """(B,) whether tokens (B,) lie outside q's support, by rows (B,) of q's (., V)."""
        said, highest = second[rows, tokens], second.amax(-1)[rows]
        return ~inside_support(said, highest, self.config.ratio)


def extrapolate(
    positive: Policy,
    negative: Policy,
    config: ExtrapolateConfig | None = None,
    name: str = EXTRAPOLATED,
) -> CombinedPolicy:
    """The policy that goes on from ``negative`` past ``positive``; sample it as any other.

    Args:
        positive: p, usually the SFT policy.
        negative: q, usually the initial policy; best on the same backbone.
        config: strength, reward and plausibility; the defaults if None.
        name: its rollouts carry it.

    Raises:
        ModelError: the policies have different vocabularies.
    """
    chosen = Extrapolation(config or ExtrapolateConfig())
    return CombinedPolicy(name, positive, negative, chosen)
