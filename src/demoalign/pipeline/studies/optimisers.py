"""Policies trained against the run's reward, at an equal budget of rollouts.

Every method learns from `BUDGET` completions of training prompts and is compared, on the test
prompts, with greedy decoding and with the best of 16 of the SFT policy's samples by the reward that
it was trained against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import (
    GrpoConfig,
    IrlConfig,
    PpoConfig,
    RaftConfig,
    Recipe,
    RlooConfig,
    TrainedConfig,
    reward_of,
)
from demoalign.evaluation.measured import as_grid
from demoalign.pipeline.measure import test_rows
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.sources import CANDIDATES, read_sampled
from demoalign.pipeline.sources import GREEDY as GREEDY_SOURCE
from demoalign.pipeline.studies.diversity import (
    Diversity,
    demonstrated,
    diversity,
    first_of_each,
)
from demoalign.pipeline.studies.methods import GREEDY, SAMPLES, best_of, compare, golden_by_method
from demoalign.pipeline.studies.trained import Found, train_in
from demoalign.pipeline.studies.worlds import (
    Array,
    dials_of,
    estimate,
    finished,
    lean,
    needs_golden,
    world,
)

DIALS = (0.0, 0.5, 1.0)
N = 16
BUDGET = 5120
ONE_SHOT = "init-sft"
"""The reward model of the paper's main method, where the recipe has it."""


def study_optimisers(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Every method at every dial; the runs serve the study ``rewards`` too.

    Raises:
        RecipeError: there is no golden reward.
    """
    needs_golden(recipe, "optimisers")
    return study_of(recipe, seeds, output, DIALS, optimisers(recipe))


def optimisers(recipe: Recipe) -> dict[str, TrainedConfig]:
    """The methods with their defaults, at the equal budget."""
    rate = recipe.sft.learning_rate / 3
    chosen = {"batch_size": recipe.sft.batch_size, "accumulation": recipe.sft.accumulation}
    raft = RaftConfig.model_validate(
        {"rounds": 2, "train_prompts": BUDGET // 32, "learning_rate": rate, **chosen}
        | {"checkpoints": 0}
    )
    a_round = RlooConfig().prompts * RlooConfig().samples_per_prompt
    rounds = BUDGET // a_round
    return {
        "raft": raft,
        "rloo": RlooConfig(rounds=rounds),
        "grpo": GrpoConfig(rounds=rounds),
        "ppo": PpoConfig(rounds=rounds),
    }


def study_of(
    recipe: Recipe,
    seeds: int,
    output: Path,
    dials: Sequence[float],
    methods: Mapping[str, TrainedConfig],
) -> dict[str, Any]:
    """Trainings in the runs of some dials, beside what is free.

    Args:
        recipe, seeds, output: of the study.
        dials: of heterogeneity.
        methods: name -> what is trained.
    """
    rows, curves = [], []
    title = reward_of(recipe, RlooConfig()).title
    n = min(N, recipe.evaluation.sizes[-1])
    methods = {name: each.model_copy(update={"samples": n}) for name, each in methods.items()}
    for dial in dials_of(recipe, dials):
        runs: list[dict[str, Array]] = []
        trained: list[dict[str, Found]] = []
        various: list[dict[str, Diversity]] = []
        for seed in range(seeds):
            pipeline = world(lean(recipe), dial, seed, output)
            measured = finished(pipeline)
            found = {name: train_in(pipeline, name, each) for name, each in methods.items()}
            known = golden_by_method(measured, n)
            chosen = dict.fromkeys([best_of(n, title), best_of(n, ONE_SHOT)])
            wanted = (SAMPLES, GREEDY, *(each for each in chosen if each in known))
            count = len(known[SAMPLES])
            runs.append(
                {name: known[name] for name in wanted}
                | {name: _by_prompt(each["golden"], count) for name, each in found.items()}
                | {
                    f"{name}, greedy": _by_prompt(each["golden_greedy"], count)
                    for name, each in found.items()
                }
            )
            trained.append(found)
            various.append(_various(pipeline, found))
        rivals = {
            "minus_samples": SAMPLES,
            "minus_greedy": GREEDY,
            f"minus_best_of_{n}": best_of(n, title),
        }
        rows += [
            {"dial": dial, **row, **_facts(row, trained), **_by_seed(row, various)}
            for row in compare(runs, rivals)
        ]
        curves += [
            {"dial": dial, "method": name, "seed": seed, "checks": _curve(each[name], config)}
            for seed, each in enumerate(trained)
            for name, config in methods.items()
        ]
    return {"n": n, "budget": BUDGET, "reward": title, "rows": rows, "curves": curves}


def _facts(row: Mapping[str, Any], trained: Sequence[Mapping[str, Found]]) -> dict[str, Any]:
    """What is known of trained policies but not of what they are compared with."""
    name = row["method"]
    if name not in trained[0]:
        return {}
    each = [found[name] for found in trained]
    kls = [np.array(found["kl"], dtype=np.float64) for found in each]
    return {
        "kl": estimate(kls),
        "tokens": [float(np.mean(found["tokens"])) for found in each],
        "entropy": [found["entropy"] for found in each],
        "seconds": [found["seconds"] for found in each],
        "kept": [found["summary"]["best"] for found in each],
        "stopped": [found["summary"]["stopped"] for found in each],
    }


def _various(pipeline: Pipeline, trained: Mapping[str, Found]) -> dict[str, Diversity]:
    """Diversity of all that is trained and of the SFT policy, over equally many samples."""
    recipe, run = pipeline.recipe, pipeline.run.folder
    reference = demonstrated(recipe, run)
    sampled = read_sampled(recipe, run)
    prompts = {row.id for row in test_rows(recipe, run)}
    count = min(len(found["answers"]) for found in trained.values()) // len(prompts)
    plain = {SAMPLES: first_of_each(sampled[CANDIDATES], count), GREEDY: sampled[GREEDY_SOURCE]}
    texts = {name: [each.completion for each in said] for name, said in plain.items()}
    texts |= {name: found["answers"] for name, found in trained.items()}
    return {name: diversity(each, reference) for name, each in texts.items()}


def _by_seed(row: Mapping[str, Any], seeds: Sequence[Mapping[str, Diversity]]) -> dict[str, Any]:
    """Each measure of diversity, seed by seed."""
    name = row["method"]
    return {key: [each[name][key] for each in seeds] for key in seeds[0].get(name, ())}


def _curve(found: Found, config: TrainedConfig) -> list[dict[str, Any]]:
    """Means at each check, and how many rollouts had been learned from by then."""
    a_round = _rollouts(config)
    return [
        {"round": each["round"], "rollouts": a_round * each["round"], **each["means"]}
        for each in found["checks"]
    ]


def _rollouts(config: TrainedConfig) -> int:
    """Completions that a round learns from."""
    assert not isinstance(config, IrlConfig)
    prompts = config.train_prompts if isinstance(config, RaftConfig) else config.prompts
    return (prompts or 0) * config.samples_per_prompt


def _by_prompt(values: Sequence[float | None], count: int) -> Array:
    plain = [np.nan if each is None else float(each) for each in values]
    mean: Array = as_grid(plain, count).mean(axis=1)
    return mean
