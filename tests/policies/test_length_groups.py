"""Batches of rows of like length."""

from __future__ import annotations

import random

from demoalign.policies.length_groups import POOL_BATCHES, LengthGroups

LENGTHS = random.Random(0).choices(range(5, 101), k=333)


def batches(order: LengthGroups, size: int) -> list[list[int]]:
    rows = list(order)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def padded(groups: list[list[int]]) -> int:
    return sum(len(group) * max(LENGTHS[row] for row in group) for group in groups)


def test_every_row_once_and_the_short_batch_last() -> None:
    groups = batches(LengthGroups(LENGTHS, 8, seed=0), 8)
    assert sorted(row for group in groups for row in group) == list(range(333))
    assert [len(group) for group in groups] == [8] * 41 + [5]


def test_little_is_padded() -> None:
    tokens = sum(LENGTHS)
    assert padded(batches(LengthGroups(LENGTHS, 8, seed=0), 8)) < 1.15 * tokens
    assert padded([list(range(i, min(i + 8, 333))) for i in range(0, 333, 8)]) > 1.5 * tokens


def test_short_and_long_batches_are_mixed() -> None:
    groups = batches(LengthGroups(LENGTHS, 8, seed=0), 8)[:-1]
    longest = [max(LENGTHS[row] for row in group) for group in groups[: 2 * POOL_BATCHES]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_an_epoch_has_its_own_batches_and_they_come_back() -> None:
    order = LengthGroups(LENGTHS, 8, seed=0)
    first = batches(order, 8)
    assert batches(order, 8) == first
    order.set_epoch(1)
    second = batches(order, 8)
    assert {frozenset(group) for group in first}.isdisjoint(map(frozenset, second))
    again = LengthGroups(LENGTHS, 8, seed=0)
    again.set_epoch(1)
    assert batches(again, 8) == second
    assert batches(LengthGroups(LENGTHS, 8, seed=1), 8) != first


def test_a_whole_number_of_batches() -> None:
    groups = batches(LengthGroups(LENGTHS[:32], 8, seed=3), 8)
    assert [len(group) for group in groups] == [8] * 4
