"""How names and numbers are written for the reader. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from demoalign.config import DECODINGS
from demoalign.records import Metric

REWARD_MODELS = ("init-sft", "init-demo", "sft-demo", "preference")
BASELINES = ("length", "mean-logprob", "sequence-logprob")
ORACLE = "golden"

POLICY_NAMES = {
    "initial": "Initial policy",
    "sft": "SFT policy",
    "demonstrations": "Demonstrations",
}
METHOD_NAMES = {
    "raft": "RAFT policy",
    "rloo": "RLOO policy",
    "grpo": "GRPO policy",
    "ppo": "PPO policy",
    "adversarial": "Adversarial policy",
    "irl": "IRL policy",
}
"""Policies that a method of ``improve`` trains and that are named by it."""

STAGE_NAMES = {
    "demonstrations": "Demonstrations",
    "sft": "SFT",
    "rollouts": "Rollouts on training prompts",
    "rollouts-test": "Rollouts on test prompts",
    "best-of-n": "Best of N: scores and choices",
    "strength": "Strength of extrapolation",
    "policy": "Policy",
    "improve": "Samples of improved policies",
    "evaluation": "Evaluation",
}
STAGES_OF = {
    "reward": "Reward model",
    "baseline": "Baseline",
    "baseline-rollouts": "Samples of baseline",
    "preferences": "Preference set",
    "lm-eval": "lm-eval,",
}
"""Stages of which there is one for each name."""

Style = Literal["number", "signed", "percent", "tokens", "whole"]
Kind = Literal["reward model", "baseline", "upper bound"]


def kind_of(selector: str) -> Kind:
    """Whether a selector is learned, a cheap baseline, or the golden reward itself."""
    if selector == ORACLE:
        return "upper bound"
    return "baseline" if selector in BASELINES else "reward model"


def in_order(selectors: Iterable[str]) -> list[str]:
    """Reward models (the known ones first), then baselines, then the golden upper bound."""
    known = (*REWARD_MODELS, *BASELINES, ORACLE)
    place = {name: i for i, name in enumerate(known)}
    others = len(REWARD_MODELS) - 0.5
    return sorted(set(selectors) - set(DECODINGS), key=lambda name: (place.get(name, others), name))


def policy_name(policy: str) -> str:
    """The reader's name of a policy or source of completions."""
    return POLICY_NAMES.get(policy) or METHOD_NAMES.get(policy, policy)


def spoken_name(policy: str) -> str:
    """The name within a sentence, such as ``the adversarial policy``."""
    name = policy_name(policy)
    return f"the {name if name[:2].isupper() else name[:1].lower() + name[1:]}"


def decoded_name(policy: str, selector: str) -> str:
    """The reader's name of a policy that is decoded in some way, without choosing."""
    if selector == "none":
        return policy_name(policy)
    short = "SFT" if policy == "sft" and selector != "greedy" else policy_name(policy)
    return f"{short}, {selector}"


def stage_name(stage: str) -> str:
    """The reader's name of a stage folder."""
    kind, _, name = stage.partition("/")
    known = STAGES_OF.get(kind)
    return f"{known} {name}" if known and name else STAGE_NAMES.get(stage, stage)


def write(value: float, style: Style = "number") -> str:
    """A number with a true minus sign and as many digits as a reader can use."""
    if style == "percent":
        text = f"{100 * value:.0f}%" if abs(value) >= 0.1 or value == 0 else f"{100 * value:.1f}%"
    elif style == "whole":
        text = f"{value:.0f}"
    elif style == "tokens":
        text = f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    else:
        size = abs(value)
        digits = 0 if size >= 1000 else 1 if size >= 100 else 2
        text = f"{value:.{digits}f}"
        if float(text) == 0:
            text = f"{value:.4f}" if size >= 5e-5 else text.lstrip("-")
        if style == "signed" and not text.startswith("-") and float(text) != 0:
            text = f"+{text}"
    return text.replace("-", "\u2212")


def write_interval(ci95: tuple[float, float] | None, style: Style = "number") -> str | None:
    """``[low, high]``, or None."""
    return None if ci95 is None else f"[{write(ci95[0], style)}, {write(ci95[1], style)}]"


def write_measured(metric: Metric, style: Style = "number") -> str:
    """``value [low, high]``; the metric must have a value."""
    assert metric.value is not None
    interval = write_interval(metric.ci95, style)
    return write(metric.value, style) + (f" {interval}" if interval else "")


def write_seconds(seconds: float) -> str:
    """A duration, such as ``3 min 20 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def write_list(items: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: measured (``text``), absent (``reason``), or not applicable (neither).

    Attributes:
        text: the value, None if it is not measured.
        interval: its 95 % interval, if stored.
        reason: why it was not measured.
    """

    text: str | None = None
    interval: str | None = None
    reason: str | None = None


NOT_APPLICABLE = Cell()


def cell(metric: Metric | None, style: Style = "number") -> Cell:
    """The table cell of a metric; an absent or null one is never written as a number."""
    if metric is None:
        return Cell(reason="not stored in evaluation/results.json")
    if metric.value is None:
        return Cell(reason=metric.reason or "no reason was stored")
    return Cell(text=write(metric.value, style), interval=write_interval(metric.ci95, style))
