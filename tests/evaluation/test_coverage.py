"""Precision and recall of distributions against what can be said by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from demoalign.evaluation.coverage import precision_and_recall

MODES = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}


def f_score(weight: float, precision: float, recall: float) -> float:
    return (1 + weight**2) * precision * recall / (weight**2 * precision + recall)


def test_the_same_distribution_in_another_unit() -> None:
    found = precision_and_recall({"a": 0.2, "b": 0.6}, {"a": 10.0, "b": 30.0})
    assert found == pytest.approx((1, 1), abs=1e-5)


def test_nothing_in_common() -> None:
    assert precision_and_recall({"a": 1.0}, {"b": 1.0}) == (0, 0)


def test_one_mode_of_four_is_precise_and_recalls_a_quarter() -> None:
    precision, recall = precision_and_recall({"a": 1.0}, MODES)
    assert precision == pytest.approx(f_score(1 / 8, 1, 0.25), abs=1e-3)
    assert recall == pytest.approx(f_score(8, 1, 0.25), abs=1e-3)
    assert precision > 0.9
    assert recall < 0.26


def test_saying_more_than_the_reference_recalls_all() -> None:
    one, other = precision_and_recall({"a": 1.0}, MODES), precision_and_recall(MODES, {"a": 1.0})
    assert other == pytest.approx(one[::-1], abs=1e-3)


def test_the_best_of_the_curve_by_brute_force() -> None:
    random = np.random.default_rng(0)
    p, q = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(6))
    names = "abcdef"
    found = precision_and_recall(dict(zip(names, q, strict=True)), dict(zip(names, p, strict=True)))
    curve = [
        (sum(min(slope * a, b) for a, b in zip(p, q, strict=True)), slope)
        for slope in np.exp(np.linspace(-8, 8, 20001))
    ]
    for weight, value in zip((1 / 8, 8), found, strict=True):
        best = max(f_score(weight, alpha, alpha / slope) for alpha, slope in curve)
        assert value == pytest.approx(best, abs=1e-3)


def test_nothing_said_is_unknown() -> None:
    assert all(math.isnan(each) for each in precision_and_recall({}, MODES))
    assert all(math.isnan(each) for each in precision_and_recall(MODES, {"a": 0.0}))
