"""Write what `demoalign study policies` found into docs/studies.md, and draw it.

    demoalign study policies --seeds 3 --output runs/policies
    cp runs/policies/results.json docs/results/policies.json
    python docs/policies.py docs/results/policies.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from pages import (
    INTERVALS,
    Row,
    bounds_of,
    cell,
    head,
    insert,
    line,
    printed_by,
    read_results,
    save,
)

HERE = Path(__file__).parent
LABELS = {
    "initial": "base",
    "sft": "SFT on demonstrations",
    "sft-preferred": "SFT on preferred",
    "dpo-preferences": "DPO on preferences",
    "dpo-demonstrations": "DPO on demonstrations against initial samples",
    "sft-then-dpo": "SFT on demonstrations, then DPO on preferences",
    "demonstrations": "demonstrations",
}
"""Policies as Figure 3 has them, and two to hold them against."""

MEASURES = {
    "golden": ("golden reward", False),
    "normalised": ("golden reward, initial = 0, demonstrations = 1", False),
    "minus_samples": ("golden reward minus SFT samples", True),
    "wins_samples": ("wins over SFT samples", False),
    "wins_greedy": ("wins over SFT greedy", False),
    "kl": ("KL from the SFT policy (nats)", False),
}
"""Measures of a row, what each is called, and whether it is a difference."""

COLOURS = ("#0072b2", "#d55e00", "#009e73")


class Study:
    """A study's rows by dial and method."""

    def __init__(self, plain: Row) -> None:
        self.plain = plain
        self.rows = {(row["dial"], row["method"]): row for row in plain["rows"]}
        self.dials = list(dict.fromkeys(row["dial"] for row in plain["rows"]))
        self.bounds = bounds_of([row["golden"] for row in plain["rows"]])
        self.heads = ["as given" if dial is None else f"dial {dial:g}" for dial in self.dials]

    @property
    def methods(self) -> list[str]:
        """Policies of Figure 3, the same decoded otherwise, selectors."""
        names = list(dict.fromkeys(row["method"] for row in self.plain["rows"]))
        return [*LABELS, *(name for name in names if name not in LABELS)]

    def found(self, method: str, key: str) -> list[Row | None]:
        """One measure of one method at every dial, None where there is none."""
        return [self.rows[dial, method].get(key) for dial in self.dials]


def main() -> None:
    """Read a study's results and write the section and the picture."""
    study = Study(read_results(__doc__))
    lines = ["![Golden reward of each policy](images/policies.svg)", ""]
    for key in MEASURES:
        lines += [*_table(study, key), ""]
    lines.append(_basis(study))
    insert(HERE / "studies.md", "policies", "\n".join(lines))
    _draw(study, HERE / "images" / "policies.svg")
    sys.stdout.write("\n".join(lines) + "\n")


def _table(study: Study, key: str) -> list[str]:
    """One measure of every method that has it."""
    title, is_difference = MEASURES[key]
    lines = head(title, study.heads)
    for method in study.methods:
        found = study.found(method, key)
        if any(found) and not (is_difference and method == "sft"):
            cells = [cell(each, study.bounds, is_difference) for each in found]
            lines.append(line(LABELS.get(method, method), cells))
    return lines


def _basis(study: Study) -> str:
    seeds = study.plain["seeds"]
    return (
        f"Golden reward (at most 7), mean [95 % interval], {seeds} "
        f"seed{'s' if seeds > 1 else ''}; differences and wins are paired by prompt, a tie counts "
        f"one half. {INTERVALS[study.bounds]}. {printed_by(study.plain)}"
    )


def _draw(study: Study, path: Path) -> None:
    """Normalised golden reward of samples and of greedy answers, a panel for each dial."""
    figure = Figure(figsize=(4 * len(study.dials), 3.4), layout="constrained")
    grid = figure.subplots(1, len(study.dials), sharey=True, squeeze=False)[0]
    shown = [name for name in LABELS if name not in ("initial", "demonstrations")]
    for axes, dial, title in zip(grid, study.dials, study.heads, strict=True):
        for number, decoded in enumerate(("", ", greedy")):
            for place, method in enumerate(shown):
                row = study.rows[dial, method + decoded]["normalised"]
                low, high = row[study.bounds]
                value, label = row["value"], decoded.removeprefix(", ") or "samples"
                axes.errorbar(
                    value,
                    place + 0.2 * number,
                    xerr=[[value - low], [high - value]],
                    color=COLOURS[number],
                    marker="os"[number],
                    capsize=3,
                    label=label if place == 0 else None,
                )
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.axvline(1, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_title(title)
        axes.set_xlabel("0: initial, 1: demonstrations")
        axes.set_yticks(range(len(shown)), [LABELS[name] for name in shown])
    grid[0].invert_yaxis()
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
