"""What studies share that vary one thing step by step: a section of docs/studies.md, a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pages import INTERVALS, Row, bounds_of, cell, head, insert, line, printed_by, save, style_of

HERE = Path(__file__).parent
POLICIES = ("initial", "demonstrations", "sft", "sft, greedy")
DIFFERENCES = {"minus_greedy": "minus SFT greedy", "minus_samples": "minus SFT samples"}


@dataclass(frozen=True, slots=True)
class Steps:
    """A study's results by step and method.

    Attributes:
        plain: as stored.
        axis: key of the rows that says which step they are of.
        title: what it is called in tables and pictures.
    """

    plain: Row
    axis: str
    title: str

    @property
    def steps(self) -> list[float]:
        """In the order in which they were taken."""
        return list(dict.fromkeys(row[self.axis] for row in self.plain["rows"]))

    @property
    def methods(self) -> list[str]:
        """Policies first."""
        names = list(dict.fromkeys(row["method"] for row in self.plain["rows"]))
        return [*POLICIES, *(name for name in names if name not in POLICIES)]

    @property
    def bounds(self) -> str:
        """Which intervals are shown."""
        return bounds_of([row["golden"] for row in self.plain["rows"]])

    def found(self, method: str, key: str) -> list[Row]:
        """One method at every step."""
        rows = {(row[self.axis], row["method"]): row for row in self.plain["rows"]}
        return [rows[step, method][key] for step in self.steps]

    def selector(self, method: str) -> str:
        """The selector's name, or the policy's."""
        return method.removeprefix(f"best of {self.plain['n']} by ")


def write(study: Steps, name: str, extra: Sequence[str] = ()) -> None:
    """Write the section ``name`` of docs/studies.md and draw ``images/name.svg``.

    Args:
        study: its results.
        name: of the study.
        extra: further lines before the basis.
    """
    lines = [f"![{study.title}, by method](images/{name}.svg)", ""]
    lines += [*_table(study, "golden", "golden reward"), ""]
    for key, title in DIFFERENCES.items():
        lines += [*_table(study, key, title), ""]
    lines += [*extra, _basis(study)]
    insert(HERE / "studies.md", name, "\n".join(lines))
    _draw(study, HERE / "images" / f"{name}.svg")
    sys.stdout.write("\n".join(lines) + "\n")


def _table(study: Steps, key: str, title: str) -> list[str]:
    """Every method at every step; a difference to itself is left out."""
    is_difference = key != "golden"
    own = {"minus_greedy": "sft, greedy", "minus_samples": "sft"}.get(key)
    lines = head(title, [f"{study.title} {step:g}" for step in study.steps])
    for method in study.methods:
        if method != own:
            found = study.found(method, key)
            lines.append(line(method, [cell(each, study.bounds, is_difference) for each in found]))
    return lines


def _basis(study: Steps) -> str:
    seeds = study.plain["seeds"]
    return (
        f"Golden reward (at most 7), mean [95 % interval], {seeds} "
        f"seed{'s' if seeds > 1 else ''}; differences are paired by prompt. "
        f"{INTERVALS[study.bounds]}. {printed_by(study.plain)}"
    )


def _draw(study: Steps, path: Path) -> None:
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(study, left, "golden", study.methods)
    left.set_ylabel("golden reward")
    chosen = [method for method in study.methods if method not in POLICIES]
    _curves(study, right, "minus_greedy", chosen)
    right.axhline(0, color="#000000", linewidth=0.8)
    right.set_ylabel("golden reward minus SFT greedy")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def _curves(study: Steps, axes: Axes, key: str, methods: Sequence[str]) -> None:
    places = range(len(study.steps))
    for method in methods:
        colour, mark = style_of(study.selector(method))
        found = study.found(method, key)
        values = [each["value"] for each in found]
        axes.plot(places, values, color=colour, marker=mark, markersize=4, label=method)
        low, high = zip(*(each[study.bounds] for each in found), strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.set_xticks(places, [f"{step:g}" for step in study.steps])
    axes.set_xlabel(study.title)
    axes.grid(alpha=0.2)
