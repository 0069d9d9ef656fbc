"""Write what `demoalign study critic` found into docs/studies.md, and draw it.

    demoalign study critic --seeds 3 --output runs/critic --runs-of runs/rewards
    cp runs/critic/results.json docs/results/critic.json
    python docs/critic.py docs/results/critic.json

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
OUTCOMES = {"win": "#0072b2", "tie": "#bbbbbb", "lose": "#d55e00"}
RIVALS = {
    "sft": "SFT samples",
    "sft, greedy": "SFT greedy",
    "demonstrations": "the demonstrations",
}


class Study:
    """A study's rows by dial and sides."""

    def __init__(self, plain: Row) -> None:
        self.plain = plain
        self.n = plain["n"]
        self.rows = {(r["dial"], r["policy"], r["against"]): r for r in plain["rows"]}
        self.dials = list(dict.fromkeys(r["dial"] for r in plain["rows"]))
        self.bounds = bounds_of([r["win_minus_lose"] for r in plain["rows"]])
        self.heads = ["as given" if dial is None else f"dial {dial:g}" for dial in self.dials]
        self.irl, self.bt = (f"best of {self.n} by {name}" for name in ("init-sft", "preference"))

    @property
    def table(self) -> list[tuple[str, str]]:
        """The three comparisons of the paper's Table 2, those that were made."""
        pairs = [(self.irl, self.bt), (self.irl, "sft"), (self.bt, "sft")]
        return [pair for pair in pairs if (self.dials[0], *pair) in self.rows]

    @property
    def selectors(self) -> list[str]:
        """Every best of N."""
        names = dict.fromkeys(r["policy"] for r in self.plain["rows"])
        return [name for name in names if name.startswith("best of")]


def main() -> None:
    """Read a study's results and write the section and the picture."""
    study = Study(read_results(__doc__))
    lines = ["![Win, tie and lose rates](images/critic.svg)", "", *_table(study), ""]
    lines += [*_nets(study), _basis(study)]
    insert(HERE / "studies.md", "critic", "\n".join(lines))
    _draw(study, HERE / "images" / "critic.svg")
    sys.stdout.write("\n".join(lines) + "\n")


def _label(name: str) -> str:
    return RIVALS.get(name, name)


def _table(study: Study) -> list[str]:
    """Table 2, one side of it: the other way round win and lose change places."""
    lines = head("Table 2", study.heads)
    for policy, against in study.table:
        for outcome in OUTCOMES:
            found = [study.rows[dial, policy, against][outcome] for dial in study.dials]
            label = f"{policy} against {_label(against)}: {outcome}"
            lines.append(line(label, [cell(each, study.bounds) for each in found]))
    return lines


def _nets(study: Study) -> list[str]:
    """Wins less losses of every selector, where all of them were compared."""
    lines = []
    for rival in (*RIVALS, study.bt, f"best of {study.n} by length"):
        names = [n for n in study.selectors if (study.dials[0], n, rival) in study.rows]
        if len(names) < len(study.selectors) - 1:
            continue
        lines += head(f"wins less losses against {_label(rival)}", study.heads)
        for name in names:
            found = [study.rows[dial, name, rival]["win_minus_lose"] for dial in study.dials]
            lines.append(line(name, [cell(each, study.bounds, sign=True) for each in found]))
        lines.append("")
    return lines


def _basis(study: Study) -> str:
    seeds = study.plain["seeds"]
    return (
        f"Critic: {study.plain['critic']}. Fractions of pairs of answers with 95 % intervals, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, paired by prompt; best of {study.n} is at most "
        f"{study.plain['kl_bound']:.1f} nats from the SFT policy. {INTERVALS[study.bounds]}. "
        f"{printed_by(study.plain)}"
    )


def _draw(study: Study, path: Path) -> None:
    figure = Figure(figsize=(4.2 * len(study.dials), 2.6), layout="constrained")
    grid = figure.subplots(1, len(study.dials), sharey=True, squeeze=False)[0]
    labels = [f"{policy}\nagainst {_label(against)}" for policy, against in study.table]
    for axes, dial, title in zip(grid, study.dials, study.heads, strict=True):
        for place, pair in enumerate(study.table):
            row, left = study.rows[dial, *pair], 0.0
            for outcome, colour in OUTCOMES.items():
                value = row[outcome]["value"]
                label = outcome if place == 0 else None
                axes.barh(place, value, left=left, color=colour, label=label)
                left += value
            low, high = row["win"][study.bounds]
            win = row["win"]["value"]
            axes.errorbar(win, place, xerr=[[win - low], [high - win]], color="#000000", capsize=3)
        axes.set_title(title)
        axes.set_xlim(0, 1)
        axes.set_yticks(range(len(labels)), labels)
    grid[0].invert_yaxis()
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
