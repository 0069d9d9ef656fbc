"""Attention of many branches that continue the same prompts, each prompt's keys held once.

softmax over [prefix | suffix] is computed in two parts, each with its own maximum m, sum of
exponentials l and weighted values o, and merged by log-sum-exp:

    out = (o_1 exp(m_1 - m) + o_2 exp(m_2 - m)) / (l_1 exp(m_1 - m) + l_2 exp(m_2 - m))

with m = max(m_1, m_2). The prefix part is one matrix product for all branches of a prompt. The
function is registered with transformers' attention interface, so that every architecture which
uses that interface can decode, score and prefill with it; `PrefixCache` stands in for the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demoalign.errors import ModelError
from demoalign.policies.branches import Branches

NAME = "demoalign_shared_prefix"
_FLOOR = -1e30
"""Maximum of a row that may see nothing: keeps exp(-inf - m) at 0 instead of NaN."""

_local = threading.local()


class Part(NamedTuple):
    """Attention over some of the keys, before normalisation: o (..., D), m and l (..., 1)."""

    values: Tensor
    maximum: Tensor
    total: Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, softcap: float | None
) -> Part:
    """Unnormalised attention.

    Args:
        query: (..., M, D), scaled.
        key, value: (..., T, D).
        hidden: True where a query may not look; broadcasts to (..., M, T).
        softcap: scores s become c tanh(s / c).
    """
    precision = torch.promote_types(query.dtype, torch.float32)
    scores = torch.matmul(query, key.transpose(-1, -2)).to(precision)
    if softcap is not None:
        scores = torch.tanh_(scores / softcap).mul_(softcap)
    if hidden is not None:
        scores = scores.masked_fill_(hidden, float("-inf"))
    maximum = scores.amax(-1, keepdim=True)
    if hidden is not None:
        maximum = maximum.clamp(min=_FLOOR)
    weights = scores.sub_(maximum).exp_()
    values = torch.matmul(weights.to(value.dtype), value)
    return Part(values.to(precision), maximum, weights.sum(-1, keepdim=True))


def merge(first: Part, second: Part) -> Tensor:
    """(..., D) attention over the keys of both parts."""
    top = torch.maximum(first.maximum, second.maximum)
    one, two = (first.maximum - top).exp_(), (second.maximum - top).exp_()
    total = first.total * one + second.total * two
    return (first.values * one).addcmul_(second.values, two).div_(total)


class PrefixCache:
    """Stands where transformers expects a cache: gives each branch its keys and values.

    The rows of a forward pass are those of the groups, one group after the other.
    """

    is_compileable = False

    def __init__(self, groups: Sequence[Branches]) -> None:
        self.groups = groups

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append one layer's new keys and values (B, heads, C, D); attention follows at once."""
        start = 0
        for group in self.groups:
            rows = slice(start, start + group.rows)
            group.append(layer_idx, key[rows], value[rows])
            start += group.rows
        _local.cache, _local.layer = self, layer_idx
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not asked for where position ids are given."""
        return 0

    def advance(self, tokens: int) -> None:
        """Count the tokens that a whole forward pass has appended."""
        for group in self.groups:
            group.advance(tokens)


def shared_prefix_attention(
    _module: Any,
    query: Tensor,
    _key: Tensor,
    _value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (B, H, C, D) queries -> (B, C, H, D)."""
    unknown = [name for name in ("s_aux", "position_bias") if extra.get(name) is not None]
    cache = getattr(_local, "cache", None)
    if unknown or cache is None or attention_mask is not None:
        raise ModelError(f"shared-prefix attention: cannot be used here (found {unknown})")
    _local.cache = None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts, start = [], 0
    for group in cache.groups:
        rows = query[start : start + group.rows]
        start += group.rows
        parts.append(_attend_group(rows, group, _local.layer, scale, sliding_window, softcap))
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.to(query.dtype).transpose(1, 2).contiguous(), None


@contextmanager
def sharing_prefixes(model: Any) -> Iterator[None]:
    """Have a transformers model use `shared_prefix_attention` while the block runs."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prefix_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend_group(
    query: Tensor,
    group: Branches,
    layer: int,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """(n, H, C, D) float32 attention of one group's rows over their prompt and themselves."""
    n, heads, count, width = query.shape
    keys, values = group.suffix(layer, group.length + count)
    kv_heads = keys.shape[1]
    repeat = heads // kv_heads
    if group.prefix is None and window is None and softcap is None:
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            keys.repeat_interleave(repeat, 1) if repeat > 1 else keys,
            values.repeat_interleave(repeat, 1) if repeat > 1 else values,
            is_causal=True,
            scale=scale,
        )
    scaled = (query * scale).reshape(n, kv_heads, repeat * count, width)
    own = attend(scaled, keys, values, group.hides_suffix(count, repeat, window), softcap)
    if group.prefix is None:
        return (own.values / own.total).reshape(n, heads, count, -1)
    grid = group.to_grid(scaled)
    prefix_keys, prefix_values = group.prefix[layer]
    hidden = group.hides_prefix(count, grid.shape[2] // count, window)
    shared = attend(grid, prefix_keys, prefix_values, hidden, softcap)
    part = Part(*(group.from_grid(each, repeat * count) for each in shared))
    return merge(part, own).reshape(n, heads, count, -1)
