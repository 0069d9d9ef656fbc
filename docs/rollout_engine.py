"""Draw how the rollout engine fills its places: docs/images/rollout-engine.svg.

python docs/rollout_engine.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from pages import save

HERE = Path(__file__).parent
COLOURS = {"A": "#56a0d3", "B": "#e69f00"}
INK = "#222222"
STEPS = 15
CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
ROWS = (
    (("A", 0, 0, 9), ("B", 2, 11, 4)),
    (("A", 1, 0, 3), ("B", 0, 5, 6)),
    (("A", 2, 0, 13),),
    (("A", 3, 0, 4), ("B", 1, 5, 9)),
    (("A", 4, 0, 6), ("B", 3, 11, 3)),
)
"""For each place: prompt, sample, first step, tokens."""


def main() -> None:
    """Draw and store."""
    figure = Figure(figsize=(10.5, 4.9), layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-7.2, STEPS + 0.3)
    axis.set_ylim(-3.3, len(ROWS) + 1.6)
    axis.set_axis_off()
    _prompt(axis, "A", -3.6, "read once, held once")
    for place, row in enumerate(ROWS):
        bottom = len(ROWS) - 1 - place
        axis.text(-0.35, bottom + 0.4, f"place {place}", ha="right", va="center", fontsize=9)
        for prompt, sample, first, tokens in row:
            _completion(axis, prompt, sample, (first, bottom), tokens)
    _explain(axis)
    save(figure, HERE / "images" / "rollout-engine.svg")


def _prompt(axis: Axes, name: str, left: float, text: str) -> None:
    """A prompt's keys and values beside all the rows that continue it."""
    box = FancyBboxPatch(
        (left, 0.1), 1.5, len(ROWS) - 0.4, boxstyle="round,pad=0.05", color=COLOURS[name]
    )
    axis.add_patch(box)
    axis.text(left + 0.75, len(ROWS) / 2, f"prompt {name}\nkeys and\nvalues", **CENTRED)
    axis.text(left + 0.75, len(ROWS) + 0.05, text, ha="center", fontsize=9, color=INK)


def _completion(axis: Axes, prompt: str, sample: int, corner: tuple[int, int], tokens: int) -> None:
    """One row's tokens; the last one ends the answer."""
    first, bottom = corner
    for token in range(tokens):
        is_end = token == tokens - 1
        cell = Rectangle(
            (first + token, bottom + 0.08),
            0.92,
            0.7,
            facecolor=INK if is_end else COLOURS[prompt],
            alpha=1.0 if is_end else 0.75,
        )
        axis.add_patch(cell)
    axis.text(first + 0.1, bottom + 0.43, f"{prompt}{sample}", va="center", fontsize=9)


def _explain(axis: Axes) -> None:
    """The words around the picture."""
    axis.text(-7.1, 4.6, "waiting", fontsize=9, color=INK)
    for number, name in enumerate(("prompt B", "prompt C", "...")):
        axis.text(-7.1, 3.9 - 0.55 * number, name, fontsize=9, color=INK)
    axis.annotate("", (-3.9, 3.4), (-5.5, 3.4), arrowprops={"arrowstyle": "->", "color": INK})
    axis.annotate("", (STEPS, 5.35), (0, 5.35), arrowprops={"arrowstyle": "->", "color": INK})
    axis.text(0, 5.5, "decode steps: one token for every row that goes on", fontsize=9)
    for left in (5, 11):
        axis.plot([left - 0.04] * 2, [-0.1, 5.2], color=COLOURS["B"], linestyle="--", linewidth=1)
    axis.text(5, -0.5, "places are free: B is read", fontsize=9, color=INK)
    axis.text(11, -0.5, "the rest of B, not read again", fontsize=9, color=INK)
    lines = (
        "attention of a row = its prompt's part and its own part, merged by log-sum-exp",
        "token t of sample i is drawn with u(seed, prompt id, i, t), whatever stands beside it",
        "finished rows (dark cell: end) leave and go to disk in the order of prompts and samples",
    )
    for number, line in enumerate(lines):
        axis.text(-3.6, -1.5 - 0.6 * number, line, fontsize=9, color=INK)


if __name__ == "__main__":
    main()
