"""Draw what `docs/mode_matching.py` computed; write it into docs/divergences.md.

    python docs/mode_matching.py > docs/results/modes.json
    python docs/modes.py docs/results/modes.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pages import Row, head, insert, line, read_results, save

HERE = Path(__file__).parent
NAMES = {"fairl": "forward KL", "gail": "Jensen-Shannon", "airl": "reverse KL"}
COLOURS = {
    "forward KL": "#0072b2",
    "alpha 0.25": "#56b4e9",
    "alpha 0.5": "#009e73",
    "Jensen-Shannon": "#e69f00",
    "reverse KL": "#d55e00",
}
LEVELS = {"trajectory": "whole texts", "token": "state-action pairs"}
STYLES = {"trajectory": "-", "token": "--"}


def main() -> None:
    """Read the figures and write text and picture."""
    found = read_results(__doc__)
    parts = {"modes": _table(found), "modes-basis": [_basis(found["settings"])]}
    for name, lines in parts.items():
        insert(HERE / "divergences.md", name, "\n".join(lines))
        sys.stdout.write("\n".join(lines) + "\n\n")
    _draw(found, HERE / "images" / "modes.svg")


def _name(row: Row) -> str:
    return NAMES.get(row["name"]) or f"alpha {row['alpha']:g}"


def _table(found: Row) -> list[str]:
    titles = [
        "P(a)",
        "first mode",
        "second mode",
        "neither",
        "forward KL",
        "reverse KL",
        "caught at",
    ]
    lines = head("minimised, between", titles)
    lines.append(line("the demonstrator", ["", *_sides(found["demonstrator"]), "0", "0", ""]))
    for row in found["minimised"]:
        best, *others = row["minima"]
        label = f"{_name(row)}, {LEVELS[row['level']]}"
        cells = [f"{best['theta']:.2f}", *_sides(row["counts"])]
        cells += [f"{row['forward_kl']:.2f}", f"{row['reverse_kl']:.2f}"]
        lines.append(line(label, [*cells, ", ".join(f"{each['theta']:.2f}" for each in others)]))
    return lines


def _sides(counts: Sequence[float]) -> list[str]:
    """Probability of texts that are mostly a, mostly b, and in between."""
    third = len(counts) // 3
    low, high = sum(counts[:third]), sum(counts[-third:])
    return [f"{100 * each:.0f} %" for each in (high, low, 1 - high - low)]


def _basis(settings: Row) -> str:
    longest = settings["longest"]
    third = (longest + 1) // 3
    share, hold = 100 * settings["share"], settings["hold"]
    return (
        f"Texts of {longest} tokens, {share:.0f} % of the first mode, whose tokens are a with "
        f"probability {hold:g}, the rest of the second, with b in its place. The policy says a "
        "with one probability everywhere. A text is counted to the first mode with "
        f"{longest + 1 - third} a's and more, to the second with {third - 1} and fewer. Both KL "
        "columns are between whole texts, in nats. *Caught at*: further local minima. Exact, by "
        "enumeration (`docs/mode_matching.py`, printed by `docs/modes.py`)."
    )


def _draw(found: Row, path: Path) -> None:
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_texts(left, found)
    _draw_alphas(right, found)
    for axis in (left, right):
        axis.grid(alpha=0.2)
        axis.legend(frameon=False, fontsize="small")
    save(figure, path)


def _draw_texts(axis: Axes, found: Row) -> None:
    """The demonstrator's two modes, and the policy that is nearest by each divergence."""
    numbers = range(len(found["demonstrator"]))
    axis.bar(numbers, found["demonstrator"], color="#dddddd", label="demonstrator")
    for row in found["minimised"]:
        if row["level"] == "trajectory" and _name(row) in COLOURS:
            label = _name(row)
            axis.plot(numbers, row["counts"], color=COLOURS[label], marker=".", label=label)
    axis.set_xlabel(f"tokens a in a text of {numbers[-1]}")
    axis.set_ylabel("probability")
    axis.set_title("nearest policy, between whole texts")


def _draw_alphas(axis: Axes, found: Row) -> None:
    """Where the minima lie along alpha; the lowest as a line, others as dots."""
    for level, style in STYLES.items():
        rows = [row for row in found["alphas"] if row["level"] == level]
        best = [(row["alpha"], row["minima"][0]["theta"]) for row in rows]
        label = f"alpha, {LEVELS[level]}"
        axis.plot(*zip(*best, strict=True), color="#222222", linestyle=style, label=label)
        others = [(row["alpha"], each["theta"]) for row in rows for each in row["minima"][1:]]
        if others:
            axis.plot(
                *zip(*others, strict=True), ".", color="#222222" if style == "-" else "#999999"
            )
    for name, place in (("forward KL", 0.0), ("reverse KL", 1.0)):
        axis.axvline(place, color=COLOURS[name], alpha=0.5)
        axis.text(place, 0.02, f" {name}", color=COLOURS[name], fontsize="small")
    for row in found["minimised"]:
        if row["name"] == "gail":
            label = f"Jensen-Shannon, {LEVELS[row['level']]}"
            theta, style = row["minima"][0]["theta"], STYLES[row["level"]]
            axis.axhline(theta, color=COLOURS[_name(row)], linestyle=style, label=label)
    axis.set_ylim(0, 1)
    axis.set_xlabel("alpha")
    axis.set_ylabel("P(a) of the nearest policy")
    axis.set_title("from covering to picking (dots: further local minima)")


if __name__ == "__main__":
    main()
