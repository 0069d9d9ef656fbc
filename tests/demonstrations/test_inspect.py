"""The summary of a data set, with every number counted by hand."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from demoalign.demonstrations import DataSummary, Lengths, inspect, too_long
from demoalign.errors import Problem
from demoalign.records import Demonstration

CHAT = [{"role": "user", "content": "abc"}, {"role": "user", "content": "de"}]
ROWS = [
    Demonstration("1", "a", "x y"),
    Demonstration("2", "a", "x y"),
    Demonstration("3", "a", "z"),
    Demonstration("4", "b b b", "z"),
    Demonstration("5", CHAT, "1 2 3 4"),
]


def words(row: Demonstration) -> tuple[int, int]:
    prompt = row.prompt if isinstance(row.prompt, str) else "one two"
    return len(prompt.split()), len(row.completion.split())


def test_counts_and_lengths() -> None:
    found = inspect(ROWS)
    assert found == DataSummary(
        rows=5,
        distinct_prompts=3,
        exact_duplicates=1,
        conflicting_prompts=1,
        chat=1,
        text=4,
        prompt_characters=Lengths(1, 1, 5, 5, 5),
        completion_characters=found.completion_characters,
    )
    assert found.completion_characters is not None
    # Sorted: 1 1 3 3 7. The 0.95 quantile lies 3.8 of 4 steps along: 3 + 0.8 * (7 - 3).
    assert astuple(found.completion_characters) == pytest.approx((1, 3, 6.2, 6.84, 7))


def test_tokens_and_limits() -> None:
    found = inspect(ROWS, words, max_prompt_tokens=2, max_completion_tokens=1)
    assert found.prompt_tokens is not None
    assert astuple(found.prompt_tokens) == pytest.approx((1, 1, 2.8, 2.96, 3))
    assert found.completion_tokens is not None
    assert found.completion_tokens.maximum == 4
    assert (found.prompts_too_long, found.completions_too_long) == (1, 3)
    assert inspect(ROWS, words).prompts_too_long is None


def test_nothing_has_no_lengths() -> None:
    found = inspect([])
    assert (found.rows, found.prompt_characters) == (0, None)


def test_prompts_that_are_too_long() -> None:
    assert too_long(ROWS, words, 2) == [
        Problem("4", "prompt: at most 2 tokens (max_prompt_tokens), found 3")
    ]
