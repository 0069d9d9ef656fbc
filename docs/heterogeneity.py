"""Write what `demoalign study heterogeneity` found into docs/heterogeneity.md.

    demoalign study heterogeneity --seeds 3 --output runs/doubts
    cp runs/doubts/results.json docs/results/heterogeneity.json
    python docs/heterogeneity.py docs/results/heterogeneity.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from pages import Row, head, insert, line, printed_by, read_results, save

HERE = Path(__file__).parent
DRAWN = {
    "surface AUC, demonstration or SFT sample": ("#009e73", "^"),
    "surface AUC, SFT or initial sample": ("#0072b2", "o"),
    "log-ratio outside the support": ("#e69f00", "P"),
    "tokens outside the support": ("#d55e00", "s"),
    "agreement of init-sft and density-ratio": ("#aa4499", "D"),
}


def main() -> None:
    """Read the results, write the tables and the picture."""
    study = read_results(__doc__)
    picture = "![Measures of heterogeneity by dial](images/heterogeneity.svg)"
    text = "\n".join([picture, "", *_measures(study), "", *_verdicts(study), "", _basis(study)])
    insert(HERE / "heterogeneity.md", "heterogeneity", text)
    _draw(study, HERE / "images" / "heterogeneity.svg")
    sys.stdout.write(text + "\n")


def _measures(study: Row) -> list[str]:
    """Each measure's mean over seeds at each dial, and in how many seeds it orders the dials."""
    dials = [f"dial {dial:g}" for dial in study["dials"]]
    lines = head("measure", [*dials, "orders the dials"])
    for measure in study["measures"]:
        cells = [_mean(row) for row in measure["rows"]]
        ranks = max(measure["rises"], measure["falls"])
        way = "falling, " if measure["falls"] > measure["rises"] else ""
        cells.append(f"{way}in {ranks} of {measure['seeds']} seeds")
        lines.append(line(measure["measure"], cells))
    return lines


def _mean(row: Row) -> str:
    known = [value for value in row["by_seed"] if value is not None]
    if not known:
        return ""
    return f"{row['value']:.3f} ({', '.join(f'{value:.3f}' for value in known)})"


def _verdicts(study: Row) -> list[str]:
    """The verdict of every run beside what its rewards were worth."""
    names = list(dict.fromkeys(name for row in study["verdicts"] for name in row["golden"]))
    lines = head("dial, seed", ["verdict", *names, "greedy"])
    for row in study["verdicts"]:
        best = max((row["golden"].get(name) or float("-inf")) for name in names)
        cells = [str(row["advice"])]
        for name in names:
            value = row["golden"].get(name)
            shown = "" if value is None else f"{value:.2f}"
            cells.append(f"**{shown}**" if value == best else shown)
        cells.append("" if row["greedy"] is None else f"{row['greedy']:.2f}")
        lines.append(line(f"{row['dial']:g}, {row['seed']}", cells))
    return lines


def _basis(study: Row) -> str:
    return (
        f"Means over {study['seeds']} seeds (each seed's in brackets); below, golden reward of "
        f"what each reward chooses at the largest n, the best in bold. {printed_by(study)}"
    )


def _draw(study: Row, path: Path) -> None:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for measure in study["measures"]:
        if measure["measure"] not in DRAWN:
            continue
        colour, mark = DRAWN[measure["measure"]]
        rows = [row for row in measure["rows"] if row["value"] is not None]
        for row in rows:
            seeds = [value for value in row["by_seed"] if value is not None]
            axes.plot([row["dial"]] * len(seeds), seeds, mark, color=colour, alpha=0.3, ms=4)
        means = [row["value"] for row in rows]
        dials = [row["dial"] for row in rows]
        axes.plot(dials, means, color=colour, marker=mark, label=measure["measure"])
    axes.set_xlabel("dial of heterogeneity")
    axes.legend(fontsize=7, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
