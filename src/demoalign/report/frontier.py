"""Golden reward against KL from the SFT policy: best-of-N curves and policies as points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demoalign.report import figures
from demoalign.report.charts import GOLDEN, Chart, kl_by_n, looks
from demoalign.report.figures import Point, Series
from demoalign.report.looks import Look, looks_of_policies
from demoalign.report.read import RunResults
from demoalign.report.tables import Row, Table, plain_rows, table_of
from demoalign.report.verdict import main_reward_model, reward_models_of
from demoalign.report.words import Style, cell, write

TITLE = "Golden reward against KL from the SFT policy"
BOUND = (
    "For best-of-N the KL is an upper bound, log\u00a0N \u2212 (N\u22121)/N: such a line lies too "
    "far right rather than too far left. For policies it is estimated from their own samples."
)
RIVALS = (("Gain over samples", "sft/none/1"), ("Gain over greedy", "sft/greedy/1"))


@dataclass(frozen=True, slots=True)
class Frontier:
    """The chart, the swatches of its points by label, and the numbers behind it."""

    chart: Chart
    curves: tuple[str, ...]
    points: Mapping[str, str]
    table: Table


def give_frontier(run: RunResults) -> Frontier | None:
    """Best-of-N and policies by how far they went; None where no policy's KL is stored."""
    known = {(m.policy, m.selector) for m in run.metrics if m.metric == "kl" and m.n == 1}
    rows = [row for row in plain_rows(run) if row[:2] in known]
    if not rows:
        return None
    points_look = looks_of_policies([label for *_, label in rows])
    scaled = any(
        (m := run.find("golden_reward_normalised", *row[:2])) and m.value is not None
        for row in rows
    )
    metric = "golden_reward_normalised" if scaled else "golden_reward"
    points = {row[2]: point for row in rows if (point := _point(run, metric, *row[:2]))}
    curves = _curves(run, metric)
    chart = _chart(run, curves, points, points_look, GOLDEN if scaled else "Golden reward")
    drawn = {label: points_look[label] for label in points} if chart.svg else {}
    swatches = {
        label: figures.swatch(f"point{place}", look)
        for place, (label, look) in enumerate(drawn.items())
    }
    names = tuple(line.name for line in curves) if chart.svg else ()
    return Frontier(chart, names, swatches, _table(run, rows))


def _point(run: RunResults, metric: str, policy: str, selector: str) -> Point | None:
    kl = run.find("kl", policy, selector, 1, "sft/none/1")
    golden = run.find(metric, policy, selector)
    if kl is None or kl.value is None or golden is None or golden.value is None:
        return None
    return Point(kl.value, golden.value, golden.ci95)


def _curves(run: RunResults, metric: str) -> list[Series]:
    bounds = kl_by_n(run)
    found = []
    for name in reward_models_of(run):
        points = tuple(
            Point(bounds[m.n], m.value, m.ci95)
            for m in run.curve(metric, name)
            if m.n in bounds and m.value is not None
        )
        if points:
            found.append(Series(name, points))
    return found


def _chart(
    run: RunResults, curves: list[Series], points: Mapping[str, Point],
    points_look: Mapping[str, Look], axis: str,
) -> Chart:  # fmt: skip
    if not points:
        return Chart(TITLE, "Not measured: no policy has both a KL and a golden reward.")
    spoken = "; ".join(
        f"{label} at {write(p.x)} nats with {write(p.value)}" for label, p in points.items()
    )
    # No selector has a space in its name, so that a policy's key is none of theirs.
    single = [Series(f"policy {label}", (point,)) for label, point in points.items()]
    styles = {f"policy {label}": look for label, look in points_look.items()}
    svg = figures.line_chart(
        "frontier", f"{axis} against KL: {spoken}.", [*curves, *single],
        {**looks(run), **styles}, x_label="KL from the SFT policy (nats, root scale)", root=True,
    )  # fmt: skip
    said = f"{axis}. Lines: best-of-N by reward model. Marks: policies. With 95% intervals. {BOUND}"
    return Chart(TITLE, said, svg)


def _table(run: RunResults, rows: list[tuple[str, str, str]]) -> Table:
    """Policies, then best-of-N under the headline's reward model."""
    groups = {
        "policies": tuple(
            _row(run, label, "", policy, selector, 1) for policy, selector, label in rows
        )
    }
    model = main_reward_model(run)
    ns = [m.n for m in run.curve("completion_tokens", model) if m.n > 1] if model else []
    if model and ns:
        groups["best of n"] = tuple(
            _row(run, f"best of {n}", f"{model}; KL at most", "sft", model, n) for n in ns
        )
    gains = tuple((heading, "paired") for heading, _ in RIVALS) if run.has_golden else ()
    golden = (("Golden reward", "mean"),) if run.has_golden else ()
    return table_of((("KL from SFT", "nats"), *golden, *gains), groups)


def _row(run: RunResults, label: str, note: str, policy: str, selector: str, n: int) -> Row:
    kl = run.find("kl", policy, selector, 1, "sft/none/1")
    cells = [cell(kl if n == 1 else run.find("kl_bound", "sft", "none", n))]
    if run.has_golden:
        signed: Style = "signed"
        cells.append(cell(run.find("golden_reward", policy, selector, n)))
        cells += [
            cell(run.find("golden_reward_difference", policy, selector, n, against), signed)
            for _, against in RIVALS
        ]
    return Row(label, note, selector if n > 1 else None, tuple(cells))
