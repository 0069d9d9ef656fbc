"""Write what `demoalign study reward-models` found into README.md and docs/reward-models.md.

    demoalign study reward-models --seeds 3 --output runs/study
    python docs/reward_models.py runs/study/results.json

Every number between the markers of those files comes from here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pages import insert, interval, save

HERE = Path(__file__).parent
PLAIN = ("initial", "samples", "greedy", "demonstrations")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#777777", "#999999", "#bbbbbb", "#222222")
MARKS = ("o", "s", "^", "D", "x", "+", "v", "*")

Row = dict[str, Any]


def main() -> None:
    """Read a study's results and write the texts and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    study = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    rows: list[Row] = study["rows"]
    short = "\n".join([*_claims(rows), "", *_at(rows, 16), "", _basis(study)])
    traits = _traits(study.get("traits", []), _dials(rows))
    long = "\n".join([*_claims(rows), "", *_curves(rows), _basis(study), "", *traits])
    insert(HERE.parent / "README.md", "study", short)
    insert(HERE / "reward-models.md", "study", long)
    _draw(rows, HERE / "images" / "reward-models.svg")
    sys.stdout.write(long + "\n")


def _basis(study: dict[str, Any]) -> str:
    prompts = study["rows"][0]["prompts"]
    return (
        f"Golden reward (at most 7), mean [95 % interval], {study['seeds']} seeds, {prompts} test "
        "prompts a dial. Intervals by bootstrap over prompts: they hold for these trainings and do "
        "not include how trainings differ. Printed by `demoalign study "
        "reward-models` and `docs/reward_models.py`."
    )


def _dials(rows: Sequence[Row]) -> list[float]:
    return sorted({row["dial"] for row in rows})


def _selectors(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["selector"] for row in rows if row["selector"] not in PLAIN))


def _find(rows: Sequence[Row], dial: float, selector: str, n: int) -> Row:
    wanted = (dial, selector, n)
    return next(row for row in rows if (row["dial"], row["selector"], row["n"]) == wanted)


def _claims(rows: Sequence[Row]) -> list[str]:
    """Best-of-16 under init-sft against three rivals, paired by prompt."""
    lines = [
        "| best of 16 by init-sft, minus (each seed) | " + _heads(rows),
        "|---" * (len(_dials(rows)) + 1) + "|",
    ]
    for rival, label in (
        ("samples", "SFT samples"),
        ("greedy", "SFT greedy"),
        ("demonstrations", "the demonstrations"),
    ):
        cells = []
        for dial in _dials(rows):
            found = _find(rows, dial, "init-sft", 16)[f"minus_{rival}"]
            seeds = ", ".join(f"{value:+.2f}" for value in found["by_seed"])
            cells.append(f"{interval(found['value'], found['ci95'], sign=True)}; {seeds}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def _heads(rows: Sequence[Row]) -> str:
    return " | ".join(f"dial {dial:g}" for dial in _dials(rows)) + " |"


def _at(rows: Sequence[Row], n: int) -> list[str]:
    lines = [f"| N = {n} | " + _heads(rows), "|---" * (len(_dials(rows)) + 1) + "|"]
    for name in (*PLAIN, *_selectors(rows)):
        size = 1 if name in PLAIN else n
        found = [_find(rows, dial, name, size) for dial in _dials(rows)]
        cells = [interval(row["golden"], row["ci95"]) for row in found]
        lines.append(f"| {_label(name)} | " + " | ".join(cells) + " |")
    return lines


def _label(name: str) -> str:
    plain = {"initial": "initial policy", "samples": "SFT samples", "greedy": "SFT greedy"}
    if name == "golden":
        return "by the golden reward itself"
    return plain.get(name, name if name in PLAIN else f"by {name}")


def _curves(rows: Sequence[Row]) -> list[str]:
    sizes = sorted({row["n"] for row in rows})
    lines = []
    for dial in _dials(rows):
        lines += [f"### Dial {dial:g}", ""]
        lines += ["| | " + " | ".join(f"N = {n}" for n in sizes) + " |"]
        lines += ["|---" * (len(sizes) + 1) + "|"]
        for name in PLAIN:
            row = _find(rows, dial, name, 1)
            lines.append(
                f"| {_label(name)} | {interval(row['golden'], row['ci95'])} |"
                + " |" * (len(sizes) - 1)
            )
        for name in _selectors(rows):
            found = [_find(rows, dial, name, n) for n in sizes]
            cells = [interval(row["golden"], row["ci95"]) for row in found]
            lines.append(f"| {_label(name)} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _traits(traits: Sequence[Row], dials: Sequence[float]) -> list[str]:
    """Held-out accuracy, and what the scores follow within a prompt, by dial."""
    titles = {
        "heldout_accuracy": "held-out accuracy",
        "golden_correlation": "rank correlation with the golden reward",
        "length_correlation": "rank correlation with length",
    }
    known = {(row["metric"], row["selector"], row["dial"]): row["value"] for row in traits}
    lines = []
    for metric, title in titles.items():
        names = dict.fromkeys(row["selector"] for row in traits if row["metric"] == metric)
        lines += [f"| {title} | " + " | ".join(f"dial {dial:g}" for dial in dials) + " |"]
        lines += ["|---" * (len(dials) + 1) + "|"]
        for name in names:
            values = [known.get((metric, name, dial)) for dial in dials]
            cells = ["" if value is None else f"{value:.2f}" for value in values]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _draw(rows: Sequence[Row], path: Path) -> None:
    dials, selectors = _dials(rows), _selectors(rows)
    figure = Figure(figsize=(4.2 * len(dials), 4.0), layout="constrained")
    axes = figure.subplots(1, len(dials), sharey=True)
    sizes = sorted({row["n"] for row in rows})
    for axis, dial in zip(axes, dials, strict=True):
        for name, colour, mark in zip(selectors, COLOURS, MARKS, strict=False):
            found = [_find(rows, dial, name, n) for n in sizes]
            axis.plot(
                sizes,
                [row["golden"] for row in found],
                color=colour,
                marker=mark,
                label=_label(name),
            )
            low, high = zip(*(row["ci95"] for row in found), strict=True)
            axis.fill_between(sizes, low, high, color=colour, alpha=0.12, linewidth=0)
        for name, style in (("demonstrations", "--"), ("greedy", ":")):
            level = _find(rows, dial, name, 1)["golden"]
            axis.axhline(level, color="#555555", linestyle=style, linewidth=1, label=_label(name))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.set_title(f"dial {dial:g}")
        axis.set_xlabel("N")
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("golden reward of the best of N")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
