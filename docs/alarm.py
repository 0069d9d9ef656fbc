"""Write what `demoalign study alarm` found into docs/over-optimisation.md.

    demoalign study alarm --seeds 3 --output runs/doubts
    cp runs/doubts/results.json docs/results/alarm.json
    python docs/alarm.py docs/results/alarm.json

Every number between the markers of that page comes from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from pages import Row, head, insert, interval, line, printed_by, read_results, save, style_of

HERE = Path(__file__).parent
TRUTHS = ("fell", "unclear", "did not fall")
NAMES = {
    "alarm": "**alarm**",
    "alarm_others": "others' view has fallen",
    "alarm_others, with preference": "the same, asking `preference` too",
    "alarm_length": "most are unlike in length",
    "alarm_repetition": "most repeat themselves",
    "alarm_disagreement": "others disagree more",
}


def main() -> None:
    """Read the results, write the tables and the picture."""
    study = read_results(__doc__)
    picture = "![Golden reward lost by dial, filled where the alarm sounds](images/alarm.svg)"
    text = "\n".join([picture, "", *_rates(study), "", *_falls(study), "", _basis(study)])
    insert(HERE / "over-optimisation.md", "alarm", text)
    _draw(study, HERE / "images" / "alarm.svg")
    sys.stdout.write(text + "\n")


def _rates(study: Row) -> list[str]:
    """How often each sign sounded, by what golden did."""
    lines = []
    for kind in dict.fromkeys(row["selectors"] for row in study["rates"]):
        rows = [row for row in study["rates"] if row["selectors"] == kind]
        lines += ["", *head(kind, [f"golden {truth}" for truth in TRUTHS])]
        for sign, name in NAMES.items():
            found = {row["truth"]: row for row in rows if row["sign"] == sign}
            lines.append(line(name, [_rate(found[truth]) for truth in TRUTHS]))
    return lines[1:]


def _rate(row: Row) -> str:
    if row["rate"] is None:
        return "no case"
    low, high = row["ci95"]
    return f"{row['sounded']} of {row['cases']}, {row['rate']:.0%} [{low:.0%}, {high:.0%}]"


def _falls(study: Row) -> list[str]:
    """Every case in which golden fell."""
    lines = head("golden fell under", ["dial", "seed", "best at n =", "lost by the end", "alarm"])
    for case in study["cases"]:
        if case["truth"] == "fell":
            onset = "" if case["onset"] is None else f"{case['onset']:g}"
            heard = "sounds" if case["sounded"]["alarm"] else "silent"
            cells = [f"{case['dial']:g}", str(case["seed"]), onset]
            cells += [interval(case["drop"], case["ci95"]), heard]
            lines.append(line(case["selector"], cells))
    return lines


def _basis(study: Row) -> str:
    dials = sorted({case["dial"] for case in study["cases"]})
    return (
        f"A case is a selector of a run, up to n = {study['n']}; {len(study['cases'])} cases, "
        f"{study['seeds']} seeds at each of {len(dials)} dials. Cases of one run share their "
        "samples, so that intervals (Wilson) are too narrow rather than too wide. "
        f"{printed_by(study)}"
    )


def _draw(study: Row, path: Path) -> None:
    """Golden drop of every case by dial, filled where the alarm sounds."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(case["selector"] for case in study["cases"]))
    for place, name in enumerate(names):
        colour, mark = style_of(name)
        mark = mark if mark not in ("x", "+", "_", ".") else "d"
        for case in study["cases"]:
            if case["selector"] != name:
                continue
            x = case["dial"] + 0.022 * (place - len(names) / 2)
            axes.plot([x, x], case["ci95"], color=colour, lw=0.8)
            fill = colour if case["sounded"]["alarm"] else "white"
            axes.plot(x, case["drop"], mark, color=colour, markerfacecolor=fill, markersize=5)
        axes.plot([], [], mark, color=colour, label=name)
    axes.axhline(0, color="#222222", lw=0.8)
    axes.set_xlabel("dial; filled where the alarm sounds")
    axes.set_ylabel("golden reward lost after its best n")
    axes.legend(fontsize=7, ncols=2, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
