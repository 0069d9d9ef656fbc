"""Draw what `docs/extrapolation_pairs.py` computed; write it into docs/extrapolation-theory.md.

    python docs/extrapolation_pairs.py > docs/results/extrapolation-theory.json
    python docs/extrapolation_theory.py docs/results/extrapolation-theory.json

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

from pages import insert, interval, save

HERE = Path(__file__).parent
WORLDS = {"free": "free length", "fixed": "fixed length", "habits": "free length, habits"}
DRAWN = ("free", "habits")
REWARDS = {"plain": "plain", "masked": "masked, clipped"}
CASES = [(world, reward) for world in WORLDS for reward in REWARDS]
COLOURS = {"plain": "#d55e00", "masked": "#009e73"}
LAMBDAS = (0.5, 1.0, 2.0, 4.0)
SIZES = (4, 16, 64)
IDENTITIES = {
    "value": "1. E[r] - β KL(π* ‖ p) = β log Z",
    "partition": "2. log Z(s) = λ D₁₊λ(p ‖ q) in each state (plain reward)",
    "gap": "3. log π* - log π_tok = Σ log Z(s_t) - log Z for each text",
    "distance": "4. KL(π_tok ‖ π*) = log Z - E_tok[Σ log Z(s_t)]",
    "regret": "5. π_tok loses β KL(π_tok ‖ π*) of E[r] - β KL",
    "less": "6. π_tok is the optimum for r - β Σ log Z(s_t)",
    "induction": "7. backward induction gives π*, and V() = log Z",
    "weights": "8. E_tok[exp Σ log Z(s_t)] = Z",
}

Row = dict[str, Any]


def main() -> None:
    """Read the figures and write text and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    parts = {
        "identities": _identities(found),
        "distance": _distance(found),
        "kept": _kept(found),
        "at-one": _at_one(found),
        "growth": _growth(found),
        "basis": [_basis(found["settings"])],
    }
    for name, lines in parts.items():
        text = "\n".join(lines)
        insert(HERE / "extrapolation-theory.md", name, text)
        sys.stdout.write(text + "\n\n")
    _draw(found, HERE / "images" / "extrapolation-theory.svg")


def _identities(found: Row) -> list[str]:
    errors = found["largest_error"]
    rows = [_line(title, [f"{errors[name]:.0e}"]) for name, title in IDENTITIES.items()]
    return [*_heads("identity", ["largest error, nats"]), *rows]


def _distance(found: Row) -> list[str]:
    lines = _heads("KL(π_tok ‖ π*), nats", [f"λ = {lam:g}" for lam in LAMBDAS])
    for case in CASES:
        rows = {row["lambda"]: row for row in _rows(found, "rows", *case)}
        lines.append(_line(_name(*case), [_mean(rows[lam]["distance"]) for lam in LAMBDAS]))
    return lines


def _kept(found: Row) -> list[str]:
    """Share of the reward gain, of token-wise decoding and of best-of-N."""
    titles = [*(f"λ = {lam:g}" for lam in LAMBDAS), *(f"best of {n}" for n in SIZES)]
    lines = _heads("share of the gain", titles)
    for case in CASES:
        rows = {row["lambda"]: row for row in _rows(found, "rows", *case)}
        best = {row["n"]: row for row in _rows(found, "best_of_n", *case)}
        cells = [rows[lam]["kept"] for lam in LAMBDAS] + [best[n]["kept"] for n in SIZES]
        lines.append(_line(_name(*case), [_share(cell) for cell in cells]))
    return lines


def _at_one(found: Row) -> list[str]:
    titles = ["E[r]: p, π_tok, π*", "KL to p: π_tok, π*", "tokens: p, π_tok, π*"]
    titles += ["of these outside q's support", "foreseen share", "effective share"]
    lines = _heads("λ = 1", titles)
    for case in CASES:
        start = _rows(found, "starts", *case)[0]
        row = next(row for row in _rows(found, "rows", *case) if row["lambda"] == 1)
        cells = [
            _values(start["reward_start"], row["reward_token"], row["reward_optimum"]),
            _values(row["kl_token"], row["kl_optimum"]),
            _values(start["length_start"], row["length_token"], row["length_optimum"]),
            _values(start["outside_start"], row["outside_token"], row["outside_optimum"]),
            _share(start["foreseen"]),
            _share(row["effective"]),
        ]
        lines.append(_line(_name(*case), cells))
    return lines


def _growth(found: Row) -> list[str]:
    rows: list[Row] = found["longest"]
    longest = sorted({row["longest"] for row in rows})
    title = f"KL(π_tok ‖ π*), plain, λ = 1, V = {rows[0]['tokens']}"
    lines = _heads(title, [f"T = {each}" for each in longest])
    for world in dict.fromkeys(row["world"] for row in rows):
        known = {row["longest"]: row["distance"] for row in rows if row["world"] == world}
        lines.append(_line(WORLDS[world], [_mean(known[each]) for each in longest]))
    return lines


def _basis(settings: Row) -> str:
    seeds = settings["seeds"]
    return (
        f"Means with 95 % intervals over {len(seeds)} random pairs (seeds {seeds[0]} to "
        f"{seeds[-1]}; bootstrap over pairs), V = {settings['tokens']} with the end token, "
        f"T = {settings['longest']}, {settings['texts']:,} texts. In each state the logits of q "
        f"are normal with deviation {settings['spread']:g}; those of p are q's plus normal noise "
        f"of deviation {settings['change']:g}. *Fixed length*: the end token has probability 0. "
        f"*Habits*: in {100 * settings['habit_states']:.0f} % of the states p gives probability "
        f"{settings['habit_p']:g} to a token with log q = {settings['habit_log_q']:g}. *Masked, "
        f"clipped*: support log q > {settings['support']:g}, clip {settings['clip']:g}, the "
        "defaults of `density_ratio`. Computed by `docs/extrapolation_pairs.py`, printed by "
        "`docs/extrapolation_theory.py`."
    )


def _rows(found: Row, part: str, world: str, reward: str) -> list[Row]:
    return [row for row in found[part] if (row["world"], row["reward"]) == (world, reward)]


def _name(world: str, reward: str) -> str:
    return f"{WORLDS[world]}; {REWARDS[reward]}"


def _heads(title: str, columns: Sequence[str]) -> list[str]:
    return [_line(title, columns), "|---" * (len(columns) + 1) + "|"]


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _mean(found: Row) -> str:
    return interval(found["value"], found["ci95"])


def _values(*found: Row) -> str:
    return ", ".join(f"{each['value']:.2f}" for each in found)


def _share(found: Row) -> str:
    low, high = found["ci95"]
    return f"{100 * found['value']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _draw(found: Row, path: Path) -> None:
    """A row of panels for each world: the distance, then the frontier of each reward."""
    figure = Figure(figsize=(12.0, 7.4), layout="constrained")
    axes: Sequence[Sequence[Axes]] = figure.subplots(len(DRAWN), 1 + len(REWARDS))
    for line, world in zip(axes, DRAWN, strict=True):
        _draw_distance(line[0], found, world)
        for axis, reward in zip(line[1:], REWARDS, strict=True):
            _draw_frontier(axis, found, world, reward)
        for axis in line:
            axis.grid(alpha=0.2)
    handles, labels = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def _draw_distance(axis: Axes, found: Row, world: str) -> None:
    for reward, colour in COLOURS.items():
        rows = _rows(found, "rows", world, reward)
        lambdas = [row["lambda"] for row in rows]
        means = [row["distance"]["value"] for row in rows]
        axis.plot(lambdas, means, color=colour, label=REWARDS[reward])
        low, high = zip(*(row["distance"]["ci95"] for row in rows), strict=True)
        axis.fill_between(lambdas, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("λ = 1/β")
    axis.set_ylabel("KL(π_tok ‖ π*), nats")
    axis.set_title(WORLDS[world])
    axis.legend(frameon=False)


def _draw_frontier(axis: Axes, found: Row, world: str, reward: str) -> None:
    """Expected reward against KL to p, a point for each lambda and each N."""
    rows, best = (_rows(found, part, world, reward) for part in ("rows", "best_of_n"))
    start = _rows(found, "starts", world, reward)[0]["reward_start"]["value"]
    lambdas = f"λ = {rows[0]['lambda']:g} to {rows[-1]['lambda']:g}"
    sides = (
        (f"sequence optimum π*, {lambdas}", "#222222", ".", "kl_optimum", "reward_optimum", rows),
        (f"token-wise π_tok, {lambdas}", "#0072b2", "o", "kl_token", "reward_token", rows),
        (f"best of N, N = 1 to {best[-1]['n']}", "#aa4499", "s", "kl", "expected", best),
    )
    for label, colour, mark, far, earned, points in sides:
        moved = [0.0, *(point[far]["value"] for point in points)]
        means = [start, *(point[earned]["value"] for point in points)]
        axis.plot(moved, means, color=colour, marker=mark, markersize=4, label=label)
    axis.set_xlabel("KL to p, nats")
    axis.set_ylabel("E[r], nats")
    axis.set_title(_name(world, reward))


if __name__ == "__main__":
    main()
