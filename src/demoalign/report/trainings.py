"""What a training against a reward has noted below ``policy/``: rounds, checks, how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demoalign.config import TRAINED
from demoalign.report.stored import (
    Json,
    Problems,
    interval_of,
    mapping_of,
    number_of,
    read_json,
    read_lines,
    text_of,
    whole_of,
)

ROUNDS, CHECKS, ENDED = "rounds.jsonl", "checks.jsonl", "training.json"


@dataclass(frozen=True, slots=True)
class Noted:
    """Numbers of a round, or of a check on the held-out prompts.

    Attributes:
        round: how many rounds were done by then; an iteration's number for irl.
        values: by name; what is not known is left out.
        intervals: 95 % of those that have one.
        step: of an irl iteration, what became of its policy step; empty if there was none.
    """

    round: int
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    step: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Trained:
    """A training as it was stored.

    Attributes:
        method: of ``improve``, empty if the recipe does not say.
        rounds: in order.
        checks: in order, the first of the policy that training began with.
        prompts: how many held-out prompts decide; 0 if nothing does.
        done: how many rounds, or None if that is not stored.
        best: the round whose policy was kept, or None.
        stopped: why it ended early, in the training's words; empty if it did not.
    """

    method: str
    rounds: tuple[Noted, ...]
    checks: tuple[Noted, ...]
    prompts: int
    done: int | None
    best: int | None
    stopped: str


def read_training(run: Path, recipe: Mapping[str, Json], problems: Problems) -> Trained | None:
    """The training of a run's policy; None where none was trained against a reward."""
    folder = run / "policy"
    method = text_of(mapping_of(recipe.get("improve")).get("method"))
    wanted = method in TRAINED or any((folder / name).is_file() for name in (ROUNDS, CHECKS))
    if not wanted or not folder.is_dir():
        return None
    ended = mapping_of(read_json(folder / ENDED, problems, f"policy/{ENDED}"))
    done = whole_of(ended.get("rounds"))
    rounds: list[Mapping[str, Json]] = []
    if done != 0 or (folder / ROUNDS).exists():
        rounds = read_lines(folder / ROUNDS, problems, f"policy/{ROUNDS}")
    checks = read_lines(folder / CHECKS, problems, f"policy/{CHECKS}")
    decided = [len(each) for line in checks if isinstance(each := line.get("watched"), list)]
    return Trained(
        method,
        _in_order(rounds, problems, f"policy/{ROUNDS}"),
        _in_order(checks, problems, f"policy/{CHECKS}"),
        max(decided, default=0),
        done,
        whole_of(ended.get("best")),
        text_of(ended.get("stopped")),
    )


def _in_order(
    lines: Sequence[Mapping[str, Json]], problems: Problems, shown: str
) -> tuple[Noted, ...]:
    """By round; of a round that is there twice the last counts."""
    found = {}
    for line in lines:
        number = whole_of(line.get("round"))
        if number is None or number < 0:
            problems.add(f"{shown} holds a line without a round.")
            continue
        found[number] = _noted(number, line)
    return tuple(found[number] for number in sorted(found))


def _noted(number: int, line: Mapping[str, Json]) -> Noted:
    """A check has its numbers below ``means``, a round beside its number."""
    means = mapping_of(line.get("means")) or line
    values = {name: number_of(value) for name, value in means.items() if name != "round"}
    bounds = mapping_of(line.get("ci95")) or {"accuracy": line.get("ci95")}
    intervals = {name: interval_of(value) for name, value in bounds.items()}
    return Noted(
        number,
        {name: value for name, value in values.items() if value is not None},
        {name: each for name, each in intervals.items() if each is not None},
        mapping_of(line.get("step")),
    )
