"""How far a distilled reward says what its teacher says, on prompts that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from demoalign.intervals import bootstrap_groups, bootstrap_mean
from demoalign.records import Metric

Array = NDArray[np.float64]
Estimate = tuple[float, tuple[float, float] | None]
"""A value, NaN if it is not defined, and its 95 % interval."""

WITHIN = "Spearman correlation within a prompt"
ACROSS = "Spearman correlation over all completions"
EXPLAINED = "share of the teacher's variance, up to a constant"


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's correlation of two (B,) vectors; NaN if one of them does not vary."""
    a, b = rankdata(first), rankdata(second)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def explained_variance(student: Array, teacher: Array) -> float:
    """R^2 = 1 - Var(t - s) / Var(t) of (B,) scores, whatever constant lies between them.

    1 is perfect, 0 as good as a student that says one number of everything; below 0 is worse. NaN
    if the teacher does not vary.
    """
    if teacher.min() == teacher.max():
        return float("nan")
    return float(1 - (teacher - student).var() / teacher.var())


def agreement_metrics(
    name: str,
    teacher_name: str,
    student: Array,
    teacher: Array,
    prompts: Sequence[str],
    seed: int,
) -> list[Metric]:
    """Rank correlation within and across prompts, and R^2, with intervals over prompts.

    Args:
        name, teacher_name: of the two rewards.
        student, teacher: (B,) their scores of the same held-out completions.
        prompts: (B,) id of each completion's prompt; prompts are what intervals resample.
        seed: the run's.
    """
    by_prompt: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(number)
    each = np.array([rank_correlation(student[r], teacher[r]) for r in by_prompt.values()])
    each = each[np.isfinite(each)]
    inside = (float(each.mean()), bootstrap_mean(each)) if len(each) else (float("nan"), None)

    def over_all(statistic: Callable[[Array, Array], float]) -> Estimate:
        return statistic(student, teacher), bootstrap_groups(
            prompts, lambda rows: statistic(student[rows], teacher[rows])
        )

    found: list[tuple[str, Estimate, int, str]] = [
        ("correlation_within", inside, len(each), WITHIN),
        ("correlation_across", over_all(rank_correlation), len(by_prompt), ACROSS),
        ("r2", over_all(explained_variance), len(by_prompt), EXPLAINED),
    ]
    return [
        _metric(f"heldout_teacher_{what}", name, teacher_name, estimate, count, seed, unit)
        for what, estimate, count, unit in found
    ]


def _metric(
    metric: str,
    name: str,
    teacher_name: str,
    estimate: Estimate,
    count: int,
    seed: int,
    unit: str,
) -> Metric:
    value, interval = estimate
    against = f"none/{teacher_name}/1"
    if not np.isfinite(value):
        reason = "the scores of held-out completions do not vary"
        return Metric(metric, "none", name, 1, None, None, 0, seed, unit, against, reason)
    return Metric(metric, "none", name, 1, value, interval, count, seed, unit, against)
