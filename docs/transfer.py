"""Write what `demoalign study transfer` found into docs/studies.md, and draw it.

    demoalign study transfer --seeds 3 --output runs/transfer
    cp runs/transfer/results.json docs/results/transfer.json
    python docs/transfer.py docs/results/transfer.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    style_of,
)

HERE = Path(__file__).parent
PLAIN = {
    "candidates": "SFT samples",
    "greedy": "SFT greedy",
    "demonstrations": "the demonstrations",
}
CASES = ((True, True), (True, False), (False, True), (False, False))
"""Whether the policy and whether the reward was trained on the prompt's family."""


class Study:
    """A study's rows by method and case."""

    def __init__(self, plain: Row) -> None:
        self.plain = plain
        self.n = plain["n"]
        keys = ("method", "policy_seen", "reward_seen")
        self.rows = {tuple(row[key] for key in keys): row for row in plain["rows"]}
        self.bounds = bounds_of([row["golden"] for row in plain["rows"]])
        self.trained = [
            name for name, policy, reward in self.rows if policy and reward and name not in PLAIN
        ]
        self.free = [
            name
            for name, policy, reward in self.rows
            if policy and reward is None and name not in PLAIN
        ]

    def row(self, name: str, policy_seen: bool, reward_seen: bool) -> Row:
        """What was not trained has been nowhere."""
        key = (name, policy_seen, reward_seen if name in self.trained else None)
        return self.rows[key]

    def cells(self, name: str, key: str) -> list[str]:
        """One method in all cases."""
        sign = key.startswith("minus")
        return [
            cell(self.row(name, *case)[key], self.bounds, sign)
            if name in self.trained or case[0] == case[1]
            else ""
            for case in CASES
        ]


def main() -> None:
    """Read a study's results and write the section and the picture."""
    study = Study(read_results(__doc__))
    lines = [f"![Gain of the best of {study.n}, by what was trained on](images/transfer.svg)", ""]
    lines += [*_plain(study), "", *_gains(study), "", *_lost(study), "", *_fixes(study), ""]
    lines.append(_basis(study))
    insert(HERE / "studies.md", "transfer", "\n".join(lines))
    _draw(study, HERE / "images" / "transfer.svg")
    sys.stdout.write("\n".join(lines) + "\n")


def _heads() -> list[str]:
    said = {True: "trained on the family", False: "not"}
    return [f"policy {said[policy]}, reward {said[reward]}" for policy, reward in CASES]


def _plain(study: Study) -> list[str]:
    lines = head("golden reward", ["policy trained on the family", "policy not"])
    for name, label in PLAIN.items():
        found = [study.rows[name, seen, None]["golden"] for seen in (True, False)]
        lines.append(line(label, [cell(each, study.bounds) for each in found]))
    return lines


def _gains(study: Study) -> list[str]:
    """What choosing gains over the samples that were chosen from."""
    lines = head(f"best of {study.n}, minus SFT samples, by", _heads())
    for name in (*study.trained, *study.free):
        lines.append(line(name, study.cells(name, "minus_samples")))
    return lines


def _lost(study: Study) -> list[str]:
    """On the same candidates: the reward that has not seen the family minus the one that has."""
    columns = ["policy trained on the family", "policy not"]
    lines = head("reward not trained on the family, minus one that was", columns)
    for name in study.trained:
        found = [study.row(name, seen, False)["minus_seen"] for seen in (True, False)]
        lines.append(line(name, [cell(each, study.bounds, sign=True) for each in found]))
    return lines


def _fixes(study: Study) -> list[str]:
    """How often the right fix is named, which is what a family has of its own."""
    lines = head("share of answers with the right fix", _heads())
    for name, label in PLAIN.items():
        lines.append(line(label, study.cells(name, "right_fix")))
    for name in (*study.trained, *study.free):
        lines.append(line(f"best of {study.n} by {name}", study.cells(name, "right_fix")))
    return lines


def _basis(study: Study) -> str:
    seeds = study.plain["seeds"]
    halves = "; ".join(", ".join(half) for half in study.plain["halves"])
    return (
        f"Golden reward (at most 7), mean [95 % interval], {seeds} "
        f"seed{'s' if seeds > 1 else ''}, both halves pooled ({halves}); differences are paired by "
        f"prompt. {INTERVALS[study.bounds]}. {printed_by(study.plain)}"
    )


def _draw(study: Study, path: Path) -> None:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    names = [*study.trained, *(name for name in study.free if name != "golden")]
    for number, name in enumerate(names):
        colour, mark = style_of(name)
        found = [study.row(name, *case)["minus_samples"] for case in CASES]
        places = [case + 0.6 * (number / max(1, len(names) - 1) - 0.5) for case in range(4)]
        axes.errorbar(
            places,
            [each["value"] for each in found],
            _spread(found, study.bounds),
            fmt=mark,
            color=colour,
            label=name,
        )
    axes.set_xticks(range(len(CASES)), [each.replace(", ", ",\n") for each in _heads()])
    axes.axhline(0, color="#000000", linewidth=0.8)
    axes.set_ylabel(f"best of {study.n} minus SFT samples")
    axes.legend(frameon=False, ncols=4, fontsize=8)
    axes.grid(alpha=0.2, axis="y")
    save(figure, path)


def _spread(found: Sequence[Row], bounds: str) -> list[list[float]]:
    low = [each["value"] - each[bounds][0] for each in found]
    return [low, [each[bounds][1] - each["value"] for each in found]]


if __name__ == "__main__":
    main()
