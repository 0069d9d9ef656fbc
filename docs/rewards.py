"""Write what `demoalign study rewards` found into README.md and docs/reward-models.md; draw it.

    demoalign study rewards --seeds 3 --output runs/rewards
    cp runs/rewards/results.json docs/results/rewards.json
    python docs/rewards.py docs/results/rewards.json

Every number between the markers of those files comes from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.axes import Axes
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
    style_of,
    with_seeds,
)

HERE = Path(__file__).parent
MOST = 16
"""The N of the short tables, or the largest if that is less."""
PLAIN = ("initial", "samples", "greedy", "demonstrations")
RIVALS = {
    "samples": "SFT samples",
    "greedy": "SFT greedy",
    "demonstrations": "the demonstrations",
}
PANELS = {
    "golden": "golden reward of the best of N",
    "win_rate": "win rate against SFT greedy",
}
FIGURE_4 = {
    "win_rate": "win rate against SFT greedy (a tie counts one half)",
    "normalised": "golden reward, 0 the initial policy, 1 the demonstrations",
}


class Study:
    """A study's rows by dial, selector and N."""

    def __init__(self, plain: Row) -> None:
        self.plain = plain
        self.rows = {(r["dial"], r["selector"], r["n"]): r for r in plain["rows"]}
        self.dials = list(dict.fromkeys(r["dial"] for r in plain["rows"]))
        self.sizes = sorted({r["n"] for r in plain["rows"]})
        self.n = min(MOST, self.sizes[-1])
        names = dict.fromkeys(r["selector"] for r in plain["rows"])
        self.selectors = [name for name in names if name not in PLAIN]
        self.bounds = bounds_of([r["golden"] for r in plain["rows"]])
        self.heads = [_dial(dial) for dial in self.dials]

    def cells(self, selector: str, n: int, key: str = "golden") -> list[str]:
        """One selector at every dial."""
        found = [self.rows[dial, selector, 1 if selector in PLAIN else n] for dial in self.dials]
        return [cell(row[key], self.bounds) for row in found]


def main() -> None:
    """Read a study's results and write the texts and the picture."""
    study = Study(read_results(__doc__))
    short = [*_claims(study), "", *_at(study), "", _basis(study)]
    long = [*_claims(study), "", *_curves(study), *_figure_4(study), _basis(study), ""]
    insert(HERE.parent / "README.md", "study", "\n".join(short))
    insert(HERE / "reward-models.md", "study", "\n".join([*long, *_traits(study)]))
    _draw(study, HERE / "images" / "rewards.svg")
    sys.stdout.write("\n".join(long) + "\n")


def _dial(dial: float | None) -> str:
    return "as given" if dial is None else f"dial {dial:g}"


def _basis(study: Study) -> str:
    prompts = study.plain["rows"][0]["prompts"]
    return (
        f"Golden reward (at most 7), mean [95 % interval], {study.plain['seeds']} seeds, {prompts} "
        f"test prompts a dial. {INTERVALS[study.bounds]}. {printed_by(study.plain)}"
    )


def _claims(study: Study) -> list[str]:
    """The best under init-sft against three rivals, paired by prompt."""
    lines = head(f"best of {study.n} by init-sft, minus (each seed)", study.heads)
    for rival, label in RIVALS.items():
        found = [study.rows[dial, "init-sft", study.n][f"minus_{rival}"] for dial in study.dials]
        lines.append(line(label, [with_seeds(each, study.bounds) for each in found]))
    return lines


def _at(study: Study) -> list[str]:
    lines = head(f"N = {study.n}", study.heads)
    return lines + [
        line(_label(name), study.cells(name, study.n)) for name in (*PLAIN, *study.selectors)
    ]


def _label(name: str) -> str:
    plain = {"initial": "initial policy", **RIVALS, "demonstrations": "demonstrations"}
    if name == "golden":
        return "by the golden reward itself"
    return plain.get(name, f"by {name}")


def _curves(study: Study) -> list[str]:
    lines = []
    for dial in study.dials:
        lines += [f"### {_dial(dial).capitalize()}", ""]
        lines += head("", [f"N = {n}" for n in study.sizes])
        for name in PLAIN:
            first = cell(study.rows[dial, name, 1]["golden"], study.bounds)
            lines.append(f"| {_label(name)} | {first} |" + " |" * (len(study.sizes) - 1))
        for name in study.selectors:
            found = [study.rows[dial, name, n]["golden"] for n in study.sizes]
            lines.append(line(_label(name), [cell(each, study.bounds) for each in found]))
        lines.append("")
    return lines


def _figure_4(study: Study) -> list[str]:
    """What the paper's Figure 4 shows, at two sizes, where it was measured."""
    lines = []
    sizes = sorted({study.n, study.sizes[-1]})
    for key, title in FIGURE_4.items():
        if key not in study.plain["rows"][0]:
            continue
        columns = [f"{each}, N = {n}" for n in sizes for each in study.heads]
        lines += head(title, columns)
        for name in (*PLAIN, *study.selectors):
            lines.append(line(_label(name), [c for n in sizes for c in study.cells(name, n, key)]))
        lines.append("")
    return lines


def _traits(study: Study) -> list[str]:
    """Held-out accuracy, and what the scores follow within a prompt, by dial."""
    titles = {
        "heldout_accuracy": "held-out accuracy",
        "golden_correlation": "rank correlation with the golden reward",
        "length_correlation": "rank correlation with length",
    }
    traits = study.plain.get("traits", [])
    known = {(row["metric"], row["selector"], row["dial"]): row["value"] for row in traits}
    lines = []
    for metric, title in titles.items():
        names = dict.fromkeys(row["selector"] for row in traits if row["metric"] == metric)
        lines += head(title, study.heads)
        for name in names:
            values = [known.get((metric, name, dial)) for dial in study.dials]
            lines.append(line(name, ["" if each is None else f"{each:.2f}" for each in values]))
        lines.append("")
    return lines


def _draw(study: Study, path: Path) -> None:
    panels = [key for key in PANELS if key in study.plain["rows"][0]]
    size = (4.2 * len(study.dials), 0.8 + 3.2 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(study.dials), sharex=True, sharey="row", squeeze=False)
    for key, row in zip(panels, grid, strict=True):
        for axes, dial in zip(row, study.dials, strict=True):
            _draw_curves(study, axes, dial, key)
        row[0].set_ylabel(PANELS[key])
    for axes, dial in zip(grid[0], study.dials, strict=True):
        axes.set_title(_dial(dial))
    for axes in grid[-1]:
        axes.set_xlabel("N")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


def _draw_curves(study: Study, axes: Axes, dial: float | None, key: str) -> None:
    """Every selector over N, and what it has to beat."""
    for name in study.selectors:
        colour, mark = style_of(name)
        found = [study.rows[dial, name, n][key] for n in study.sizes]
        values = [each["value"] for each in found]
        axes.plot(study.sizes, values, color=colour, marker=mark, label=_label(name))
        low, high = zip(*(each[study.bounds] for each in found), strict=True)
        axes.fill_between(study.sizes, low, high, color=colour, alpha=0.12, linewidth=0)
    for name, style in (("demonstrations", "--"), ("greedy", ":")):
        level = study.rows[dial, name, 1][key]["value"]
        axes.axhline(level, color="#555555", linestyle=style, linewidth=1, label=_label(name))
    axes.set_xscale("log", base=2)
    axes.set_xticks(study.sizes, [str(n) for n in study.sizes])
    axes.grid(alpha=0.2)


if __name__ == "__main__":
    main()
