"""Which reward to trust in this run, by how much was learned outside pi_0's support. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demoalign.report.read import RunResults
from demoalign.report.rewards import recipe_reward_models
from demoalign.report.stored import text_of
from demoalign.report.words import in_order, write, write_measured

LOW, HIGH = 0.25, 0.5
"""Shares of the log-ratio outside the support at which the advice changes.

In the closed-form study worlds without habits, or with habits that the initial policy knows, lay
below 0.2, and all others above 0.85 (docs/closed-form.md); nothing was seen in between.
"""

TOKENS, LOG_RATIO = "outside_support_tokens", "outside_support_log_ratio"
UNBOUNDED = "for the log-ratio as a whole cannot be told from 0"
Level = Literal["low", "medium", "high"]
LABELS: dict[Level, str] = {
    "low": "Little was learned outside the support",
    "medium": "Habits seem to be learned as well",
    "high": "Most was learned outside the support",
}
TEXTS: dict[Level, str] = {
    "low": (
        "That is low heterogeneity. In the embedded world the reward in closed form, init-sft and "
        "extrapolated decoding were then all of use. It says nothing of habits that the initial "
        "policy has itself, such as small talk: read some answers."
    ),
    "medium": (
        "That suggests that habits of the demonstrator are being learned. Rather use the reward "
        "in closed form with its support limits, or extrapolated decoding; be wary of rewards "
        "trained against the initial policy, which may reward the habits."
    ),
    "high": (
        "So most of what fine-tuning changed lies where the initial policy hardly ever goes: "
        "habits, or new knowledge, and nothing measured here tells which. In the embedded world "
        "trained init-sft was then worse than greedy decoding; extrapolated decoding with support: "
        "auto gained in both cases; choosing by the reward in closed form gained where it was "
        "habits and lost where it was knowledge. Compare with greedy decoding on examples."
    ),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What the measured heterogeneity suggests.

    Attributes:
        label: the advice in a few words.
        measured: the shares, in a sentence.
        text: what follows from them.
        caution: how sure that is.
        reason: why nothing is known; None if something is, and the texts are empty otherwise.
    """

    label: str = ""
    measured: str = ""
    text: str = ""
    caution: str = ""
    reason: str | None = None


def level_of(share: float) -> Level:
    """The class of a share of the log-ratio."""
    return "low" if share < LOW else "medium" if share <= HIGH else "high"


def measuring_reward(run: RunResults) -> str | None:
    """The first reward in closed form that compares the SFT policy with the initial one."""
    found = {m.selector for m in run.metrics if m.metric == LOG_RATIO and m.policy == "sft"}
    sections = dict(recipe_reward_models(run))
    others = {
        name
        for name, section in sections.items()
        if text_of(section.get("negatives"), "initial") != "initial"
    }
    named = [name for name in sections if name in found - others]
    return next(iter([*named, *in_order(found - others)]), None)


def give_advice(run: RunResults) -> Advice | None:
    """The advice for a run; None where nothing of the kind was to be measured."""
    name = measuring_reward(run)
    if name is None:
        return None
    share, tokens = run.find(LOG_RATIO, "sft", name), run.find(TOKENS, "sft", name)
    if share is None or share.value is None:
        why = share.reason if share is not None else None
        return Advice(reason=why or "no reason was stored")
    if share.ci95 is None:
        return Advice(reason=f"{write(share.value, 'percent')} has no interval, {UNBOUNDED}")
    measured = (
        f"Of the log-ratio between the SFT policy and the initial policy, "
        f"{write_measured(share, 'percent')} lies at tokens outside the initial policy's support"
    )
    if tokens is not None and tokens.value is not None:
        measured += f", which are {write_measured(tokens, 'percent')} of the SFT policy's tokens"
    level = level_of(share.value)
    caution = (
        f"The advice changes at {write(LOW, 'percent')} and {write(HIGH, 'percent')}: preliminary "
        "limits from small worlds, a rule of thumb and no proof for other data."
    )
    if len({level, *map(level_of, share.ci95)}) > 1:
        caution = f"The interval reaches across a limit, so take this as a hint. {caution}"
    return Advice(LABELS[level], f"{measured} (seen by {name}).", TEXTS[level], caution)
