"""Watching a training on prompts that it does not learn from: when to stop, and what to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from demoalign.config import CheckConfig
from demoalign.intervals import bootstrap_mean

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Check:
    """What the policy says on the held-out prompts after some rounds.

    Attributes:
        round: how many rounds it has learned; 0 is the policy that training began with.
        means: measure -> mean over the answers; None if it is not known.
        watched: (P,) mean of each prompt's answers of what decides: the witness's view, or the
            objective E[r] - beta KL; None where it is not known. Empty if nothing decides.
        ci95: measure -> 95 % interval of its mean over prompts, of those that every answer has.
    """

    round: int
    means: Mapping[str, float | None]
    watched: Sequence[float | None] = field(default_factory=tuple)
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def why_stop(checks: Sequence[Check], config: CheckConfig, what: str) -> str | None:
    """Why training should stop after these checks; None if it should go on.

    Args:
        checks: in order, the first of round 0.
        config: the rules' numbers.
        what: what is watched, for the words.
    """
    last = checks[-1]
    return _refused(checks[0], last, config) or _fall(
        checks[best_check(checks, config)], last, what
    )


def best_check(checks: Sequence[Check], config: CheckConfig) -> int:
    """The place of the best check: the latest that is better, beyond chance, than the best before.

    Better is a higher mean of what is watched, paired by prompt, with a 95 % interval above 0. If
    nothing is watched the last check is the best. One that is refused, for collapse or distance,
    never is, nor one whose greedy answers loop.
    """
    best = 0
    for place in range(1, len(checks)):
        first, found = checks[0], checks[place]
        if _refused(first, found, config) is not None or _loops(first, found, config):
            continue
        gains = _gains(checks[best], checks[place])
        if gains is None or (len(gains) > 1 and bootstrap_mean(gains)[0] > 0):
            best = place
    return best


def _gains(before: Check, after: Check) -> Array | None:
    """(P,) of what is watched, of the prompts that both know; None if nothing is watched."""
    if not len(before.watched) or not len(after.watched):
        return None
    gains = _numbers(after) - _numbers(before)
    return gains[np.isfinite(gains)]


def _refused(first: Check, last: Check, config: CheckConfig) -> str | None:
    return _collapse(first, last, config) or _too_far(last, config)


def _collapse(first: Check, last: Check, config: CheckConfig) -> str | None:
    for measure in ("entropy", "distinct"):
        if (found := _fallen(first, last, measure, config.collapse)) is not None:
            return f"collapse: {measure} {found}"
    before, now = first.means.get("cut"), last.means.get("cut")
    if before is not None and now is not None and now > before + config.collapse:
        return f"collapse: {now:.0%} of answers do not end, {before:.0%} did before"
    return None


def _fallen(first: Check, last: Check, measure: str, share: float) -> str | None:
    before, now = first.means.get(measure), last.means.get(measure)
    if before is None or now is None or now >= share * before:
        return None
    return f"fell to {now:.3g} from {before:.3g}, below {share:g} of it"


def _loops(first: Check, last: Check, config: CheckConfig) -> bool:
    """Whether greedy answers repeat themselves: not to be kept, but it may pass."""
    return _fallen(first, last, "greedy_distinct", config.collapse) is not None


def _too_far(last: Check, config: CheckConfig) -> str | None:
    found = last.means.get("kl")
    if config.kl is not None and found is not None and found > config.kl:
        return f"KL to the reference: {found:.3g} nats an answer, more than check.kl {config.kl:g}"
    return None


def _fall(best: Check, last: Check, what: str) -> str | None:
    """Whether what is watched has fallen from its best, paired by prompt."""
    gains = _gains(best, last)
    if last is best or gains is None or len(gains) < 2:
        return None
    known = -gains
    low, high = bootstrap_mean(known)
    if low <= 0:
        return None
    return (
        f"over-optimisation: {what} has fallen by {known.mean():.3g} [{low:.3g}, {high:.3g}] since "
        f"round {best.round}"
    )


def _numbers(check: Check) -> Array:
    return np.array([np.nan if v is None else v for v in check.watched], dtype=np.float64)


def distinct_pairs(texts: Sequence[str]) -> float:
    """Share of pairs of neighbouring words, over all texts, that are different ones."""
    pairs = [pair for text in texts for pair in pairwise(text.split())]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def distinct_within(texts: Sequence[str]) -> float | None:
    """The same of each text by itself, and the mean: low where texts say things over and over.

    Texts of fewer than two words do not count; None if there are no others.
    """
    shares = [distinct_pairs([text]) for text in texts if len(text.split()) > 1]
    return sum(shares) / len(shares) if shares else None
