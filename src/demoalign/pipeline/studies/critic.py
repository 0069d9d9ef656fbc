"""The paper's Table 2: who beats whom when a critic compares answers, on the runs of `rewards`.

The paper asks GPT-4. Here the golden reward is the critic unless the recipe names a judge: the
higher one wins, equal ones tie. Its fractions are exact expectations over the stored candidates
(`evaluation.wins`), and every two policies and selectors are compared. A judge that is asked by
``evaluation.judge`` compares what the table compares; its replies are kept with each run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import JudgeConfig, Recipe
from demoalign.errors import RecipeError
from demoalign.evaluation.judge.pairs import PAIR
from demoalign.evaluation.measured import Measured
from demoalign.evaluation.wins import Side, compare, sides_of
from demoalign.improve.best_of_n import kl_bound
from demoalign.pipeline.judging import Comparison, Judging
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.studies.methods import SAMPLES, best_of
from demoalign.pipeline.studies.rewards import DIALS, worlds
from demoalign.pipeline.studies.worlds import (
    Array,
    dials_of,
    estimate,
    finished,
    needs_golden,
    share,
)

OUTCOMES = ("win", "tie", "lose")
GOLDEN = "golden reward"
IRL, PREFERENCE = "init-sft", "preference"

Outcomes = Mapping[tuple[str, str], Mapping[str, Array]]
"""(policy, against) -> outcome -> (P,) its probability on each prompt."""


def study_critic(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Win, tie and lose rates of every two policies and selectors, at every dial.

    Raises:
        RecipeError: there is neither a golden reward nor a judge, no candidate to compare a choice
            with, or a judge but not both reward models of the table.
    """
    judge = recipe.evaluation.judge
    if judge is None:
        needs_golden(recipe, "critic")
    else:
        _needs_rewards(recipe)
    n = compared_n(recipe)
    rows = []
    for dial in dials_of(recipe, DIALS):
        pipelines = worlds(recipe, dial, seeds, output)
        measured = [finished(pipeline) for pipeline in pipelines]
        runs = (
            [_by_golden(each, n) for each in measured]
            if judge is None
            else [_by_judge(pipeline, judge, n) for pipeline in pipelines]
        )
        rows += [{"dial": dial, **row} for row in _rows(runs)]
    critic = GOLDEN if judge is None else judge.model
    return {"critic": critic, "n": n, "kl_bound": kl_bound(n), "rows": rows}


def _needs_rewards(recipe: Recipe) -> None:
    titles = [each.title for each in recipe.reward]
    if missing := [name for name in (IRL, PREFERENCE) if name not in titles]:
        raise RecipeError(
            f"reward: the study critic has a judge compare {IRL} and {PREFERENCE}, found no "
            f"{missing[0]} among {', '.join(titles)}"
        )


def compared_n(recipe: Recipe) -> int:
    """As many candidates as possible: the largest N but the last, which leaves none to beat.

    Raises:
        RecipeError: there are no such N.
    """
    fitting = [n for n in recipe.evaluation.sizes if 1 < n < max(recipe.evaluation.sizes)]
    if not fitting:
        raise RecipeError(
            "evaluation.n: the study critic compares the best of N with samples that are not among "
            f"them, which needs an n of 4 or more, found {recipe.evaluation.n}"
        )
    return fitting[-1]


def _by_golden(measured: Measured, n: int) -> Outcomes:
    sides = {_name(side): side for side in sides_of(measured, n)}
    found: dict[tuple[str, str], dict[str, Array]] = {}
    for policy, against in permutations(sides, 2):
        if (against, policy) in found:
            wins, ties, losses = (found[against, policy][each] for each in ("lose", "tie", "win"))
        else:
            wins, ties = compare(sides[policy], sides[against])
            losses = np.clip(1 - wins - ties, 0, 1)
        found[policy, against] = dict(zip(OUTCOMES, (wins, ties, losses), strict=True))
    return found


def _by_judge(pipeline: Pipeline, judge: JudgeConfig, n: int) -> Outcomes:
    """The three comparisons of the table; a pair that could not be judged does not count."""
    irl, preference, samples = ("sft", IRL, n), ("sft", PREFERENCE, n), ("sft", "none", 1)
    names = {irl: best_of(n, IRL), preference: best_of(n, PREFERENCE), samples: SAMPLES}
    found = {}
    for policy, against in ((irl, preference), (irl, samples), (preference, samples)):
        judging = Judging(pipeline.run.folder, judge, Comparison(policy, against))
        sys.stderr.write(f"{judging.estimate().line('judge')}\n")
        summary = judging.judge()
        lines = (Path(summary["folder"]) / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
        pairs = [pair for pair in map(json.loads, lines) if pair["kind"] == PAIR]
        results = [pair["result"] if pair["result"] in OUTCOMES else None for pair in pairs]
        found[names[policy], names[against]] = {
            each: np.array([np.nan if r is None else float(r == each) for r in results])
            for each in OUTCOMES
        }
    return found


def _name(side: Side) -> str:
    """As the other studies call it."""
    if side.scores is not None:
        return best_of(side.n, side.selector)
    return side.policy if side.selector == "none" else f"{side.policy}, {side.selector}"


def _rows(runs: Sequence[Outcomes]) -> list[dict[str, Any]]:
    return [
        {"policy": policy, "against": against}
        | {each: share([run[policy, against][each] for run in runs]) for each in OUTCOMES}
        | {
            "win_minus_lose": estimate(
                [run[policy, against]["win"] - run[policy, against]["lose"] for run in runs]
            )
        }
        for policy, against in runs[0]
    ]
