"""Iterative inverse reinforcement learning by iteration, and against SPIN (ML-IRL, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import IrlConfig, Recipe, RlooConfig, parse_recipe
from demoalign.evaluation.measured import as_grid
from demoalign.pipeline.studies.methods import GREEDY, SAMPLES, compare, golden_by_method
from demoalign.pipeline.studies.trained import Found, train_in
from demoalign.pipeline.studies.worlds import (
    Array,
    dials_of,
    finished,
    lean,
    needs_golden,
    world,
)

DIALS = (0.0, 0.5, 1.0)
N = 16
SPIN = "spin"


def study_irl(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Reward accuracy and golden reward by iteration, and both methods' policies at the end.

    Raises:
        RecipeError: there is no golden reward.
    """
    needs_golden(recipe, "irl")
    both, methods = with_spin(recipe), iterated(recipe)
    rows, iterations = [], []
    for dial in dials_of(recipe, DIALS):
        runs: list[dict[str, Array]] = []
        for seed in range(seeds):
            pipeline = world(both, dial, seed, output / "irl")
            known = golden_by_method(finished(pipeline), N)
            found = {name: train_in(pipeline, name, each) for name, each in methods.items()}
            count = len(known[SAMPLES])
            wanted = (SAMPLES, GREEDY, SPIN)
            runs.append(
                {name: known[name] for name in wanted}
                | {name: _golden(each, count) for name, each in found.items()}
            )
            iterations += [
                {"dial": dial, "seed": seed, "method": name, **line}
                for name, each in found.items()
                for line in _lines(each)
            ]
        rivals = {"minus_samples": SAMPLES, "minus_greedy": GREEDY, "minus_spin": SPIN}
        rows += [{"dial": dial, **row} for row in compare(runs, rivals)]
    return {"n": N, "rows": rows, "iterations": iterations}


def iterated(recipe: Recipe) -> dict[str, IrlConfig]:
    """The method by its defaults, and mixed with the comparison of the one-shot method."""
    rate = {"learning_rate": recipe.sft.learning_rate / 3, "batch_size": recipe.sft.batch_size}
    reward = {"train_prompts": 500, "epochs": 1, "accumulation": 1, **rate}
    step = RlooConfig(rounds=14).model_dump()
    plain = {"iterations": 3, "reward": reward, "step": step}
    return {
        "irl": IrlConfig.model_validate(plain),
        "irl, mixed": IrlConfig.model_validate({**plain, "reward": {**reward, "mix": 1.0}}),
    }


def with_spin(recipe: Recipe) -> Recipe:
    """The recipe with SPIN as a baseline, trained with the settings of its SFT."""
    raw = lean(recipe, N).model_dump(mode="json")
    shared = ("batch_size", "accumulation", "schedule", "warmup_fraction", "max_length")
    settings = {key: raw["sft"][key] for key in shared}
    rate = recipe.sft.learning_rate / 6
    raw["baselines"] = [
        {"method": "spin", "name": SPIN, "iterations": 3, "learning_rate": rate, **settings}
    ]
    cheap = [each for each in raw["reward"] if each["model"] == "density_ratio"]
    raw["reward"] = cheap or raw["reward"][:1]
    return parse_recipe(raw, recipe.name)


def _golden(found: Found, count: int) -> Array:
    plain = [np.nan if each is None else float(each) for each in found["golden"]]
    mean: Array = as_grid(plain, count).mean(axis=1)
    return mean


def _lines(found: Found) -> list[dict[str, Any]]:
    """Accuracy of the reward and means of the policy after it, iteration by iteration."""
    checks: Mapping[int, Mapping[str, Any]] = {
        check["round"]: check["means"] for check in found["checks"]
    }
    rounds: Sequence[Mapping[str, Any]] = found["rounds"]
    first = {"iteration": 0, "policy": checks.get(0)}
    return [first] + [
        {
            "iteration": each["round"],
            "accuracy": each["accuracy"],
            "ci95": each["ci95"],
            "policy": checks.get(each["round"]),
        }
        for each in rounds
    ]
