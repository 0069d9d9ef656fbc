"""Whether ensembles and mixtures choose better, and fall later, than one reward model.

Every ensemble is trained once; its members' scores are aggregated in each way, so that the ways
differ in nothing else. The single model has learned from all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import EnsembleConfig, Recipe, RewardConfig, parse_recipe
from demoalign.errors import RecipeError
from demoalign.evaluation.measured import Measured, as_grid
from demoalign.evaluation.overoptimisation import Choosing, Fall, fall_of
from demoalign.pipeline.measure import load_measured, test_rows
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.sources import CANDIDATES, read_sampled
from demoalign.pipeline.studies.worlds import (
    Array,
    estimate,
    kept,
    lean,
    needs_golden,
    only_the_world,
    world,
)
from demoalign.rewards.ensemble import aggregate
from demoalign.rewards.scoring import score_together

DIALS = (0.0, 0.5, 1.0)
MEMBERS = 4
BASES = ("init-sft", "sft-demo")
"""The paper's reward, and the one that was seen to be over-optimised without habits."""

PREFERENCE = "preference"
WAYS: Mapping[str, dict[str, Any]] = {
    "mean": {"aggregate": "mean"},
    "min": {"aggregate": "min"},
    "mean - 1 sd": {"aggregate": "mean_minus_std", "k": 1.0},
    "mean - 2 sd": {"aggregate": "mean_minus_std", "k": 2.0},
}
SINGLE = "single"

Row = dict[str, Any]


def study_ensembles(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Golden reward and its fall under one model, its ensembles, and mixtures with preferences.

    Raises:
        RecipeError: demonstrations are not the embedded world's, there is no golden reward, or the
            recipe lacks one of `BASES` or a reward model of preferences.
    """
    only_the_world(recipe, "ensembles", "turns the dial of heterogeneity")
    needs_golden(recipe, "ensembles")
    larger = with_ensembles(lean(recipe))
    rows = []
    for dial in DIALS:
        found = []
        for seed in range(seeds):
            pipeline = world(larger, dial, seed, output / "ensembles")
            pipeline.advance("evaluation")
            found.append(_curves(pipeline))
        rows += [{"dial": dial, **row} for row in _rows(found, larger.evaluation.sizes)]
    return {"members": MEMBERS, "n": list(larger.evaluation.sizes), "rows": rows}


def with_ensembles(recipe: Recipe) -> Recipe:
    """The recipe with an ensemble of each of `BASES`, and mixtures of them with preferences."""
    given = {config.title: config for config in recipe.reward}
    for name in (*BASES, PREFERENCE):
        if name not in given:
            raise RecipeError(f"reward: this study needs {name}, found {', '.join(given)}")
    raw = recipe.model_dump(mode="json")
    added: list[dict[str, Any]] = []
    for base in BASES:
        entry = given[base].model_dump(mode="json")
        added.append({**entry, "name": ensemble_name(base), "ensemble": {"size": MEMBERS}})
        for how in ("mean", "min"):
            mixture = {"name": mixture_name(base, how), "model": "mixture"}
            members = {"members": [base, PREFERENCE], "ensemble": {"aggregate": how}}
            added.append({**mixture, **members})
    raw["reward"] = [*raw["reward"], *added]
    return parse_recipe(raw, "ensembles")


def ensemble_name(base: str) -> str:
    """The name of the ensemble of a reward model."""
    return f"{base}-x{MEMBERS}"


def mixture_name(base: str, how: str) -> str:
    """The name of the mixture of a reward model with preferences."""
    return f"{base}-with-{PREFERENCE}-{how}"


@dataclass(frozen=True, slots=True)
class Curve:
    """Golden reward (P, S) under one way of choosing, and whether it falls."""

    golden: Array
    fall: Fall


def _curves(pipeline: Pipeline) -> dict[tuple[str, str], Curve]:
    """By base and way, of one run."""
    measured = load_measured(pipeline.recipe, pipeline.run.folder)
    stored = kept(pipeline, "members", BASES, lambda: _member_scores(pipeline))
    sizes = pipeline.recipe.evaluation.sizes
    whole = measured.golden
    assert whole is not None
    rows = np.flatnonzero(np.isfinite(whole["candidates"]).all(axis=1))
    measured = measured.take(rows)
    found = {}
    for base in BASES:
        scores = [as_grid(values, len(whole["candidates"]))[rows] for values in stored[base]]
        found[base, SINGLE] = _curve(measured, measured.selectors[base], sizes)
        for way, settings in WAYS.items():
            config = EnsembleConfig(size=MEMBERS, **settings)
            found[base, f"ensemble, {way}"] = _curve(measured, aggregate(scores, config), sizes)
        for how in ("mean", "min"):
            mixed = measured.selectors[mixture_name(base, how)]
            found[base, f"mixture with {PREFERENCE}, {how}"] = _curve(measured, mixed, sizes)
    found[PREFERENCE, SINGLE] = _curve(measured, measured.selectors[PREFERENCE], sizes)
    return found


def _curve(measured: Measured, scores: Array, sizes: Sequence[int]) -> Curve:
    assert measured.golden is not None
    curve = Choosing(scores, sizes).curve(measured.golden["candidates"])
    return Curve(curve, fall_of(curve))


def _member_scores(pipeline: Pipeline) -> dict[str, Any]:
    """What each member of each ensemble says of the candidates, in their order."""
    recipe, models = pipeline.recipe, pipeline.models
    prompts = {row.id: row.prompt for row in test_rows(recipe, pipeline.run.folder)}
    said = read_sampled(recipe, pipeline.run.folder)[CANDIDATES]
    given = (
        [prompts[each.prompt_id] for each in said],
        [each.completion for each in said],
        [each.finish_reason == "stop" for each in said],
    )
    configs: dict[str, RewardConfig] = {config.title: config for config in recipe.reward}
    found = {}
    for base in BASES:
        config = configs[ensemble_name(base)]
        if config.model == "head":
            models.sft()
        members = models.stored(config).members
        found[base] = [scores.tolist() for scores, _ in score_together(members, *given)]
        models.drop_rewards()
    models.release()
    return found


def _rows(runs: Sequence[Mapping[tuple[str, str], Curve]], sizes: Sequence[int]) -> list[Row]:
    """Means over all seeds' prompts, differences to the single model, and falls by seed."""
    rows = []
    for base, way in runs[0]:
        curves = [run[base, way] for run in runs]
        singles = [run[base, SINGLE] for run in runs]
        falls = [each.fall for each in curves]
        onsets = [sizes[fall.onset] for fall in falls if fall.has_fallen]
        row: Row = {
            "base": base,
            "way": way,
            "fell": sum(fall.has_fallen for fall in falls),
            "of": len(falls),
            "onsets": onsets,
            "drop_by_seed": [float(fall.drop) for fall in falls],
            "curve": [],
        }
        for place, n in enumerate(sizes):
            mine = [each.golden[:, place] for each in curves]
            other = [each.golden[:, place] for each in singles]
            gaps = [a - b for a, b in zip(mine, other, strict=True)]
            row["curve"].append({"n": n, "golden": estimate(mine), "minus_single": estimate(gaps)})
        rows.append(row)
    return rows
