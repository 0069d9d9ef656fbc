"""How much of one distribution another covers, and how much of that one belongs to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ANGLES = 1001
WEIGHT = 8.0
"""How many times recall weighs what precision does, and the other way round."""


def precision_and_recall(
    model: Mapping[str, float], reference: Mapping[str, float]
) -> tuple[float, float]:
    """Precision and recall of distributions (Sajjadi et al., 2018, Eq. 4 and 5 and their F_8).

    For a slope l the precision is sum_i min(l p_i, q_i) and the recall that divided by l, with q
    the model and p the reference. Of the curve that all slopes give, F_1/8 stands for precision
    and F_8 for recall. A model that holds one mode of many is precise and recalls little; one that
    says more than the reference does recalls all and is less precise.

    Args:
        model, reference: what may be said -> how often, in any unit.

    Returns:
        Precision and recall in [0, 1]; NaN if either distribution is empty.
    """
    outcomes = sorted({*model, *reference})
    q = np.array([model.get(each, 0.0) for each in outcomes])
    p = np.array([reference.get(each, 0.0) for each in outcomes])
    if not q.sum() or not p.sum():
        return float("nan"), float("nan")
    p, q = p / p.sum(), q / q.sum()
    slopes = np.tan(np.linspace(0, np.pi / 2, ANGLES + 2)[1:-1])
    precision = np.minimum(slopes[:, None] * p, q).sum(axis=1)
    recall = precision / slopes

    def best(weight: float) -> float:
        square = weight**2
        bottom = square * precision + recall
        scores = (1 + square) * precision * recall / np.where(bottom > 0, bottom, 1.0)
        return float(scores.max().clip(0, 1))

    return best(1 / WEIGHT), best(WEIGHT)
