"""How much of what the SFT policy says lies where the initial policy never goes.

Tokens outside pi_0's support are habits of the demonstrator, or knowledge that pi_0 lacks; either
way a ratio of likelihoods cannot tell what they are worth. Their share of KL(SFT || pi_0) measures
how heterogeneous demonstrator and initial policy are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from demoalign.evaluation.measured import Array
from demoalign.intervals import bootstrap_ratio
from demoalign.policies.policy import SFT
from demoalign.records import Metric

TOKENS = "fraction of tokens"
LOG_RATIO = "fraction of the log-ratio, i.e. of KL(SFT || initial)"


@dataclass(frozen=True, slots=True)
class Support:
    """The SFT policy's M samples of P prompts and the initial policy's support, (P, M) each.

    Attributes:
        tokens, outside: how many tokens a sample has, and how many of them lie outside.
        log_ratio, log_ratio_outside: sum of log pi_SFT - log pi_0 over all tokens, and over those
            outside, nats; NaN where it is not finite.
    """

    tokens: Array
    outside: Array
    log_ratio: Array
    log_ratio_outside: Array


def support_metrics(found: Mapping[str, Support | str], seed: int) -> list[Metric]:
    """``outside_support_tokens`` and ``outside_support_log_ratio`` of each reward in closed form.

    Args:
        found: title of the reward -> what lies outside its support, or why that is not known.
        seed: of the run.
    """
    metrics = []
    for title, support in found.items():
        if isinstance(support, str):
            parts: list[tuple[Array, Array] | str] = [support, support]
        else:
            parts = [
                (support.outside, support.tokens),
                (support.log_ratio_outside, support.log_ratio),
            ]
        for name, unit, part in zip(
            ("tokens", "log_ratio"), (TOKENS, LOG_RATIO), parts, strict=True
        ):
            metrics.append(_share(f"outside_support_{name}", title, unit, part, seed))
    return metrics


def _share(name: str, title: str, unit: str, part: tuple[Array, Array] | str, seed: int) -> Metric:
    """Ratio of sums over all samples, its interval over prompts; null with a reason if unknown."""
    reason = part if isinstance(part, str) else _unknown(*part)
    if isinstance(part, str) or reason is not None:
        return Metric(name, SFT, title, 1, None, None, 0, seed, unit, None, reason)
    outside, whole = (each.sum(axis=1) for each in part)
    value = float(outside.sum() / whole.sum())
    interval = bootstrap_ratio(outside, whole)
    return Metric(name, SFT, title, 1, value, interval, len(whole), seed, unit)


def _unknown(outside: Array, whole: Array) -> str | None:
    """Why a share cannot be told."""
    if not whole.size:
        return "no prompt was scored"
    lost = int((~np.isfinite(outside) | ~np.isfinite(whole)).sum())
    if lost:
        return f"the log-ratio of {lost} of {whole.size} samples is not a finite number"
    total = float(whole.sum())
    if total <= 0:
        return f"the samples' sum is {total:.3g}, and of a sum not above 0 no share can be told"
    return None
