"""How well a reward model tells held-out positives from negatives, and how calibrated it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from demoalign.intervals import bootstrap_mean, wilson
from demoalign.records import Metric
from demoalign.rewards.comparisons import Comparison
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.losses import calibration_error
from demoalign.rewards.reward_model import RewardModel


def heldout_metrics(
    model: RewardModel | DensityRatio, comparisons: Sequence[Comparison], loss: str, seed: int
) -> list[Metric]:
    """Accuracy, log loss and calibration error on comparisons never trained on.

    Accuracy is the share of pairs whose positive scores higher, a tie counting one half. For
    ``bce`` the probability is that of each completion being a positive; for the Bradley-Terry
    losses that of the first of a pair (in both orders) being the positive.
    """
    count = len(comparisons)
    answers = [pair.positive for pair in comparisons] + [pair.negative for pair in comparisons]
    scores, deviations = model.score_with_deviation(
        [pair.prompt for pair in comparisons] * 2,
        [answer.completion for answer in answers],
        [answer.finished for answer in answers],
    )
    ups, downs = scores[:count], scores[count:]
    wins = float((ups > downs).sum() + 0.5 * (ups == downs).sum())
    if loss == "bce":
        logits = torch.from_numpy(np.concatenate([ups, downs]))
    else:
        variances = deviations**2
        gaps = (ups - downs) / np.sqrt((variances[:count] + variances[count:]) / 2)
        logits = torch.from_numpy(np.concatenate([gaps, -gaps]))
    labels = torch.cat([torch.ones(count), torch.zeros(count)]).double()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    per_pair = ((losses[:count] + losses[count:]) / 2).numpy()

    def metric(name: str, value: float, interval: tuple[float, float] | None, unit: str) -> Metric:
        return Metric(name, "none", model.name, 1, value, interval, count, seed, unit)

    return [
        metric("heldout_accuracy", wins / count, wilson(wins, count), "fraction of pairs"),
        metric("heldout_log_loss", float(per_pair.mean()), bootstrap_mean(per_pair), "nats"),
        metric(
            "heldout_calibration_error",
            calibration_error(torch.sigmoid(logits), labels),
            None,
            "probability",
        ),
    ]
