"""Agreement of a student with its teacher, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from demoalign.rewards.agreement import agreement_metrics, explained_variance, rank_correlation

TEACHER = np.array([1.0, 2.0, 3.0, 3.0, 1.0, 2.0, 5.0, 5.0])
STUDENT = np.array([0.0, 4.0, 2.0, 9.0, 8.0, 7.0, 1.0, 2.0])
PROMPTS = ["a", "a", "a", "b", "b", "b", "c", "c"]


def test_correlations_and_explained_variance_by_hand() -> None:
    within, across, explained = agreement_metrics("s", "t", STUDENT, TEACHER, PROMPTS, 3)
    # a: ranks 1 2 3 and 1 3 2, rho 0.5; b: 3 1 2 and 3 2 1, rho 0.5; c: the teacher has a tie
    assert within.value == pytest.approx(0.5)
    assert within.count == 2
    assert across.value == pytest.approx(spearmanr(STUDENT, TEACHER).statistic)
    errors = TEACHER - STUDENT
    wanted = 1 - ((errors - errors.mean()) ** 2).sum() / ((TEACHER - TEACHER.mean()) ** 2).sum()
    assert explained.value == pytest.approx(wanted)
    assert [each.metric for each in (within, across, explained)] == [
        "heldout_teacher_correlation_within",
        "heldout_teacher_correlation_across",
        "heldout_teacher_r2",
    ]
    for each in (within, across, explained):
        assert (each.policy, each.selector, each.n, each.seed) == ("none", "s", 1, 3)
        assert each.against == "none/t/1"
        assert each.reason is None
        assert each.ci95 is not None
    assert (across.count, explained.count) == (3, 3)


def test_a_constant_between_them_does_not_count() -> None:
    for each in agreement_metrics("s", "t", TEACHER - 40, TEACHER, PROMPTS, 0):
        assert each.value == pytest.approx(1)
        assert each.ci95 == pytest.approx((1, 1))


def test_what_is_not_defined_is_missing_with_a_reason() -> None:
    for student, teacher in ((np.ones(8), TEACHER), (STUDENT, np.full(8, 0.1))):
        found = agreement_metrics("s", "t", student, teacher, PROMPTS, 0)
        assert [each.value for each in found[:2]] == [None, None]
        assert {each.reason for each in found[:2]} == {
            "the scores of held-out completions do not vary"
        }
        assert (found[2].value is None) == (teacher is not TEACHER)
    assert explained_variance(np.ones(8), TEACHER) == 0
    assert np.isnan(rank_correlation(np.ones(1), np.ones(1)))
