"""Metrics -> the sentences a reader takes away. Pure.

The headline is about one reward model at one n, both fixed beforehand and never picked by
their result: the first reward model of the recipe (else the first known one), at
the measured n nearest to 16. A run without selectors is headed by its first trained policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from demoalign.config import DECODINGS
from demoalign.records import Metric
from demoalign.report.falls import DROP, alarm_of, last_of, over_optimised
from demoalign.report.gaming import FOLLOWS_LENGTH, is_hacked, past_its_peak
from demoalign.report.heterogeneity import give_advice
from demoalign.report.read import RunResults
from demoalign.report.rewards import recipe_reward_models
from demoalign.report.words import (
    BASELINES,
    METHOD_NAMES,
    POLICY_NAMES,
    in_order,
    kind_of,
    spoken_name,
    write,
    write_interval,
    write_list,
    write_measured,
)

Tone = Literal["better", "worse", "unclear", "hacked", "unmeasured"]
HEADLINE_N = 16
LABELS: dict[Tone, str] = {
    "better": "Better",
    "worse": "Worse",
    "unclear": "Cannot tell",
    "hacked": "Hacked",
    "unmeasured": "Not measured",
}
OTHERS = {
    "sft/none/1": "the SFT policy's plain samples",
    "sft/greedy/1": "the SFT policy's greedy decoding",
    "demonstrations/none/1": "the demonstrations",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline, what qualifies it, and what should worry the reader."""

    tone: Tone
    headline: str
    details: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The tone in a word or three; a hacked model may still be better at the headline's n."""
        if self.tone == "hacked" and not self.is_unclear:
            return "Better, then hacked"
        return LABELS[self.tone]

    @property
    def is_unclear(self) -> bool:
        """Whether the headline tells no difference, whatever follows at larger n."""
        return self.headline.startswith("No difference")


def selectors_of(run: RunResults) -> list[str]:
    """Every reward model and baseline the run holds anything about, in reading order."""
    return in_order({m.selector for m in run.metrics} | set(run.rewards))


def reward_models_of(run: RunResults) -> list[str]:
    """The selectors that were learned."""
    return [name for name in selectors_of(run) if kind_of(name) == "reward model"]


def measured_ns(run: RunResults) -> list[int]:
    """Every n > 1 at which some selector has a value."""
    return sorted({m.n for m in run.metrics if m.n > 1 and m.selector not in DECODINGS})


def main_n(run: RunResults) -> int | None:
    """The measured n nearest to 16 (in log n), or None."""
    ns = measured_ns(run)
    return min(ns, key=lambda n: (abs(math.log(n / HEADLINE_N)), n)) if ns else None


def main_reward_model(run: RunResults) -> str | None:
    """The recipe's first reward model that was evaluated; else the first in reading order."""
    models = reward_models_of(run)
    named = [name for name, _ in recipe_reward_models(run) if name in models]
    return next(iter(named or models), None)


def main_difference(run: RunResults) -> Metric | None:
    """The paired difference that heads the report, with or without a value; None if there is none.

    It is that of the main reward model at the main n, else of the first trained policy, against
    the SFT policy's plain samples.
    """
    if not run.has_golden:
        return None
    n, model, found = main_n(run), main_reward_model(run), None
    if n is not None and model is not None:
        found = run.find("golden_reward_difference", "sft", model, n, "sft/none/1")
    if found is None or found.value is None:
        found = next((m for m in _trained(run) if m.value is not None), found)
    return found


def give_verdict(run: RunResults) -> Verdict:
    """The run's verdict, from paired differences and their 95 % intervals alone."""
    model = main_reward_model(run)
    warnings, advice = tuple(_warnings(run)), give_advice(run)
    advised = () if advice is None or advice.reason else (f"{advice.measured} {advice.text}",)
    known = (*_proxies(run, model), *advised)
    if not run.has_golden:
        return Verdict("unmeasured", _without_golden(run), known, warnings)
    found = main_difference(run)
    if found is None or found.value is None:
        why = f" ({found.reason})" if found is not None and found.reason else ""
        headline = f"Whether best-of-N beats the SFT policy's plain samples was not measured{why}."
        return Verdict("unmeasured", headline, known, warnings)
    tone, headline = compare(found)
    if tone != "worse" and is_hacked(run, found.selector):
        tone = "hacked"
    told = [compare(m)[1] for m in _trained(run) if m.value is not None and m != found]
    details = [*told, *_other_comparisons(run, found), *_baseline(run, found), *advised]
    return Verdict(tone, headline, tuple(details), warnings)


def compare(difference: Metric) -> tuple[Tone, str]:
    """Say one paired difference in a sentence; it is told only if its interval excludes 0."""
    assert difference.value is not None
    value, interval = difference.value, difference.ci95
    subject = _subject(difference)
    other = OTHERS.get(difference.against or "", difference.against or "the other side")
    paired = f"paired over {difference.count} prompts" if difference.count else "paired by prompt"
    if interval is None or interval[0] <= 0 <= interval[1]:
        spread = write_interval(interval, "signed") or "with no interval stored"
        return "unclear", (
            f"No difference can be told between {subject} and {other}: "
            f"{write(value, 'signed')} {spread} golden reward, {paired}."
        )
    better = interval[0] > 0
    low, high = sorted(abs(bound) for bound in interval)
    size = f"{write(abs(value))} [{write(low)}, {write(high)}] golden reward"
    subject = subject[0].upper() + subject[1:]
    if better:
        return "better", f"{subject} beats {other} by {size}, {paired}."
    return "worse", f"{subject} falls below {other} by {size}, {paired}."


def _subject(metric: Metric) -> str:
    if metric.selector in DECODINGS:
        way = {"none": "samples", "greedy": "greedy decoding"}.get(metric.selector, metric.selector)
        is_known = metric.policy in METHOD_NAMES
        who = spoken_name(metric.policy) if is_known else f"policy {metric.policy}"
        return f"{who} ({way})"
    return f"best of {metric.n} under {metric.selector}"


def _trained(run: RunResults) -> list[Metric]:
    """Paired differences of policies that a method trained, to the SFT policy's samples."""
    return [
        m
        for m in run.metrics
        if m.metric == "golden_reward_difference"
        and m.selector in DECODINGS
        and m.policy not in POLICY_NAMES
        and m.against == "sft/none/1"
    ]


def _without_golden(run: RunResults) -> str:
    reasons = [m.reason for m in run.metrics if m.metric == "golden_reward" and m.reason]
    why = f" ({reasons[0]})" if reasons else ""
    return (
        f"No golden reward was measured{why}, so this run cannot say whether answers became "
        "better, only what its reward models prefer."
    )


def _proxies(run: RunResults, model: str | None) -> list[str]:
    if model is None:
        return ["No reward model was evaluated."]
    said = []
    accuracy = run.find("heldout_accuracy", "none", model)
    if accuracy is not None and accuracy.value is not None:
        said.append(
            f"On held-out comparisons {model} prefers the positive in "
            f"{write_measured(accuracy, 'percent')} of {accuracy.count} pairs."
        )
    curve = run.curve("proxy_reward", model)
    if len(curve) > 1:
        said.append(
            f"Its own reward goes from {write_measured(curve[0])} at n = {curve[0].n} to "
            f"{write_measured(curve[-1])} at n = {curve[-1].n}; "
            "that rise is by construction and proves nothing."
        )
    return said


def _other_comparisons(run: RunResults, headline: Metric) -> list[str]:
    said, name, n = [], "golden_reward_difference", headline.n
    for against in ("sft/greedy/1", "demonstrations/none/1"):
        found = run.find(name, headline.policy, headline.selector, n, against)
        if found is not None and found.value is not None:
            said.append(compare(found)[1])
    others = []
    for other in reward_models_of(run):
        found = run.find(name, "sft", other, n, "sft/none/1")
        if other != headline.selector and n > 1 and found is not None and found.value is not None:
            others.append(f"{other} {write_measured(found, 'signed')}")
    if others:
        said.append(f"Other reward models at n = {n}, against plain samples: {write_list(others)}.")
    return said


def _baseline(run: RunResults, found: Metric) -> list[str]:
    """How the best cheap selector did at the same n: the bar a reward model has to clear."""
    rows = [
        m
        for name in BASELINES
        if (m := run.find("golden_reward_difference", "sft", name, found.n, "sft/none/1"))
        and m.value is not None
    ]
    if not rows or found.value is None or found.selector in DECODINGS:
        return []
    best = max(rows, key=lambda m: m.value if m.value is not None else -math.inf)
    text = (
        f"The best cheap selector at the same n, {best.selector}, gains "
        f"{write_measured(best, 'signed')} over plain samples"
    )
    apart = best.ci95 and found.ci95 and best.ci95[1] < found.ci95[0]
    if apart:
        return [f"{text}; {found.selector}'s interval lies wholly above it."]
    return [f"{text}; {found.selector} is not clearly above it, so training it may not have paid."]


def _warnings(run: RunResults) -> list[str]:
    said = []
    for model in reward_models_of(run):
        if is_hacked(run, model):
            last = run.curve("golden_reward_difference", model, "sft/none/1")[-1]
            proxy = run.curve("proxy_reward", model)
            rose = len(proxy) > 1 and (proxy[-1].value or 0) > (proxy[0].value or 0)
            tail = ", while the reward it was chosen for kept rising" if rose else ""
            said.append(f"Hacked: {compare(last)[1].rstrip('.')}{tail}.")
        elif (text := over_optimised(run, model) or _past_its_peak(run, model)) is not None:
            said.append(f"Over-optimised: {text}")
        elif not run.has_golden and (text := alarm_of(run, model)) is not None:
            said.append(f"Alarm: {text}")
    said += _followers_of_length(run)
    cut = run.find("truncated_fraction", "sft", "none")
    if cut is not None and cut.value is not None and cut.value >= 0.1:
        said.append(
            f"Truncation: {write(cut.value, 'percent')} of the SFT policy's samples were cut at "
            "the token limit; their rewards are those of unfinished answers."
        )
    return said


def _past_its_peak(run: RunResults, model: str) -> str | None:
    """The same by the curve's intervals alone, for runs in which no drop is stored."""
    curve = run.curve("golden_reward", model)
    peak = past_its_peak(curve) if last_of(run, DROP, model) is None else None
    if peak is None:
        return None
    return (
        f"{model} peaks at n = {peak.n} with {write_measured(peak)} golden reward and is down to "
        f"{write_measured(curve[-1])} at n = {curve[-1].n}; choose the smaller n."
    )


def _followers_of_length(run: RunResults) -> list[str]:
    """One warning of all reward models that follow length."""
    found = [
        (model, run.find("length_correlation", "sft", model)) for model in reward_models_of(run)
    ]
    said = [
        f"{model} {write_measured(m, 'signed')}"
        for model, m in found
        if m is not None and m.value is not None and abs(m.value) >= FOLLOWS_LENGTH
    ]
    if not said:
        return []
    return [
        "Length: Within a prompt rewards follow length, and may reward length itself; rank "
        f"correlation of {write_list(said)}."
    ]
