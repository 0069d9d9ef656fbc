"""Keys and values of branches: appended, dropped, laid out and masked, against plain lists."""

from __future__ import annotations

import random

import pytest
import torch

from demoalign.policies.branches import LIVE_SHARE, SPARE, Branches, Layers

LAYERS, HEADS, WIDTH = 2, 3, 4
LENGTHS = [5, 2, 7, 3]
OWNER = [2, 0, 0, 3, 2, 2, 0, 1]


def prefix_of(lengths: list[int], generator: torch.Generator) -> Layers:
    shape = (len(lengths), HEADS, max(lengths), WIDTH)
    return [
        (torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))
        for _ in range(LAYERS)
    ]


def branches(lengths: list[int], owner: list[int], seed: int = 0) -> Branches:
    prefix = prefix_of(lengths, torch.Generator().manual_seed(seed))
    return Branches(prefix, torch.tensor(lengths), torch.tensor(owner))


class Naive:
    """The same, each row with lists of its own."""

    def __init__(self, held: Branches) -> None:
        assert held.prefix is not None
        self.prompts = [
            [(k[o, :, :n], v[o, :, :n]) for k, v in held.prefix]
            for o, n in ((o, int(held.lengths[o])) for o in held.owner.tolist())
        ]
        self.layers: list[list[list[tuple[torch.Tensor, torch.Tensor]]]] = [
            [[] for _ in range(LAYERS)] for _ in range(held.rows)
        ]

    def check(self, held: Branches) -> None:
        assert held.prefix is not None
        assert len(self.layers) == held.rows == len(held.owner)
        for row, (prompt, layers) in enumerate(zip(self.prompts, self.layers, strict=True)):
            owner = int(held.owner[row])
            length = int(held.lengths[owner])
            for layer, parts in enumerate(layers):
                for both in (0, 1):
                    known = held.prefix[layer][both][owner, :, :length]
                    assert torch.equal(known, prompt[layer][both])
                    if parts:
                        found = held.suffix(layer, held.length)[both][row]
                        wanted = torch.cat([part[both] for part in parts], dim=1)
                        assert torch.equal(found, wanted)


def append(held: Branches, naive: Naive, tokens: int, generator: torch.Generator) -> None:
    for layer in range(LAYERS):
        shape = (held.rows, HEADS, tokens, WIDTH)
        keys = torch.randn(shape, generator=generator)
        values = torch.randn(shape, generator=generator)
        held.append(layer, keys, values)
        for row in range(held.rows):
            naive.layers[row][layer].append((keys[row], values[row]))
    held.advance(tokens)


def drop(held: Branches, naive: Naive, dead: list[bool]) -> None:
    order = held.drop(torch.tensor(dead)).tolist()
    assert sorted(order) == [row for row, gone in enumerate(dead) if not gone]
    naive.layers = [naive.layers[row] for row in order]
    naive.prompts = [naive.prompts[row] for row in order]


@pytest.mark.parametrize("seed", range(12))
def test_random_appends_and_drops_against_lists(seed: int) -> None:
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    prompts = choose.randint(1, 5)
    lengths = [choose.randint(1, 9) for _ in range(prompts)]
    owner = [choose.randrange(prompts) for _ in range(choose.randint(1, 12))]
    held = branches(lengths, owner, seed)
    naive = Naive(held)
    naive.check(held)
    while held.rows:
        append(held, naive, choose.choice([1, 1, 1, 3, SPARE + 2]), generator)
        naive.check(held)
        if choose.random() < 0.6:
            share = choose.choice([0.0, 0.2, 0.5, 1.0])
            drop(held, naive, [choose.random() < share for _ in range(held.rows)])
            naive.check(held)
        if held.length > 80:
            drop(held, naive, [True] * held.rows)
    assert held.rows == 0


def test_rows_may_be_dropped_before_the_first_token() -> None:
    held = branches(LENGTHS, OWNER)
    naive, generator = Naive(held), torch.Generator().manual_seed(0)
    drop(held, naive, [True, False, False, True, False, True, False, True])
    append(held, naive, 1, generator)
    naive.check(held)


def test_prompts_without_rows_are_forgotten_once_they_are_many() -> None:
    assert LIVE_SHARE == 0.75
    held = branches([5, 9, 7, 3, 4], [0, 1, 2, 3, 4])
    naive, generator = Naive(held), torch.Generator().manual_seed(0)
    append(held, naive, 2, generator)
    whole = held.nbytes
    drop(held, naive, [False, True, False, False, False])  # 4 of 5 prompts go on
    assert held.lengths.tolist() == [5, 9, 7, 3, 4]
    naive.check(held)
    drop(held, naive, [False, True, False, False])  # 3 of 5
    naive.check(held)
    assert len(held.lengths) == 3
    assert held.prefix is not None
    assert held.prefix[0][0].shape == (3, HEADS, int(held.lengths.max()), WIDTH)
    assert held.prefix[0][0].shape[2] < 9
    assert held.nbytes < whole
    append(held, naive, SPARE, generator)
    naive.check(held)


def test_what_was_read_becomes_the_prefix_of_branches() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [4, 2, 3]
    read = Branches(None, torch.tensor(lengths), torch.arange(3))
    given = prefix_of(lengths, generator)
    for layer, (keys, values) in enumerate(given):
        read.append(layer, keys, values)
    read.advance(4)
    for found, wanted in zip(read.as_prefix(), given, strict=True):
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])
    for row, length in enumerate(lengths):
        for found, wanted in zip(read.as_prefix(row), given, strict=True):
            assert torch.equal(found[0], wanted[0][row : row + 1, :, :length])


@pytest.mark.parametrize(
    "owner", [OWNER, [0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 1, 1, 2, 2, 3, 3], [1, 1, 1], [0] * 5]
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_grid_holds_each_prompts_rows_side_by_side(owner: list[int], count: int) -> None:
    lengths = LENGTHS if max(owner) else LENGTHS[:1]
    held = branches(lengths, owner)
    rows = torch.randn(len(owner), HEADS, count, WIDTH)
    grid = held.to_grid(rows)
    assert grid.shape[:2] == (len(lengths), HEADS)
    for prompt in range(len(lengths)):
        mine = [row for row, each in enumerate(owner) if each == prompt]
        wanted = [rows[row] for row in mine]
        if wanted:
            side_by_side = torch.cat(wanted, dim=1)
            assert torch.equal(grid[prompt, :, : side_by_side.shape[1]], side_by_side)
    assert torch.equal(held.from_grid(grid, count), rows)
    assert torch.equal(held.from_grid(grid[..., :1].contiguous(), count), rows[..., :1])


# Masks


def visible(query: int, key: int, window: int | None) -> bool:
    return key <= query and (window is None or key > query - window)


def expand(mask: torch.Tensor | None, *shape: int) -> torch.Tensor:
    plain = torch.zeros(shape, dtype=torch.bool) if mask is None else mask
    return plain.expand(shape)


@pytest.mark.parametrize("window", [None, 1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4, 4, 4], [6]])
def test_masks_by_brute_force(lengths: list[int], window: int | None) -> None:
    prompts, heads, rows = len(lengths), 2, 3
    held = branches(lengths, [prompt for prompt in range(prompts) for _ in range(rows)])
    for step in (0, 1, 2, 1, 3):
        held.advance(step)
        for count in (1, 3):
            now = range(held.length, held.length + count)
            suffix = [
                [not visible(query, key, window) for key in range(held.length + count)]
                for _ in range(heads)
                for query in now
            ]
            found = held.hides_suffix(count, heads, window)
            assert expand(found, heads * count, now.stop).tolist() == suffix
            prefix = [
                [
                    [key >= length or not visible(length + query, key, window)]
                    for _ in range(rows * heads)
                    for query in now
                    for key in range(max(lengths))
                ]
                for length in lengths
            ]
            hidden = held.hides_prefix(count, rows * heads, window)
            shape = (prompts, 1, rows * heads * count, max(lengths))
            flat = torch.tensor(prefix).reshape(shape)
            assert torch.equal(expand(hidden, *shape), flat)


def test_masks_follow_the_prompts_that_are_left() -> None:
    held = branches([2, 9, 3], [0, 1, 2, 0])
    held.advance(1)
    assert held.hides_prefix(1, 2, None) is not None
    held.drop(torch.tensor([False, True, False, False]))
    hidden = held.hides_prefix(1, 2, None)
    assert hidden is not None
    assert sorted(held.lengths.tolist()) == [2, 3]
    assert hidden.sum(-1).flatten().tolist() == (3 - held.lengths).tolist()
    held.drop(torch.tensor([int(held.owner[row]) == 1 for row in range(3)]))
    assert held.hides_prefix(1, 2, None) is None
