"""Attention over a shared prefix and a suffix, against softmax over all keys at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from demoalign.errors import ModelError
from demoalign.policies.branches import Branches
from demoalign.policies.prefix_attention import (
    NAME,
    Part,
    PrefixCache,
    attend,
    merge,
    shared_prefix_attention,
    sharing_prefixes,
)
from tests.models import make_model, make_tokenizer

KV_HEADS, HEADS, WIDTH = 2, 4, 6
SCALE = 0.7


def plain(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, softcap: float | None = None
) -> Tensor:
    """Attention in float64 with one softmax; 0 where nothing may be seen."""
    scores = query.double() @ key.double().transpose(-1, -2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1).nan_to_num(0.0)
    return weights @ value.double()


def halves(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, cut: int) -> list[Part]:
    return [
        attend(query, key[..., part, :], value[..., part, :], hidden[..., part], None)
        for part in (slice(None, cut), slice(cut, None))
    ]


def random_attention(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, 2, size, WIDTH, generator=generator, dtype=dtype) for size in (5, 9, 9)
    )
    hidden = torch.rand(3, 1, 5, 9, generator=generator) < 0.4
    hidden[..., -1] = False
    return query, key, value, hidden


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_two_parts_are_merged_to_the_whole(dtype: torch.dtype, cut: int) -> None:
    query, key, value, hidden = random_attention(dtype)
    first, second = halves(query, key, value, hidden, cut)
    wanted = plain(query, key, value, hidden)
    found = merge(first, second)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    first, second = halves(query, key, value, hidden, cut)
    torch.testing.assert_close(merge(second, first), found)


@pytest.mark.parametrize("offset", [-2e4, -300.0, 300.0, 2e4])
def test_scores_may_be_large(offset: float) -> None:
    """A query's scores of all keys move by the same number: the weights stay."""
    query, key, value, hidden = random_attention()
    query[..., 0], key[..., 0] = 1.0, 0.0
    wanted = plain(query, key, value, hidden)
    key[..., 0] = offset
    found = merge(*halves(query, key, value, hidden, 4))
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), wanted, atol=2e-2 * abs(offset) / 2e4, rtol=1e-3)


@pytest.mark.parametrize("gap", [-500.0, 500.0])
def test_one_part_may_outweigh_the_other(gap: float) -> None:
    query, key, value, hidden = random_attention()
    query[..., 0], key[..., 0] = 1.0, 0.0
    key[..., :4, 0] = gap
    hidden[..., 0] = False
    found = merge(*halves(query, key, value, hidden, 4))
    torch.testing.assert_close(
        found.double(), plain(query, key, value, hidden), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("cut", [4, 8])
def test_a_part_of_which_nothing_is_seen_counts_nothing(cut: int) -> None:
    query, key, value, hidden = random_attention()
    query = query * 50  # scores far below zero, too
    hidden[:, :, 2:4, :cut] = True
    first, second = halves(query, key, value, hidden, cut)
    assert (first.total[:, :, 2:4] == 0).all()
    found = merge(first, second)
    torch.testing.assert_close(
        found.double(), plain(query, key, value, hidden), atol=1e-4, rtol=1e-4
    )


# The function that transformers calls


@dataclass
class Group:
    """Random keys, values and queries of some rows, `before` tokens of which are there already."""

    lengths: list[int]
    owner: list[int]
    before: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        rows, end = len(self.owner), self.before + self.count
        self.prefix = [self.random(len(self.lengths), KV_HEADS, max(self.lengths)) for _ in "kv"]
        self.suffix = [self.random(rows, KV_HEADS, end) for _ in "kv"]
        self.query = self.random(rows, HEADS, self.count)
        self.held = Branches(
            [(self.prefix[0], self.prefix[1])], torch.tensor(self.lengths), torch.tensor(self.owner)
        )
        if self.before:
            self.held.append(0, *(each[:, :, : self.before] for each in self.suffix))
            self.held.advance(self.before)

    def random(self, rows: int, heads: int, tokens: int) -> Tensor:
        return torch.randn(rows, heads, tokens, WIDTH, generator=self.generator)

    @property
    def new(self) -> tuple[Tensor, Tensor]:
        return self.suffix[0][:, :, self.before :], self.suffix[1][:, :, self.before :]

    def wanted(self, window: int | None, softcap: float | None) -> Tensor:
        """(n, C, H, D), row by row over the row's own keys."""
        found = []
        for row, owner in enumerate(self.owner):
            length = self.lengths[owner]
            key, value = (
                torch.cat([prefix[owner, :, :length], suffix[row]], dim=1)
                for prefix, suffix in zip(self.prefix, self.suffix, strict=True)
            )
            queries = torch.arange(length + self.before, key.shape[1])[:, None]
            keys = torch.arange(key.shape[1])
            hidden = keys > queries
            if window is not None:
                hidden = hidden | (keys <= queries - window)
            key, value = (each.repeat_interleave(HEADS // KV_HEADS, 0) for each in (key, value))
            found.append(plain(self.query[row] * SCALE, key, value, hidden, softcap))
        return torch.stack(found).transpose(1, 2)


def attention(groups: list[Group], **settings: Any) -> Tensor:
    cache = PrefixCache([group.held for group in groups])
    keys, values = (torch.cat(each) for each in zip(*(g.new for g in groups), strict=True))
    cache.update(keys, values, 0)
    query = torch.cat([group.query for group in groups])
    found, nothing = shared_prefix_attention(
        None, query, keys, values, None, scaling=SCALE, **settings
    )
    assert nothing is None
    return found


@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 100])
@pytest.mark.parametrize("count", [1, 4])
def test_it_is_attention_over_all_keys(
    count: int, window: int | None, softcap: float | None
) -> None:
    """Uneven prompts and owners, several groups; small windows hide whole prompts."""
    groups = [
        Group([5, 2, 7], [1, 0, 0, 2, 1, 0], 3, count, 1),
        Group([4], [0, 0, 0], 0, count, 2),
        Group([3, 3], [0, 0, 1, 1], 9, count, 3),
        Group([1, 6], [1, 1], 1, count, 4),
    ]
    found = attention(groups, sliding_window=window, softcap=softcap)
    wanted = torch.cat([group.wanted(window, softcap) for group in groups])
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("window", [None, 2, 5])
def test_prompts_are_read_causally(window: int | None, softcap: float | None) -> None:
    group = Group([6, 6, 6], [0, 1, 2], 0, 6)
    group.lengths = [0, 0, 0]
    read = Branches(None, torch.tensor([6, 4, 2]), torch.arange(3))
    group.held = read
    found = attention([group], sliding_window=window, softcap=softcap)
    torch.testing.assert_close(found.double(), group.wanted(window, softcap), atol=1e-5, rtol=1e-4)


def test_the_scale_is_one_over_the_root_of_the_width_if_none_is_given() -> None:
    group = Group([5, 2], [0, 1, 1], 2, 1)
    group.query = group.query * SCALE * WIDTH**0.5
    cache = PrefixCache([group.held])
    cache.update(*group.new, 0)
    found, _ = shared_prefix_attention(None, group.query, *group.new, None)
    group.query = group.query / SCALE / WIDTH**0.5
    torch.testing.assert_close(found.double(), group.wanted(None, None), atol=1e-5, rtol=1e-4)


def test_what_it_does_not_know_is_refused() -> None:
    group = Group([3], [0, 0], 0, 1)
    with pytest.raises(ModelError, match=r"cannot be used here \(found \['s_aux'\]\)"):
        attention([group], s_aux=torch.zeros(HEADS))
    with pytest.raises(ModelError, match="cannot be used here"):
        attention([group], position_bias=torch.zeros(1))
    cache = PrefixCache([group.held])
    cache.update(*group.new, 0)
    with pytest.raises(ModelError, match="cannot be used here"):
        shared_prefix_attention(None, group.query, *group.new, torch.zeros(1))
    attention([group])
    with pytest.raises(ModelError, match="cannot be used here"):  # each update is read once
        shared_prefix_attention(None, group.query, *group.new, None)


def test_a_model_uses_it_only_inside_the_block() -> None:
    model = make_model("llama", make_tokenizer("bos"))
    before = model.config._attn_implementation
    with sharing_prefixes(model):
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == before
    with pytest.raises(KeyError), sharing_prefixes(model):
        raise KeyError
    assert model.config._attn_implementation == before
