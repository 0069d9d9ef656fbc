"""From logits to tokens: pure tensor functions."""

from __future__ import annotations

import torch
from torch import Tensor


def restrict_top_p(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose mass reaches ``top_p``; renormalise.

    Args:
        probabilities: (B, V), each row sums to 1.
        top_p: in (0, 1]; 1 keeps everything.
    """
    if top_p >= 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return kept / kept.sum(-1, keepdim=True)


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Sample one token a row: the first whose cumulative probability exceeds u.

    Args:
        probabilities: (B, V), each row sums to about 1.
        uniforms: (B,) in [0, 1).

    Returns:
        (B,) ids; a token of probability 0 is never taken.
    """
    cumulative = probabilities.double().cumsum(-1)
    thresholds = uniforms.double()[:, None] * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1)
    last = (probabilities > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(picked, last)
