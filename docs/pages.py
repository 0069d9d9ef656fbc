"""What the scripts of this folder share: tables between markers, and pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Row = dict[str, Any]

OVER_SEEDS, OVER_PROMPTS = "seeds95", "ci95"
INTERVALS = {
    OVER_SEEDS: "Intervals: Student's t over the seeds' means, so that they include how trainings "
    "differ",
    OVER_PROMPTS: "Intervals by bootstrap over prompts: they hold for these trainings and do not "
    "include how trainings differ",
}
"""What is said of the two kinds of intervals that a study has."""

TRAINED = ("optimisers", "irl", "adversarial", "stabilisers")
"""Studies of trained policies, which one script writes."""

STYLES = {
    "demonstrations": ("#777777", "_"),
    "sft": ("#bbbbbb", "."),
    "sft, greedy": ("#000000", "x"),
    "init-sft": ("#0072b2", "o"),
    "init-demo": ("#d55e00", "s"),
    "sft-demo": ("#009e73", "^"),
    "preference": ("#aa4499", "D"),
    "density-ratio": ("#e69f00", "P"),
    "length": ("#777777", "x"),
    "mean-logprob": ("#999999", "+"),
    "sequence-logprob": ("#bbbbbb", "v"),
    "golden": ("#222222", "*"),
}
"""Colour and mark of policies and selectors."""


def style_of(name: str) -> tuple[str, str]:
    """Colour and mark, of a reward model with a name of its own too."""
    return STYLES.get(name, ("#56b4e9", "h"))


def read_results(description: str | None) -> Row:
    """The results file that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("results", type=Path)
    found: Row = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    return found


def insert(path: Path, name: str, text: str) -> None:
    """Put text between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text(encoding="utf-8")
    before, found_begin, rest = old.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{path}: needs the markers {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def interval(value: float, bounds: Sequence[float], sign: bool = False) -> str:
    """A mean with its 95 % interval."""
    mark = "+" if sign else ""
    return f"{value:{mark}.2f} [{bounds[0]:{mark}.2f}, {bounds[1]:{mark}.2f}]"


def bounds_of(found: Sequence[Mapping[str, Any]]) -> str:
    """Which interval is shown: over seeds if all of these means have one, else over prompts."""
    return OVER_SEEDS if all(each[OVER_SEEDS] for each in found) else OVER_PROMPTS


def cell(found: Mapping[str, Any] | None, bounds: str, sign: bool = False) -> str:
    """A mean with one of its intervals; nothing where there is none."""
    if found is None or found["value"] is None:
        return ""
    return interval(found["value"], found[bounds], sign)


def with_seeds(found: Mapping[str, Any], bounds: str = OVER_PROMPTS) -> str:
    """A difference with its interval, and each seed's."""
    seeds = ", ".join(f"{value:+.2f}" for value in found["by_seed"])
    return f"{cell(found, bounds, sign=True)}; {seeds}"


def printed_by(study: Row) -> str:
    """How a study's section ends: what prints it, with what set, and what else has to be said."""
    name = study["study"]
    changed = "".join(f" --set {each}" for each in study.get("set", []))
    note = f" {study['note']}" if "note" in study else ""
    return f"Printed by `demoalign study {name}{changed}` and `docs/{script_of(name)}.py`.{note}"


def script_of(study: str) -> str:
    """The script of a study's tables."""
    return "trained" if study in TRAINED else study.replace("-", "_")


def head(first: str, columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]


def line(label: str, cells: Sequence[str]) -> str:
    """A further line of it."""
    return f"| {label} | {' | '.join(cells)} |"


def save(figure: Figure, path: Path) -> None:
    """Store a picture; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "demoalign"}):
        FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None})
