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

from torch import Tensor

from demoalign.config import ExtrapolateConfig
from demoalign.policies.combined import CombinedPolicy
from demoalign.policies.policy import Policy
from demoalign.rewards.token_reward import token_rewards

EXTRAPOLATED = "extrapolated"


def extrapolated_logits(first: Tensor, second: Tensor, config: ExtrapolateConfig) -> Tensor:
    """Logits (B, V) of the extrapolated policy, -inf for what is not plausible.

    Args:
        first: (B, V) logits of p.
        second: (B, V) logits of q.
        config: strength, reward and plausibility.
    """
    first, second = first.float(), second.float()
    up = first - first.logsumexp(-1, keepdim=True)
    down = second - second.logsumexp(-1, keepdim=True)
    rewards = token_rewards(up, down, down.amax(-1, keepdim=True), config.ratio)
    logits = up + config.strength * rewards
    if config.plausibility is None:
        return logits
    least = up.amax(-1, keepdim=True) + math.log(config.plausibility)
    return logits.masked_fill(up < least, float("-inf"))


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
    chosen = config or ExtrapolateConfig()

    def combine(first: Tensor, second: Tensor) -> Tensor:
        return extrapolated_logits(first, second, chosen)

    return CombinedPolicy(name, positive, negative, combine)
