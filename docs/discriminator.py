"""Write what `demoalign study discriminator` found into docs/closed-form.md, and draw it.

    demoalign study discriminator --seeds 6 --output runs/discriminator
    cp runs/discriminator/results.json docs/results/discriminator.json
    python docs/discriminator.py docs/results/discriminator.json

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
LABELS = {"full": "`full`", "adapter": "`adapter`", "head": "`head`", "table": "counts alone"}
COLOURS = {"full": "#0072b2", "adapter": "#d55e00", "head": "#009e73", "table": "#222222"}
MARKS = {"full": "o", "adapter": "s", "head": "^", "table": "x"}
TITLES = {"rmse": "error of the logit, nats", "excess_bce": "loss above the best possible, nats"}
POWERS = {"rmse": -0.5, "excess_bce": -1.0}
"""How the metrics of a discriminator without limits fall with n."""

Row = dict[str, Any]


def main() -> None:
    """Read a study's results and write the text and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    study = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    text = "\n".join(
        [
            *_table(study, "rmse", "error of the logit (nats)", 1),
            *_exact(study),
            "",
            *_table(
                study, "excess_bce", "loss above the best possible (thousandths of a nat)", 1e3
            ),
            "",
            *_costs(study),
            "",
            _limits(study),
            "",
            _basis(study),
        ]
    )
    insert(HERE / "closed-form.md", "discriminator", text)
    _draw(study, HERE / "images" / "discriminator.svg")
    sys.stdout.write(text + "\n")


def _table(study: Row, metric: str, title: str, unit: float) -> list[str]:
    sizes = study["sizes"]
    lines = [
        f"| {title} | " + " | ".join(f"n = {n:,}" for n in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for kind, label in LABELS.items():
        cells = [_mean(row[metric], unit) for row in _of(study, kind)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    best = _mean(study["best_head"][metric], unit)
    return [*lines, f"| the best head there is | {best} |" + " |" * (len(sizes) - 1)]


def _exact(study: Row) -> list[str]:
    error = max(each["rmse"] for each in study["closed_form"])
    return [f"| `density_ratio` | {error:.7f}, by rounding |" + " |" * (len(study["sizes"]) - 1)]


def _costs(study: Row) -> list[str]:
    """CPU seconds at the largest n."""
    n, exact = study["sizes"][-1], study["closed_form"]
    lines = [
        f"| CPU seconds, n = {n:,} | sampling | training | scoring all {study['completions']} |",
        "|---" * 4 + "|",
    ]
    sampling = _average(study["sampling_cpu_seconds"])
    scored = _average([each["cpu_seconds"] for each in exact])
    lines += [
        f"| {LABELS[kind]} | {sampling:.1f} | {_average(_of(study, kind)[-1]['cpu_seconds']):.1f} "
        "| one forward pass |"
        for kind in ("full", "adapter", "head")
    ]
    return [*lines, f"| `density_ratio` | none | none | {scored:.2f}, two forward passes |"]


def _limits(study: Row) -> str:
    """What keeps each discriminator from the log-ratio, read off the errors at the largest n."""
    last = {kind: _of(study, kind)[-1]["rmse"]["value"] for kind in LABELS}
    own, counts = study["best_head"]["rmse"]["value"], last["table"]
    return (
        f"At n = {study['sizes'][-1]:,}, error over that of counts alone: `full` "
        f"{last['full'] / counts:.2f}, `adapter` {last['adapter'] / counts:.2f} (about 1 or less: "
        "data are the limit, neither capacity nor training steps), `head` "
        f"{last['head'] / counts:.2f}. The head that endless data would give has "
        f"{own / counts:.2f}: its limit is capacity."
    )


def _basis(study: Row) -> str:
    pairs, training = study["pairs"], study["training"]
    shannon = [each["jensen_shannon"] for each in pairs]
    spread = [each["rms_log_ratio"] for each in pairs]
    return (
        f"Means over {study['seeds']} seeds (geometric, with Student's 95 % interval of the log), "
        f"each with its own pair of tiny Llamas p and q, {pairs[0]['kl']:.2f} nat apart (KL), "
        f"Jensen-Shannon divergence {min(shannon):.2f} to {max(shannon):.2f}, and their "
        f"{study['completions']} completions of up to {study['max_new_tokens']} tokens. n samples "
        "of each policy; error: root mean squared distance from the exact log-ratio, y drawn from "
        f"(p + q)/2 (a logit of 0 has {min(spread):.2f} to {max(spread):.2f}); loss: BCE on "
        "endless held-out data, of which log 2 - JS is the least. `full` and `adapter`: "
        f"{training['epochs']} epochs in batches of {training['batch']} pairs, at least "
        f"{training['least_steps']} steps. Counts alone: one logit a completion, smoothed by one "
        f"half. {printed_by(study)}"
    )


def _of(study: Row, kind: str) -> list[Row]:
    """A discriminator's rows by n."""
    return [row for row in study["rows"] if row["kind"] == kind]


def _mean(found: Row, unit: float) -> str:
    value, bounds = unit * found["value"], found["ci95"]
    if bounds is None:
        return f"{value:.2f} (one seed)"
    return interval(value, [unit * bound for bound in bounds])


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _draw(study: Row, path: Path) -> None:
    """Error and loss by n, with what data and capacity allow."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(TITLES))
    sizes = study["sizes"]
    for axis, (metric, title) in zip(axes, TITLES.items(), strict=True):
        for kind, label in LABELS.items():
            found = [row[metric] for row in _of(study, kind)]
            style = {"color": COLOURS[kind], "marker": MARKS[kind], "label": label.strip("`")}
            axis.plot(sizes, [each["value"] for each in found], **style)
            if found[0]["ci95"] is not None:
                low, high = zip(*(each["ci95"] for each in found), strict=True)
                axis.fill_between(sizes, low, high, color=COLOURS[kind], alpha=0.1, linewidth=0)
        last = _of(study, "table")[-1][metric]["value"]
        slope = [last * (n / sizes[-1]) ** POWERS[metric] for n in sizes]
        law = "1/√n and 1/n"
        axis.plot(sizes, slope, color="#777777", linestyle=":", label=law)
        best = study["best_head"][metric]["value"]
        axis.axhline(best, color=COLOURS["head"], linestyle="--", label="the best head there is")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("n, samples of each policy")
        axis.set_ylabel(title)
        axis.grid(alpha=0.2)
        lowest = min(min(row[metric]["by_seed"]) for row in study["rows"])
        axis.set_ylim(bottom=lowest / 2, top=2 * max(slope[0], *_highest(study, metric)))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    save(figure, path)


def _highest(study: Row, metric: str) -> list[float]:
    return [max(row[metric]["by_seed"]) for row in study["rows"]]


if __name__ == "__main__":
    main()
