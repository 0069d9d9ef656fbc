"""The token-level reward in closed form: pure maths on the log-probabilities of two policies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demoalign.config import RatioConfig


def token_rewards(
    logprobs: Tensor, reference: Tensor, highest: Tensor, config: RatioConfig
) -> Tensor:
    """Rewards of tokens, 0 for those outside the reference's support; any shape.

    Args:
        logprobs: log p of each token, nats.
        reference: log q of each token.
        highest: log q of the likeliest token at each place.
        config: form, clip and support. ``log_ratio`` is log p - log q (Eq. 9 and 12, token by
            token); ``jensen_shannon`` is log(2 p / (p + q)), which is at most log 2.
    """
    delta = logprobs - reference
    if config.form == "jensen_shannon":
        delta = math.log(2) - torch.nn.functional.softplus(-delta)
    if config.clip is not None:
        delta = delta.clamp(-config.clip, config.clip)
    return delta.masked_fill(~inside_support(reference, highest, config), 0.0)


def inside_support(reference: Tensor, highest: Tensor, config: RatioConfig) -> Tensor:
    """Whether tokens lie inside q's support: arguments as in `token_rewards`."""
    counts = torch.ones_like(reference, dtype=torch.bool)
    if config.support is not None:
        counts &= reference > config.support
    if config.min_p is not None:
        counts &= reference >= highest + math.log(config.min_p)
    return counts
