"""`RunResults` -> the page's charts, each with its title, caption and, if absent, its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demoalign.records import Metric
from demoalign.report import figures
from demoalign.report.figures import Bar, Point, Series
from demoalign.report.looks import Look, looks_of
from demoalign.report.read import SOURCES, RunResults, SourceRewards
from demoalign.report.tables import plain_rows
from demoalign.report.verdict import main_n, reward_models_of, selectors_of
from demoalign.report.words import Style, kind_of, policy_name, write, write_list, write_measured

MARKS_PER_SOURCE = 200
GOLDEN = "Golden reward, normalised (initial 0, demonstrations 1)"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its words; ``svg`` is None where there is nothing to draw, and ``caption``
    then says why.
    """

    title: str
    caption: str
    svg: str | None = None


@dataclass(frozen=True, slots=True)
class RewardCharts:
    """The charts of one reward model."""

    model: str
    histogram: Chart
    length: Chart


def looks(run: RunResults) -> Mapping[str, Look]:
    """The look of every selector in the run."""
    return looks_of(selectors_of(run))


def swatches(run: RunResults) -> Mapping[str, str]:
    """Selector -> its legend mark, as SVG."""
    return {
        name: figures.swatch(f"swatch{place}", look)
        for place, (name, look) in enumerate(looks(run).items())
    }


def _point(x: float, metric: Metric) -> Point:
    assert metric.value is not None
    return Point(x, metric.value, metric.ci95)


def policies(run: RunResults) -> Chart:
    """Mean golden reward of the policies, the demonstrations and best-of-N (the paper's Fig. 3)."""
    title, n = "Golden reward by policy", main_n(run)
    plain = [
        _bar(label, run.find("golden_reward", policy, selector), "policy")
        for policy, selector, label in plain_rows(run)
    ]
    chosen = _selector_bars(run, "golden_reward", None)
    groups = [[bar for bar in plain if bar is not None], *chosen]
    bars = [bar for group in groups for bar in group]
    if not bars:
        return Chart(title, "Not measured: the run holds no golden reward.")
    spoken = "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    svg = figures.bar_chart("policies", f"{title}: {spoken}.", groups, "Mean golden reward")
    caption = "Means over prompts; whiskers are 95% intervals."
    return Chart(
        title, caption if n is None else f"{caption} Selectors choose among n\u00a0=\u00a0{n}.", svg
    )


def gains(run: RunResults) -> Chart:
    """Paired difference of every selector to the SFT policy's plain samples."""
    title = "Gain over the SFT policy's plain samples"
    difference, rival, n = "golden_reward_difference", "sft/none/1", main_n(run)
    decoded = [
        _bar(label, run.find(difference, policy, selector, 1, rival), "policy")
        for policy, selector, label in plain_rows(run)
    ]
    chosen = _selector_bars(run, difference, rival)
    groups = [[bar for bar in decoded if bar is not None], *chosen]
    bars = [bar for group in groups for bar in group]
    if not bars:
        return Chart(title, "Not measured: the run holds no paired golden differences.")
    spoken = "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    svg = figures.forest("gains", f"{title}: {spoken}.", groups, "Difference in golden reward")
    at = "" if n is None else f" Selectors choose among n\u00a0=\u00a0{n}."
    caption = f"Paired by prompt, with 95% intervals; left of 0 is worse.{at}"
    return Chart(title, caption, svg)


def _bar(label: str, metric: Metric | None, colour: str) -> Bar | None:
    if metric is None or metric.value is None:
        return None
    return Bar(label, _point(0, metric), colour, write(metric.value))


def _selector_bars(run: RunResults, metric: str, against: str | None) -> list[list[Bar]]:
    """Bars at the headline's n: reward models, then baselines with the upper bound."""
    n, look_of = main_n(run), looks(run)
    learned: list[Bar] = []
    fixed: list[Bar] = []
    for name in selectors_of(run) if n is not None else ():
        bar = _bar(name, run.find(metric, "sft", name, n or 1, against), look_of[name].colour)
        if bar is not None:
            (learned if kind_of(name) == "reward model" else fixed).append(bar)
    return [learned, fixed]


def kl_by_n(run: RunResults) -> Mapping[int, float]:
    """The stored upper bound on KL(best-of-n || SFT policy) in nats."""
    return {m.n: m.value for m in run.curve("kl_bound", "none") if m.value is not None}


def _curve(run: RunResults, metric: str, kl: Mapping[int, float] | None) -> list[Series]:
    found = []
    for name in selectors_of(run):
        points = tuple(
            _point(m.n if kl is None else kl[m.n], m)
            for m in run.curve(metric, name)
            if kl is None or m.n in kl
        )
        if points:
            found.append(Series(name, points))
    return found


def _references(run: RunResults, metric: str) -> dict[str, float]:
    wanted = {
        "demos": run.find(metric, "demonstrations", "none"),
        "greedy": run.find(metric, "sft", "greedy"),
        "samples": run.find(metric, "sft", "none"),
    }
    return {label: m.value for label, m in wanted.items() if m is not None and m.value is not None}


def _line(
    run: RunResults, chart: str, metric: str, title: str, *, by_kl: bool, percent: bool = False,
    references: Mapping[str, float] | None = None,
) -> Chart:  # fmt: skip
    kl = kl_by_n(run) if by_kl else None
    series = _curve(run, metric, kl)
    if not series:
        reasons = {m.reason for m in run.metrics if m.metric == metric and m.reason}
        why = "; ".join(sorted(reasons)) or f"{metric} is not in evaluation/results.json"
        return Chart(title, f"Not measured: {why}.")
    axis = "upper bound on KL from the SFT policy (nats)" if by_kl else "n (candidates per prompt)"
    style: Style = "percent" if percent else "number"
    spoken = "; ".join(
        f"{s.name} from {write(s.points[0].value, style)} to {write(s.points[-1].value, style)}"
        for s in series
    )
    svg = figures.line_chart(
        f"{chart}-{'kl' if by_kl else 'n'}", f"{title} by {axis}: {spoken}.", series, looks(run),
        x_label=axis, log2=not by_kl, percent=percent, references=references,
    )  # fmt: skip
    lines = f" Dashed: {write_list(list(references))}." if references else ""
    return Chart(title, f"Lines are means over prompts, bands 95% intervals.{lines}", svg)


def golden_curve(run: RunResults, *, by_kl: bool) -> Chart:
    """Golden reward of the chosen completion (the paper's Fig. 4)."""
    metric, title = "golden_reward_normalised", GOLDEN
    if not _curve(run, metric, None):
        metric, title = "golden_reward", "Golden reward"
    return _line(run, "golden", metric, title, by_kl=by_kl, references=_references(run, metric))


def win_curve(run: RunResults, *, by_kl: bool) -> Chart:
    """Share of prompts on which the chosen completion beats the greedy one."""
    return _line(
        run, "wins", "win_rate_over_greedy", "Win rate over greedy decoding", by_kl=by_kl,
        percent=True, references={"even": 0.5},
    )  # fmt: skip


def proxy_charts(run: RunResults) -> list[Chart]:
    """Each reward model's own reward by n: scales differ, so each has its own chart."""
    found = []
    for place, name in enumerate(reward_models_of(run)):
        points = tuple(_point(m.n, m) for m in run.curve("proxy_reward", name))
        if len(points) > 1:
            first, last = points[0], points[-1]
            svg = figures.line_chart(
                f"proxy{place}",
                f"Own reward of {name} from {write(first.value)} to {write(last.value)}.",
                [Series(name, points)], looks(run),
                x_label="n", log2=True, small=True,
            )  # fmt: skip
            found.append(Chart(name, "", svg))
    return found


def reward_charts(run: RunResults) -> list[RewardCharts]:
    """Histograms by source, and reward against length, of every reward model."""
    return [
        RewardCharts(
            name,
            _histogram(f"hist{place}", name, run.rewards.get(name, {})),
            _length(f"length{place}", name, run),
        )
        for place, name in enumerate(reward_models_of(run))
    ]


def _in_order(sources: Mapping[str, SourceRewards]) -> list[str]:
    rank = {source: place for place, source in enumerate(SOURCES)}
    return sorted(sources, key=lambda source: (rank.get(source, len(rank)), source))


def _histogram(chart: str, name: str, sources: Mapping[str, SourceRewards]) -> Chart:
    title = "Rewards by source"
    if not sources:
        return Chart(title, "Not measured: no rewards in evaluation/rewards.json.")
    means = [
        f"{policy_name(source)} mean {write(sum(rows.values) / len(rows.values))} "
        f"over {len(rows.values)}"
        for source in _in_order(sources)
        for rows in (sources[source],)
    ]
    values = {source: sources[source].values for source in _in_order(sources)}
    svg = figures.histogram(chart, f"{title}, {name}: {'; '.join(means)}.", values, "Reward")
    return Chart(title, f"Share of completions. {'; '.join(means)}.", svg)


def _length(chart: str, name: str, run: RunResults) -> Chart:
    title = "Reward against length"
    points = {}
    sources = run.rewards.get(name, {})
    for source in _in_order(sources):
        rows = sources[source]
        pairs = [(t, v) for t, v in zip(rows.tokens, rows.values, strict=True) if t is not None]
        step = -(-len(pairs) // MARKS_PER_SOURCE)
        if pairs:
            points[source] = pairs[::step]
    if not points:
        return Chart(title, "Not measured: no lengths in evaluation/rewards.json.")
    found = run.find("length_correlation", "sft", name)
    if found is not None and found.value is not None:
        said = f"Rank correlation within a prompt: {write_measured(found, 'signed')}."
    else:
        reason = found.reason if found is not None and found.reason else "it is not stored"
        said = f"Rank correlation within a prompt: not measured ({reason})."
    marks = f"At most {MARKS_PER_SOURCE} completions of each source are drawn."
    svg = figures.scatter(chart, f"{title}, {name}. {said}", points, "Tokens", "Reward")
    return Chart(title, f"{said} {marks}", svg)
