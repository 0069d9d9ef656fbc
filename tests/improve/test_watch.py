"""When a training stops, and which of its policies is kept."""

from __future__ import annotations

from typing import Any

import pytest

from demoalign.config import CheckConfig
from demoalign.improve.watch import Check, best_check, distinct_pairs, distinct_within, why_stop

RULES = CheckConfig(kl=20)
WELL: dict[str, float | None] = {
    "entropy": 1.0,
    "distinct": 0.5,
    "greedy_distinct": 0.9,
    "cut": 0.1,
    "kl": 3.0,
}


def check(number: int, *watched: float | None, **means: Any) -> Check:
    return Check(number, WELL | means, watched)


def test_it_goes_on_while_nothing_falls() -> None:
    checks = [check(0, 1.0, 2.0, 3.0), check(10, 1.5, 2.4, 3.1), check(20, 1.6, 2.6, 3.2)]
    assert [why_stop(checks[: n + 1], RULES, "it") for n in range(3)] == [None] * 3
    assert best_check(checks, RULES) == 2


def test_it_stops_at_a_fall_that_cannot_be_chance() -> None:
    best = check(10, *(2.0 + 0.1 * (i % 3) for i in range(20)))
    fallen = check(20, *(1.5 + 0.1 * (i % 5) for i in range(20)))
    checks = [check(0, *([1.0] * 20)), best, fallen]
    reason = why_stop(checks, RULES, "the reward witness")
    assert reason is not None
    assert reason.startswith("over-optimisation: the reward witness has fallen by 0.395 [")
    assert "since round 10" in reason
    assert best_check(checks, RULES) == 1


def test_a_fall_within_chance_is_none() -> None:
    checks = [check(0, 1.0, 5.0, 0.0, 2.0), check(10, 3.0, 1.0, 2.0, 1.9)]
    assert why_stop(checks, RULES, "it") is None
    assert best_check(checks, RULES) == 0


def test_a_gain_within_chance_is_none() -> None:
    checks = [check(0, 1.0, 5.0, 0.0, 2.0), check(10, 6.0, 1.0, 2.0, 1.9)]
    assert why_stop(checks, RULES, "it") is None
    assert best_check(checks, RULES) == 0


def test_prompts_without_a_value_do_not_count() -> None:
    checks = [check(0, 1.0, None, 1.0, 2.0), check(10, None, 2.0, 1.2, 2.5)]
    assert why_stop(checks, RULES, "it") is None
    assert best_check(checks, RULES) == 1


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ({"entropy": 0.3}, "collapse: entropy fell to 0.3 from 1, below 0.6 of it"),
        ({"distinct": 0.1}, "collapse: distinct fell to 0.1 from 0.5"),
        ({"cut": 0.8}, "collapse: 80% of answers do not end, 10% did before"),
        ({"kl": 21.0}, "KL to the reference: 21 nats an answer, more than check.kl 20"),
    ],
)
def test_collapses_by_name(means: dict[str, float], said: str) -> None:
    checks = [check(0, 1.0), check(10, 9.0, **means)]
    found = why_stop(checks, RULES, "it")
    assert found is not None
    assert best_check(checks, RULES) == 0
    assert said in found


def test_a_policy_whose_greedy_answers_loop_is_not_kept_but_goes_on() -> None:
    """They may stop looping: then it is kept."""
    checks = [check(0, 1.0, 2.0), check(10, 2.0, 3.0, greedy_distinct=0.5)]
    assert why_stop(checks, RULES, "it") is None
    assert best_check(checks, RULES) == 0
    checks.append(check(20, 2.1, 3.1, greedy_distinct=0.8))
    assert why_stop(checks, RULES, "it") is None
    assert best_check(checks, RULES) == 2


def test_without_anything_to_watch_the_last_is_kept() -> None:
    checks = [check(0), check(10), check(20)]
    assert best_check(checks, RULES) == 2
    assert why_stop(checks, RULES, "it") is None


def test_distinct_pairs_within_texts() -> None:
    """What texts have in common is no repetition; what each says twice is."""
    assert distinct_within(["a b c", "a b c"]) == 1.0
    assert distinct_within(["a b a b a", "a b c", "one", ""]) == pytest.approx((2 / 4 + 1) / 2)
    assert distinct_within(["one", ""]) is None


def test_distinct_pairs() -> None:
    assert distinct_pairs(["a b a b", "c"]) == pytest.approx(2 / 3)
    assert distinct_pairs([""]) == 0.0
