"""Write what studies of trained policies found into optimisation.md and divergences.md; draw it.

    demoalign study optimisers --seeds 3 --output runs/optimisers
    cp runs/optimisers/results.json docs/results/optimisers.json
    python docs/trained.py docs/results/optimisers.json

Likewise for the studies adversarial, stabilisers and irl, whose results say which study they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pages import (
    OVER_PROMPTS,
    Row,
    bounds_of,
    cell,
    head,
    insert,
    interval,
    line,
    printed_by,
    read_results,
    save,
    with_seeds,
)

LEAST = 3
"""Seeds from which on an interval over them says something."""

VALUE = "golden"
"""What is drawn upwards."""

FACTS = {
    "KL": ".1f",
    "tokens": ".0f",
    "entropy": ".2f",
    "distinct pairs": ".2f",
    "precision": ".2f",
    "recall": ".2f",
    "minutes": ".1f",
}
"""What is shown of each method besides rewards, and how."""

ROOT = Path(__file__).parent
PAGES = {
    "optimisers": "optimisation.md",
    "irl": "optimisation.md",
    "adversarial": "divergences.md",
    "stabilisers": "divergences.md",
}


def main() -> None:
    """Fill the study's place on its page."""
    results = read_results(__doc__)
    study = results["study"]
    tables = iterations(results) if study == "irl" else []
    picture = [f"![Golden reward as training goes on](images/{study}.svg)"]
    parts = [*picture, *policies(results), *tables, basis(results)]
    insert(ROOT / PAGES[study], study, "\n\n".join(parts))
    figure = draw_iterations(results) if study == "irl" else draw(results)
    save(figure, ROOT / "images" / f"{study}.svg")


def policies(results: Row) -> list[str]:
    """One table a dial: golden reward, differences, distance and cost of every method."""
    found = []
    for dial in dict.fromkeys(row["dial"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["dial"] == dial]
        rivals = [key for key in rows[0] if key.startswith("minus_")]
        bounds = bounds_of([row["golden"] for row in rows])
        bounds = OVER_PROMPTS if results["seeds"] < LEAST else bounds
        titles = [f"minus {key.removeprefix('minus_').replace('_', ' ')}" for key in rivals]
        columns = ["golden reward", *titles, *FACTS, "stopped"]
        lines = head("" if dial is None else f"dial {dial:g}", columns)
        for row in rows:
            cells = [cell(row["golden"], bounds)]
            cells += [difference(row[key], bounds) for key in rivals]
            lines.append(line(row["method"], [*cells, *facts(row)]))
        found.append("\n".join(lines))
    return found


def difference(found: Row, bounds: str) -> str:
    """With its interval, and each seed's where that interval is over prompts alone."""
    if bounds == OVER_PROMPTS and found["value"]:
        return with_seeds(found)
    return cell(found, bounds, sign=True)


def facts(row: Row) -> list[str]:
    """Distance, length, diversity, cost, and how many seeds stopped themselves."""
    known = {
        "KL": [row["kl"]["value"]] if "kl" in row else [],
        "tokens": row.get("tokens", []),
        "entropy": row.get("entropy", []),
        "distinct pairs": row.get("distinct", []),
        "precision": row.get("precision", []),
        "recall": row.get("recall", []),
        "minutes": [seconds / 60 for seconds in row.get("seconds", [])],
    }
    cells = [format(mean(known[name]), FACTS[name]) if known[name] else "" for name in FACTS]
    if "stopped" not in row:
        return [*cells, ""]
    stopped = [why.partition(":")[0] for why in row["stopped"] if why]
    said = f"{len(stopped)} of {len(row['stopped'])}" + (f": {stopped[0]}" if stopped else "")
    return [*cells, said]


def iterations(results: Row) -> list[str]:
    """Accuracy of the reward and golden reward of the policy, iteration by iteration."""
    lines = head("each seed", ["reward accuracy, held out", "golden reward", "KL"])
    kept = results["iterations"]
    keys = dict.fromkeys((each["dial"], each["method"], each["iteration"]) for each in kept)
    for dial, method, number in keys:
        same = [
            e for e in kept if (e["dial"], e["method"], e["iteration"]) == (dial, method, number)
        ]
        accuracy = [interval(e["accuracy"], e["ci95"]) for e in same if "accuracy" in e]
        seen = [e["policy"] for e in same if e["policy"]]
        golden = ", ".join(f"{each['golden']:.2f}" for each in seen)
        kl = ", ".join(f"{each['kl']:.1f}" for each in seen)
        label = f"dial {dial:g}, {method}, iteration {number}"
        lines.append(line(label, ["; ".join(accuracy), golden, kl]))
    return ["\n".join(lines)]


def basis(results: Row) -> str:
    """What the numbers are of."""
    seeds = results["seeds"]
    kinds = "over seeds (Student's t)" if seeds >= LEAST else "over prompts; each seed"
    budget = f" {results['budget']:,} rollouts a training." if "budget" in results else ""
    return (
        f"Golden reward (at most 7) of samples on the test prompts, mean [95 % interval {kinds}], "
        f"{seeds} {'seeds' if seeds > 1 else 'seed'}.{budget} KL from the SFT policy in nats an "
        "answer, entropy in nats a token; distinct pairs: share of pairs of words that are "
        "different ones; precision and recall: of the wordings said, against those of the "
        "demonstrations (Sajjadi et al., 2018); minutes of training on the machine that ran it, "
        "shared with other work. "
        "The picture shows samples on the prompts that trainings are watched on: seeds thin, means "
        "thick. "
        f"{printed_by(results)}"
    )


def draw_iterations(results: Row) -> Figure:
    """ML-IRL's Figure 2: reward accuracy and golden reward, iteration by iteration."""
    kept = results["iterations"]
    dials = list(dict.fromkeys(each["dial"] for each in kept))
    figure = Figure(figsize=(4.6 * len(dials), 6.4), layout="constrained")
    grid = figure.subplots(2, len(dials), sharex=True, sharey="row", squeeze=False)
    methods = list(dict.fromkeys(each["method"] for each in kept))
    for place, dial in enumerate(dials):
        for number, method in enumerate(methods):
            mine = [each for each in kept if (each["dial"], each["method"]) == (dial, method)]
            for row, name in zip(grid, ("accuracy", "golden"), strict=True):
                seeds = [_by_iteration(mine, seed, name) for seed in range(results["seeds"])]
                _lines(row[place], seeds, "iteration", f"C{number}", method)
        if dial is not None:
            grid[0][place].set_title(f"dial {dial:g}")
        grid[1][place].set_xlabel("iteration")
    grid[0][0].set_ylabel("reward accuracy, held out")
    grid[1][0].set_ylabel("golden reward of samples")
    _legend(figure, grid[0][0], len(dials))
    return figure


def _by_iteration(kept: Sequence[Row], seed: int, name: str) -> list[Row]:
    """One seed's iterations that have a value, as points of a line."""
    found = []
    for each in kept:
        value = each.get("accuracy") if name == "accuracy" else (each["policy"] or {}).get("golden")
        if each["seed"] == seed and value is not None:
            found.append({"iteration": each["iteration"], VALUE: value})
    return found


def draw(results: Row) -> Figure:
    """Golden reward of samples on held-out prompts: against rollouts, and against KL."""
    curves = results["curves"]
    dials = list(dict.fromkeys(each["dial"] for each in curves))
    figure = Figure(figsize=(4.6 * len(dials), 6.4), layout="constrained")
    grid = figure.subplots(2, len(dials), sharey=True, squeeze=False)
    axes_of = {"rollouts": "rollouts learned from", "kl": "KL from the SFT policy (nats)"}
    methods = list(dict.fromkeys(each["method"] for each in curves))
    for row, (key, label) in zip(grid, axes_of.items(), strict=True):
        for axes, dial in zip(row, dials, strict=True):
            for number, method in enumerate(methods):
                mine = [e["checks"] for e in curves if (e["dial"], e["method"]) == (dial, method)]
                _lines(axes, mine, key, f"C{number}", method)
            axes.set_xlabel(label)
            axes.grid(alpha=0.2)
            if key == "rollouts" and dial is not None:
                axes.set_title(f"dial {dial:g}")
        row[0].set_ylabel("golden reward")
    _legend(figure, grid[0][0], len(dials))
    return figure


def _lines(axes: Axes, seeds: Sequence[Sequence[Row]], key: str, colour: str, label: str) -> None:
    """Each seed's checks thin, and their mean as far as all seeds have them."""
    for checks in seeds:
        axes.plot(
            [check[key] for check in checks],
            [check[VALUE] for check in checks],
            color=colour,
            alpha=0.3,
            linewidth=0.8,
        )
    same = list(zip(*seeds, strict=False))
    axes.plot(
        [mean([check[key] for check in checks]) for checks in same],
        [mean([check[VALUE] for check in checks]) for checks in same],
        color=colour,
        marker="o",
        markersize=4,
        label=label,
    )


def _legend(figure: Figure, axes: Axes, panels: int) -> None:
    """Below everything, no wider than the panels."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(4, 2 * panels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def mean(values: Sequence[float]) -> float:
    """Over the seeds."""
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
