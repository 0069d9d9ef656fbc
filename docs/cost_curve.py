"""Draw what `benchmarks/cost_curve.py` measured, and write its tables into docs/rollouts.md.

python benchmarks/cost_curve.py --json > docs/results/cost-curve.json
python docs/cost_curve.py docs/results/cost-curve.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pages import insert, save

HERE = Path(__file__).parent
AXES = {
    "n": "completions of the prompt (N)",
    "prompt": "tokens of the prompt",
    "completion": "tokens of each completion",
}
SIDES = {"ours": ("#0072b2", "o", "shared prefix"), "generate": ("#d55e00", "s", "generate")}

Row = dict[str, Any]


def main() -> None:
    """Read the figures and write text and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    tables = [line for name in AXES for line in (*_table(found["curves"][name], name), "")]
    text = "\n".join([*tables, *_memory(found["memory"])])
    insert(HERE / "rollouts.md", "cost-curve", text)
    _draw(found["curves"], HERE / "images" / "cost-curve.svg")
    sys.stdout.write(text + "\n")


def _table(points: Sequence[Row], name: str) -> list[str]:
    lines = [
        f"| {AXES[name]} | " + " | ".join(str(point[name]) for point in points) + " |",
        "|---" * (len(points) + 1) + "|",
    ]
    for side, (_, _, label) in SIDES.items():
        cells = ["" if point[side] is None else f"{point[side]:.2f} s" for point in points]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    ratios = [point["generate"] and point["generate"] / point["ours"] for point in points]
    cells = ["" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
    lines.append("| ratio | " + " | ".join(cells) + " |")
    return lines


def _memory(memory: Row) -> list[str]:
    lines = [
        f"| keys and values at most, prompt {memory['prompt']}, up to {memory['completion']} new "
        f"tokens, {memory['places']} places | held | if the prompt were copied N times |",
        "|---" * 3 + "|",
    ]
    lines += [
        f"| N = {each['n']} | {each['bytes'] / 1e6:.0f} MB | {each['copied_bytes'] / 1e6:,.0f} MB |"
        for each in memory["held"]
    ]
    return [*lines, f"| bound for any N | {memory['bound'] / 1e6:.0f} MB | |"]


def _draw(curves: Row, path: Path) -> None:
    figure = Figure(figsize=(11.0, 3.8), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(AXES), sharey=True)
    for axis, (name, title) in zip(axes, AXES.items(), strict=True):
        points = curves[name]
        for side, (colour, mark, label) in SIDES.items():
            known = [point for point in points if point[side] is not None]
            axis.plot(
                [point[name] for point in known],
                [point[side] for point in known],
                color=colour,
                marker=mark,
                label=label,
            )
        sizes = [point[name] for point in points]
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set_xlabel(title)
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("seconds, one core")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
