"""Write what `demoalign study rejection` found into docs/rollouts.md, and draw it.

    demoalign study rejection --seeds 3 --output runs/rejection
    cp runs/rejection/results.json docs/results/rejection.json
    python docs/rejection.py docs/results/rejection.json

Every number between the markers of that page comes from here.
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

from pages import insert, interval, printed_by, save

HERE = Path(__file__).parent
COLOURS = {"early": "#0072b2", "default": "#d55e00", "late": "#009e73"}
MARKS = {"gentle": "o", "moderate": "s", "aggressive": "^"}
REWARDS = {"proxy": "proxy reward (logits)", "golden": "golden reward"}

Row = dict[str, Any]


def main() -> None:
    """Read a study's results and write the text and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    study = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    text = "\n".join([*_lost(study), "", *_worth(study), "", *_agreement(study), "", _basis(study)])
    insert(HERE / "rollouts.md", "rejection", text)
    _draw(study, HERE / "images" / "rejection.svg")
    sys.stdout.write(text + "\n")


def _lost(study: Row) -> list[str]:
    """Each setting against full best-of-N."""
    lines = [
        f"| against full best of {study['n']} | tokens saved | same winner | proxy reward lost | "
        "golden reward lost (each seed) |",
        "|---" * 5 + "|",
    ]
    for row in study["rows"]:
        lost = _signed(row["golden_lost"])
        seeds = ", ".join(f"{value:+.2f}" for value in row["golden_lost"]["by_seed"])
        lines.append(
            f"| {_label(row)} | {_share(row['tokens_saved'])} | {_share(row['winner_unchanged'])} "
            f"| {_signed(row['proxy_lost'])} | {lost}; {seeds} |"
        )
    return lines


def _worth(study: Row) -> list[str]:
    """Each setting against the plain best-of-n that costs as much."""
    lines = [
        "| against plain best of n at equal tokens | n | proxy reward gained | "
        "golden reward gained (each seed) |",
        "|---" * 4 + "|",
    ]
    for row in study["rows"]:
        over = row["golden_over_equal_tokens"]
        seeds = ", ".join(f"{value:+.2f}" for value in over["by_seed"])
        lines.append(
            f"| {_label(row)} | {row['equal_tokens_n']['value']:.1f} "
            f"| {_signed(row['proxy_over_equal_tokens'])} | {_signed(over)}; {seeds} |"
        )
    return lines


def _agreement(study: Row) -> list[str]:
    """What a checkpoint's scores say of the final ones."""
    lines = [
        "| at token | completions still going on | rank correlation of the judge's score with the "
        "final one | the same, of an answer that ends there |",
        "|---" * 4 + "|",
    ]
    for each in study["checkpoints"]:
        lines.append(
            f"| {each['tokens']} | {_share(each['still_going'])} "
            f"| {_signed(each['rank_correlation'])} "
            f"| {_signed(each['rank_correlation_as_ended'])} |"
        )
    return lines


def _basis(study: Row) -> str:
    full = study["full"]
    best, sample = full["golden_best"], full["golden_sample"]
    other = max(row["other_completions"] for row in study["rows"]) or "none"
    return (
        f"Selector `{study['selector']}`, a head; dial {study['dial']:g}; {study['seeds']} seeds, "
        f"{full['prompts']} test prompts in all, answers of up to {study['max_new_tokens']} tokens "
        f"({full['tokens']['value'] / study['n']:.0f} on average). Golden reward of one sample "
        f"{interval(sample['value'], sample['ci95'])}, of full best of {study['n']} "
        f"{interval(best['value'], best['ci95'])}. Means with 95 % intervals, paired by prompt: "
        "bootstrap over prompts, Wilson for the winners. Candidates that survived and were not "
        f"what full best-of-N had sampled: {other} at any setting. {printed_by(study)}"
    )


def _label(row: Row) -> str:
    places = " and ".join(str(each) for each in row["checkpoints"])
    return f"{row['level']}, at {places}"


def _share(found: Row) -> str:
    low, high = found["ci95"]
    return f"{100 * found['value']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _signed(found: Row) -> str:
    if found["value"] is None:
        return "not known"
    return interval(found["value"], found["ci95"], sign=True)


def _draw(study: Row, path: Path) -> None:
    """Reward against the share of tokens spent: plain best-of-n as a line, rejection as points."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(REWARDS))
    for axis, (reward, title) in zip(axes, REWARDS.items(), strict=True):
        plain = study["plain"]
        shares = [100 * each["n"] / study["n"] for each in plain]
        axis.plot(
            shares,
            [each[reward]["value"] for each in plain],
            color="#222222",
            label="plain best of n",
        )
        low, high = zip(*(each[reward]["ci95"] for each in plain), strict=True)
        axis.fill_between(shares, low, high, color="#222222", alpha=0.1, linewidth=0)
        for row in study["rows"]:
            axis.plot(
                100 * (1 - row["tokens_saved"]["value"]),
                row[reward]["value"],
                color=COLOURS[row["place"]],
                marker=MARKS[row["level"]],
                linestyle="none",
                label=_label(row),
            )
        axis.set_xlabel(f"tokens sampled, % of best of {study['n']}")
        axis.set_ylabel(f"{title} of the chosen")
        axis.grid(alpha=0.2)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
