"""Small drawings of one measure over the rounds of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from demoalign.report.figures import SETTINGS, VARIABLES, Point, to_svg

FLAT = 1e-3
"""A range of values below which an axis would magnify rounding errors."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What is drawn of one measure.

    Attributes:
        points: at the checks, with their intervals.
        faint: of every round, as a thin line behind; empty if it is on another scale.
        colour: of the points, a name of `figures.VARIABLES`.
        kept: the round whose policy was kept, drawn as a dashed line; None if unknown.
        reference: height of a dotted line, None for none.
        percent: whether values are fractions, shown in per cent.
    """

    points: Sequence[Point]
    faint: Sequence[Point] = ()
    colour: str = "policy"
    kept: int | None = None
    reference: float | None = None
    percent: bool = False


def draw_panel(chart: str, description: str, panel: Panel, x_label: str) -> str:
    """The drawing as SVG.

    Args:
        chart: prefix of every id in the drawing; unique in the page.
        description: what a screen reader says.
        panel: what is drawn.
        x_label: of the x axis.
    """
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": chart}):
        figure = Figure(figsize=(2.75, 1.9), layout="constrained")
        axes, colour = figure.add_subplot(), VARIABLES[panel.colour]
        axes.plot(
            [p.x for p in panel.faint], [p.value for p in panel.faint],
            color=VARIABLES["base"], lw=1,
        )  # fmt: skip
        bands = [(p.x, *p.interval) for p in panel.points if p.interval]
        if len(bands) > 1:
            at, lows, highs = zip(*bands, strict=True)
            axes.fill_between(at, lows, highs, color=colour, alpha=0.15, lw=0)
        elif bands:
            axes.vlines(bands[0][0], *bands[0][1:], color=colour, lw=1.3)
        few = len(panel.points) <= 25
        axes.plot(
            [p.x for p in panel.points], [p.value for p in panel.points],
            color=colour, marker="o" if few else "", markersize=4,
        )  # fmt: skip
        if panel.kept is not None:
            axes.axvline(panel.kept, color=VARIABLES["ink"], lw=1, ls=(0, (5, 3)), zorder=1.5)
        if panel.reference is not None:
            axes.axhline(panel.reference, color=VARIABLES["ink"], lw=1, ls=(0, (1, 2)))
        _scale(axes, panel)
        axes.set_xlabel(x_label)
        return to_svg(figure, chart, description)


def _scale(axes: mpl.axes.Axes, panel: Panel) -> None:
    """Whole rounds, and no magnified nothing."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    low, high = axes.get_ylim()
    values = [p.value for p in (*panel.points, *panel.faint)]
    if max(values) - min(values) < FLAT and not any(p.interval for p in panel.points):
        middle = (max(values) + min(values)) / 2
        low, high = middle - 0.05, middle + 0.05
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f}%")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
