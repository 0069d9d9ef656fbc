"""Write what `demoalign study ensembles` found into docs/over-optimisation.md.

    demoalign study ensembles --seeds 3 --output runs/doubts
    cp runs/doubts/results.json docs/results/ensembles.json
    python docs/ensembles.py docs/results/ensembles.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from pages import OVER_PROMPTS, Row, cell, head, insert, line, printed_by, read_results, save

HERE = Path(__file__).parent
SHOWN = (4, 16, 64)


def main() -> None:
    """Read the results, write the table and the picture."""
    study = read_results(__doc__)
    picture = "![Golden reward by n: one model, ensembles, mixtures](images/ensembles.svg)"
    text = "\n".join([picture, "", *_table(study), "", _basis(study)])
    insert(HERE / "over-optimisation.md", "ensembles", text)
    _draw(study, HERE / "images" / "ensembles.svg")
    sys.stdout.write(text + "\n")


def _table(study: Row) -> list[str]:
    """Golden reward and difference to a single model at some n, and how often golden fell."""
    sizes = [n for n in SHOWN if n in study["n"]] or study["n"][-1:]
    columns = [f"N = {n}" for n in sizes]
    columns += [f"minus single, N = {sizes[-1]}", "golden fell", "best at n ="]
    lines = []
    for dial in dict.fromkeys(row["dial"] for row in study["rows"]):
        lines += ["", *head(f"dial {dial:g}", columns)]
        for row in study["rows"]:
            if row["dial"] != dial:
                continue
            points = {point["n"]: point for point in row["curve"]}
            cells = [cell(points[n]["golden"], OVER_PROMPTS) for n in sizes]
            single = row["way"] == "single"
            gap = cell(points[sizes[-1]]["minus_single"], OVER_PROMPTS, sign=True)
            cells.append("" if single else gap)
            cells.append(f"{row['fell']} of {row['of']}")
            cells.append(", ".join(f"{n:g}" for n in row["onsets"]))
            lines.append(line(f"{row['base']}: {row['way']}", cells))
    return lines[1:]


def _basis(study: Row) -> str:
    return (
        f"Golden reward of the best of N, mean [95 % interval over prompts], {study['seeds']} "
        f"seeds; ensembles of {study['members']}, whose members have learned from bootstrap "
        "samples of the pairs, the single model from all of them. Golden fell: in how many runs, "
        f"and where it was best in those. {printed_by(study)}"
    )


def _draw(study: Row, path: Path) -> None:
    """Golden reward against n, a panel for each dial and base."""
    dials = list(dict.fromkeys(row["dial"] for row in study["rows"]))
    named = [row["base"] for row in study["rows"]]
    bases = [base for base in dict.fromkeys(named) if named.count(base) > len(dials)]
    figure = Figure(figsize=(3.2 * len(dials), 2.8 * len(bases)), layout="constrained")
    grid = figure.subplots(len(bases), len(dials), squeeze=False, sharex=True)
    marks = "osD^vPX"
    colours = ("#222222", "#0072b2", "#d55e00", "#009e73", "#e69f00", "#aa4499", "#56b4e9")
    for axes, (base, dial) in zip(
        grid.ravel(), ((base, dial) for base in bases for dial in dials), strict=True
    ):
        rows = [row for row in study["rows"] if (row["base"], row["dial"]) == (base, dial)]
        for row, mark, colour in zip(rows, marks, colours, strict=False):
            ns = [point["n"] for point in row["curve"]]
            values = [point["golden"]["value"] for point in row["curve"]]
            axes.plot(ns, values, color=colour, marker=mark, ms=4, lw=1.2, label=row["way"])
        axes.set_xscale("log", base=2)
        axes.set_title(f"{base}, dial {dial:g}", fontsize=9)
    grid[0, 0].legend(fontsize=6, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
