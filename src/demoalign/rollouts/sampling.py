"""From logits to tokens: pure tensor functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 64
"""Tokens whose mass is added up before the cumulative sum: most of the work of the inverse CDF."""

FIRST_TOP = 64
"""Likeliest tokens that are looked at first for a nucleus; four times as many if too few."""


class Draw(NamedTuple):
    """Sampled tokens, all (B,).

    Attributes:
        tokens: ids.
        logprobs: log-probability (nats) under the logits themselves.
        sampling_logprobs: under the distribution that was sampled from.
    """

    tokens: Tensor
    logprobs: Tensor
    sampling_logprobs: Tensor


@dataclass(frozen=True, slots=True)
class Truncation:
    """What is done to the model's distribution before a token is drawn from it.

    Order as in transformers: temperature, then top-k, top-p and min-p. Tokens as likely as the
    last one that is kept are kept too.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float | None = None

    @property
    def is_none(self) -> bool:
        """Whether the distribution is the model's own."""
        is_whole = self.top_k is None and self.top_p >= 1 and self.min_p is None
        return self.temperature == 1 and is_whole


def draw(
    logits: Tensor, uniforms: Tensor, truncation: Truncation, banned: Tensor | None = None
) -> Draw:
    """Draw one token a row by inverse CDF.

    Args:
        logits: (B, V).
        uniforms: (B,) in [0, 1), float64.
        truncation: temperature, top-k, top-p, min-p.
        banned: (B, V) True where a token may not be drawn; its mass goes to the others.
    """
    logits = logits.float()
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    total = weights.sum(-1, dtype=torch.float64)
    if truncation.is_none and banned is None:
        tokens = inverse_cdf(weights, uniforms)
        logprobs = _picked(logits, tokens) - top.squeeze(-1).double() - total.log()
        return Draw(tokens, logprobs, logprobs)
    cut = weights
    if banned is not None or truncation.temperature != 1:  # anew: what is left may be tiny beside
        allowed = logits if banned is None else logits.masked_fill(banned, float("-inf"))
        cut = (allowed - allowed.amax(-1, keepdim=True)).div_(truncation.temperature).exp_()
    cut = truncate(cut, truncation.top_k, truncation.top_p, truncation.min_p)
    tokens = inverse_cdf(cut, uniforms)
    logprobs = _picked(logits, tokens) - top.squeeze(-1).double() - total.log()
    sampling = _picked(cut, tokens).log() - cut.sum(-1, dtype=torch.float64).log()
    return Draw(tokens, logprobs, sampling)


def greedy(logits: Tensor, banned: Tensor | None = None) -> Draw:
    """The likeliest token of each row; its sampling log-probability is 0."""
    logits = logits.float()
    allowed = logits if banned is None else logits.masked_fill(banned, float("-inf"))
    tokens = allowed.argmax(-1)
    logprobs = _picked(logits, tokens) - logits.logsumexp(-1).double()
    return Draw(tokens, logprobs, torch.zeros_like(logprobs))


def truncate(
    weights: Tensor, top_k: int | None, top_p: float, min_p: float | None = None
) -> Tensor:
    """Keep the likeliest tokens and set the others to 0.

    Args:
        weights: (B, V) unnormalised probabilities.
        top_k: how many, None for all.
        top_p: then the fewest whose share of what is left reaches this; 1 keeps all.
        min_p: then those at least this many times as likely as the likeliest; None for all.

    Returns:
        (B, V) unnormalised; nothing is sorted beyond the tokens that are kept.
    """
    if top_k is not None and top_k < weights.shape[-1]:
        least = weights.topk(top_k, dim=-1).values[:, -1:]
        weights = weights.masked_fill(weights < least, 0.0)
    if top_p < 1:
        weights = _nucleus(weights, top_p)
    if min_p is not None:
        weights = weights.masked_fill(weights < min_p * weights.amax(-1, keepdim=True), 0.0)
    return weights


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    wanted = top_p * weights.sum(-1, dtype=torch.float64, keepdim=True)
    size = min(FIRST_TOP, weights.shape[-1])
    while True:
        ordered = weights.topk(size, dim=-1).values
        reached = ordered.double().cumsum(-1)
        if size == weights.shape[-1] or bool((reached[:, -1:] >= wanted).all()):
            break
        size = min(4 * size, weights.shape[-1])
    before = reached - ordered.double()
    count = (before < wanted).sum(-1, keepdim=True)
    return weights.masked_fill(weights < ordered.gather(-1, count - 1), 0.0)


def inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Sample one token a row: the first whose cumulative weight exceeds u times the whole.

    The mass of blocks of tokens is searched first, then the block.

    Args:
        weights: (B, V) unnormalised probabilities, float32.
        uniforms: (B,) in [0, 1).

    Returns:
        (B,) ids; a token of weight 0 is never taken.
    """
    rows, size = weights.shape
    whole = size // BLOCK * BLOCK
    blocks = [weights[:, :whole].reshape(rows, -1, BLOCK).sum(-1)]
    if whole < size:
        blocks.append(weights[:, whole:].sum(-1, keepdim=True))
    reached = torch.cat(blocks, dim=-1).double().cumsum(-1)
    wanted = uniforms.double()[:, None] * reached[:, -1:]
    block = _first_above(reached, wanted)
    places = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    inside = weights.gather(-1, places.clamp(max=size - 1)).masked_fill(places >= size, 0.0)
    before = torch.where(block > 0, reached.gather(-1, (block - 1).clamp(min=0)), 0.0)
    step = _first_above(inside.double().cumsum(-1), wanted - before)
    return (block * BLOCK + step).squeeze(-1)


def _first_above(reached: Tensor, wanted: Tensor) -> Tensor:
    """(B, 1) first place whose cumulative sum exceeds what is wanted, else the last that adds."""
    place = torch.searchsorted(reached, wanted, right=True)
    last = torch.searchsorted(reached, reached[:, -1:].contiguous())
    return torch.minimum(place, last)


def _picked(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens[:, None]).squeeze(-1).double()
