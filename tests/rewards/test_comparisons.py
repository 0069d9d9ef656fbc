"""Pairs from sources."""

from __future__ import annotations

import math

import pytest

from demoalign.errors import DataError
from demoalign.records import Demonstration, Preference, Prompt, Rollout
from demoalign.rewards.comparisons import (
    Answer,
    Comparison,
    answers_of_demonstrations,
    answers_of_rollouts,
    drawn_again,
    hold_out,
    label_pairs,
    pair_preferences,
    pair_sources,
)

PROMPTS: dict[str, Prompt] = {"a": "A?", "b": "B?", "c": "C?"}


def answers(*texts: str) -> list[Answer]:
    return [Answer(text) for text in texts]


def texts_of(pairs: list[Comparison]) -> list[tuple[str, str, str]]:
    return [(p.prompt_id, p.positive.completion, p.negative.completion) for p in pairs]


def test_answers_meet_cyclically() -> None:
    positives = {"a": answers("1", "2"), "b": answers("3"), "c": answers("4")}
    negatives = {"a": answers("x", "y", "z"), "b": answers("v", "w"), "other": answers("u")}
    assert texts_of(pair_sources(PROMPTS, positives, negatives)) == [
        ("a", "1", "x"),
        ("a", "2", "y"),
        ("a", "1", "z"),
        ("b", "3", "v"),
        ("b", "3", "w"),
    ]
    swapped = texts_of(pair_sources(PROMPTS, negatives, positives))
    assert swapped[:3] == [("a", "x", "1"), ("a", "y", "2"), ("a", "z", "1")]
    assert pair_sources(PROMPTS, positives, negatives)[0].prompt == "A?"


def test_no_shared_prompt_is_an_error() -> None:
    with pytest.raises(DataError, match="positives and negatives must share prompts, found none"):
        pair_sources(PROMPTS, {"a": answers("1")}, {"b": answers("2"), "a": []})


def test_sources_from_records() -> None:
    rollouts = [
        Rollout(f"a/sft/{i}", "a", i, f"r{i}", [1], -1.0, "length" if i else "stop", "sft", 0)
        for i in range(2)
    ]
    assert answers_of_rollouts(rollouts) == {"a": [Answer("r0", True), Answer("r1", False)]}
    rows = [Demonstration("a", "A?", "d"), Demonstration("b", "B?", "e")]
    assert answers_of_demonstrations(rows) == {"a": answers("d"), "b": answers("e")}
    pairs = pair_preferences([Preference("a", "A?", "good", "bad")])
    assert pairs == [Comparison("a", "A?", Answer("good"), Answer("bad"))]


def test_a_bootstrap_sample_has_whole_prompts() -> None:
    answer = Answer("yes")
    pairs = [Comparison(f"p{i // 2}", "Q", answer, answer) for i in range(20)]
    drawn = drawn_again(pairs, seed=0)
    assert len(drawn) == 20
    assert all(drawn.count(2 * i) == drawn.count(2 * i + 1) for i in range(10))
    assert 2 < len(set(drawn)) / 2 < 10
    assert drawn == drawn_again(pairs, seed=0) != drawn_again(pairs, seed=1)
    shares = [len(set(drawn_again(pairs, seed))) / 20 for seed in range(400)]
    assert sum(shares) / 400 == pytest.approx(1 - 0.9**10, abs=0.02)


def test_hold_out_is_by_prompt_and_by_seed() -> None:
    pairs = [Comparison(f"p{i % 20}", "P", Answer(str(i)), Answer("no", False)) for i in range(100)]
    training, held = hold_out(pairs, 0.25, seed=0)
    assert sorted(training + held, key=str) == sorted(pairs, key=str)
    assert len({p.prompt_id for p in held}) == 5
    assert not {p.prompt_id for p in held} & {p.prompt_id for p in training}
    assert hold_out(pairs[::-1], 0.25, seed=0)[1] == held[::-1]
    assert hold_out(pairs, 0.25, seed=1)[1] != held
    assert len(hold_out(pairs[:2], 0.001, 0)[1]) == len(hold_out(pairs[:2], 0.999, 0)[0]) == 1
    with pytest.raises(DataError, match="needs at least 2 prompts to hold some out, found 1"):
        hold_out(pairs[:1], 0.5, 0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("gap", [-1.0, 0.0, 1.5])
def test_simulated_annotators_follow_the_sigmoid(gap: float, temperature: float) -> None:
    count = 4000
    pairs = [Comparison(str(i), "P", Answer("first"), Answer("second")) for i in range(count)]
    labelled = label_pairs(pairs, [(gap + 3, 3.0)] * count, 5, temperature)
    share = sum(pair.positive.completion == "first" for pair in labelled) / count
    wanted = 1 / (1 + math.exp(-gap / temperature))
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / count)
    assert {(p.positive.completion, p.negative.completion) for p in labelled} == {
        ("first", "second"),
        ("second", "first"),
    }
    assert label_pairs(pairs, [(gap + 3, 3.0)] * count, 5, temperature) == labelled
    assert label_pairs(pairs, [(gap + 3, 3.0)] * count, 6, temperature) != labelled


def test_large_gaps_leave_no_doubt() -> None:
    pairs = [Comparison(str(i), "P", Answer("first"), Answer("second")) for i in range(50)]
    golden = [(900.0, -900.0), (-900.0, 900.0)] * 25
    labelled = label_pairs(pairs, golden, 0)
    assert [p.positive.completion for p in labelled] == ["first", "second"] * 25
