"""Shares outside the support of three prompts with two samples each, computed by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from demoalign.evaluation.heterogeneity import Support, support_metrics
from demoalign.intervals import bootstrap_ratio
from demoalign.records import Metric

SUPPORT = Support(
    tokens=np.array([[10.0, 6.0], [4.0, 0.0], [8.0, 12.0]]),
    outside=np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]),
    log_ratio=np.array([[5.0, -1.0], [6.0, 0.0], [2.0, 8.0]]),
    log_ratio_outside=np.array([[3.0, 0.0], [5.0, 0.0], [0.0, 4.0]]),
)


def shares(support: Support | str) -> tuple[Metric, Metric]:
    tokens, log_ratio = support_metrics({"exact": support}, seed=5)
    assert (tokens.metric, log_ratio.metric) == (
        "outside_support_tokens",
        "outside_support_log_ratio",
    )
    for each in (tokens, log_ratio):
        assert (each.policy, each.selector, each.n, each.seed) == ("sft", "exact", 1, 5)
        assert each.against is None
    assert tokens.unit == "fraction of tokens"
    assert log_ratio.unit == "fraction of the log-ratio, i.e. of KL(SFT || initial)"
    return tokens, log_ratio


def test_shares_are_ratios_of_sums_with_intervals_over_prompts() -> None:
    tokens, log_ratio = shares(SUPPORT)
    assert tokens.value == pytest.approx(4 / 40)
    wanted = bootstrap_ratio(np.array([1.0, 2.0, 1.0]), np.array([16.0, 4.0, 20.0]))
    assert tokens.ci95 == wanted
    assert log_ratio.value == pytest.approx(12 / 20)
    wanted = bootstrap_ratio(np.array([3.0, 5.0, 4.0]), np.array([4.0, 6.0, 10.0]))
    assert log_ratio.ci95 == wanted
    assert (tokens.count, log_ratio.count, tokens.reason) == (3, 3, None)


def test_nothing_outside_is_zero_and_measured() -> None:
    none = np.zeros((3, 2))
    tokens, log_ratio = shares(dataclasses.replace(SUPPORT, outside=none, log_ratio_outside=none))
    assert (tokens.value, tokens.ci95) == (0, (0, 0))
    assert (log_ratio.value, log_ratio.ci95) == (0, (0, 0))


@pytest.mark.parametrize("total", [0.0, -1.0])
def test_two_equal_policies_have_no_share(total: float) -> None:
    tokens, log_ratio = shares(dataclasses.replace(SUPPORT, log_ratio=np.full((3, 2), total)))
    assert tokens.value == pytest.approx(0.1)
    assert (log_ratio.value, log_ratio.ci95, log_ratio.count) == (None, None, 0)
    assert (log_ratio.reason or "").startswith(f"the samples' sum is {6 * total:.3g}, and of")


def test_a_log_ratio_that_is_no_number_is_not_left_out_silently() -> None:
    spoiled = SUPPORT.log_ratio.copy()
    spoiled[1, 1] = math.nan
    tokens, log_ratio = shares(dataclasses.replace(SUPPORT, log_ratio=spoiled))
    assert tokens.value == pytest.approx(0.1)
    assert log_ratio.value is None
    assert log_ratio.reason == "the log-ratio of 1 of 6 samples is not a finite number"


def test_a_whole_that_may_be_zero_leaves_the_share_without_interval() -> None:
    ratio = np.array([[5.0, -1.0], [-6.0, 0.0], [2.0, 8.0]])
    _, log_ratio = shares(dataclasses.replace(SUPPORT, log_ratio=ratio))
    assert log_ratio.value == pytest.approx(12 / 8)
    assert log_ratio.ci95 is None


def test_no_prompts_and_reasons() -> None:
    empty = np.zeros((0, 2))
    for found, reason in (
        (Support(empty, empty, empty, empty), "no prompt was scored"),
        ("the reward has no limit of support", "the reward has no limit of support"),
    ):
        for each in shares(found):
            assert (each.value, each.ci95, each.count, each.reason) == (None, None, 0, reason)


def test_nothing_in_closed_form_has_no_metrics() -> None:
    assert support_metrics({}, 0) == []
