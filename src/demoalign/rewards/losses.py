"""Losses of reward models: pure functions of logits, in nats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

MINIMUM_DEVIATION = 1e-3
_UNIT = 0.5413248546129181
"""softplus(_UNIT) = 1: a variance head that outputs 0 means a standard deviation of 1."""


def bce(positives_B: Tensor, negatives_B: Tensor) -> Tensor:
    """Discriminator loss, Eq. 11: positives are one, negatives are zero.

    Args:
        positives_B: (B,) logits of positives; the logit is the reward (Eq. 12).
        negatives_B: (B,) logits of negatives.

    Returns:
        Mean over the 2B completions of -log D and -log(1-D).
    """
    return (softplus(-positives_B).mean() + softplus(negatives_B).mean()) / 2


def bradley_terry(positives_B: Tensor, negatives_B: Tensor) -> Tensor:
    """Eq. 16, and ML-IRL Eq. 11: -log sigmoid(r(x,y+) - r(x,y-)), mean over pairs.

    Args:
        positives_B: (B,) rewards of y+.
        negatives_B: (B,) rewards of y- for the same prompts.
    """
    return softplus(negatives_B - positives_B).mean()


def bradley_terry_variance(
    positives_B: Tensor, negatives_B: Tensor, deviations_pos_B: Tensor, deviations_neg_B: Tensor
) -> Tensor:
    """Eq. 15: -log sigmoid((r+ - r-) / sqrt((V+^2 + V-^2) / 2)), mean over pairs.

    Args:
        positives_B: (B,) rewards of y+.
        negatives_B: (B,) rewards of y-.
        deviations_pos_B: (B,) V(x,y+) > 0, how hard y+ is to evaluate.
        deviations_neg_B: (B,) V(x,y-) > 0.

    Returns:
        Scalar; with V = 1 everywhere it is Eq. 16.
    """
    scale = ((deviations_pos_B**2 + deviations_neg_B**2) / 2).sqrt()
    return softplus((negatives_B - positives_B) / scale).mean()


def squared_error(
    positives_B: Tensor, negatives_B: Tensor, targets_pos_B: Tensor, targets_neg_B: Tensor
) -> Tensor:
    """Distillation: mean over the 2B completions of (r(x,y) - t(x,y))^2.

    Args:
        positives_B: (B,) the student's rewards of positives.
        negatives_B: (B,) of negatives.
        targets_pos_B: (B,) what the teacher says of the positives, on the student's scale.
        targets_neg_B: (B,) of the negatives.
    """
    errors = (positives_B - targets_pos_B).square(), (negatives_B - targets_neg_B).square()
    return (errors[0].mean() + errors[1].mean()) / 2


def deviation(raw_B: Tensor) -> Tensor:
    """V of Eq. 15 from the variance head's raw output: positive, 1 where the output is 0."""
    return softplus(raw_B + _UNIT).clamp(min=MINIMUM_DEVIATION)


def pair_loss(
    name: str, positives: tuple[Tensor, Tensor | None], negatives: tuple[Tensor, Tensor | None]
) -> Tensor:
    """The loss called ``name`` on (rewards, raw variances or None) of positives and negatives."""
    if name == "bradley_terry_variance":
        if positives[1] is None or negatives[1] is None:
            raise ValueError("bradley_terry_variance needs the variance head's output")
        return bradley_terry_variance(
            positives[0], negatives[0], deviation(positives[1]), deviation(negatives[1])
        )
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "bce": bce,
        "bradley_terry": bradley_terry,
    }
    return losses[name](positives[0], negatives[0])


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Expected calibration error: mean |confidence - frequency| over equal-mass bins.

    Args:
        probabilities: (M,) predicted probability of label 1.
        labels: (M,) 0 or 1.
        bins: how many groups of about equal size.
    """
    order = probabilities.argsort(stable=True)
    total = torch.zeros((), dtype=torch.float64)
    for group in order.tensor_split(bins):
        if len(group):
            gap = probabilities[group].double().mean() - labels[group].double().mean()
            total += gap.abs() * len(group) / len(order)
    return float(total)
