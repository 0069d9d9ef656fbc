"""The command that measures: a run on its test prompts, rewards on preference sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.cli.app import app
from demoalign.cli.options import AsJson, Seed, Set, SkipInvalid, finish, flags_of, go
from demoalign.config import DISTILLED, TRAINED, Recipe, load_recipe
from demoalign.console import print_lm_eval, print_preferences
from demoalign.errors import RecipeError
from demoalign.store import read_json, write_json


@app.command()
def evaluate(
    where: Annotated[
        Path, typer.Argument(help="A recipe, a run or a reward model's folder.", show_default=False)
    ],
    preferences: Annotated[
        list[str] | None,
        typer.Option(
            "--preferences",
            metavar="FILE",
            help="Known preferences: pairs, RewardBench, RewardBench 2. May be given again.",
        ),
    ] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option("--lm-eval", metavar="TASKS", help="Tasks of lm-eval, with commas between."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help=f"Whom --lm-eval asks: initial, sft, {', '.join((DISTILLED, *TRAINED))}, "
            "baseline:NAME, policy:FOLDER. Default: sft.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where the results of a reward model's folder go (JSON)."),
    ] = None,
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Measure a run on its test prompts, and rewards on known preferences.

    Example: `demoalign evaluate recipe.yaml --preferences heldout.jsonl`
    """
    from demoalign.pipeline.reward_folder import is_run

    flags = flags_of(overrides, seed, skip_invalid and not preferences)
    if preferences:
        flags.append(f"evaluation.preferences={json.dumps(preferences)}")
        # Of these files alone: leaving out demonstrations would train everything again.
        flags += ["evaluation.skip_invalid=true"] if skip_invalid else []
    flags += _harness_flags(lm_eval, policy)
    if where.is_dir() and not is_run(where):
        if lm_eval is not None:
            raise RecipeError(f"--lm-eval: asks policies of a recipe or a run, found {where}")
        if overrides:
            raise RecipeError(f"--set {overrides[0]}: {where} is no recipe, whose keys can be set")
        found = _evaluate_folder(where, preferences or [], seed or 0, output, skip_invalid)
        return finish(found, as_json)
    if output is not None:
        raise RecipeError(
            f"--output {output}: only for a reward model's folder; a run has its own evaluation/"
        )
    recipe = _recipe_of(where, flags)
    result = go(recipe, "evaluation")
    if recipe.evaluation.preferences:
        folder = recipe.folder / "evaluation"
        metrics = read_json(folder / "results.json")["metrics"]
        print_preferences(metrics)
        result["preferences"] = str(folder / "preferences.json")
    if recipe.evaluation.lm_eval is not None:
        metrics = read_json(recipe.folder / "evaluation" / "results.json")["metrics"]
        result["lm_eval"] = [m for m in metrics if m["metric"].startswith("lm_eval/")]
        print_lm_eval(result["lm_eval"])
    return finish(result, as_json)


def _harness_flags(tasks: str | None, policies: list[str] | None) -> list[str]:
    if policies and tasks is None:
        raise RecipeError(f"--policy {policies[0]}: belongs to --lm-eval, which is not given")
    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    flags = [] if tasks is None else [f"evaluation.lm_eval.tasks={json.dumps(names)}"]
    return [*flags, *([f"evaluation.lm_eval.policies={json.dumps(policies)}"] if policies else [])]


def _evaluate_folder(
    folder: Path, sources: list[str], seed: int, output: Path | None, skip_invalid: bool
) -> dict[str, Any]:
    from demoalign.pipeline.reward_folder import evaluate_reward

    if not sources:
        raise RecipeError(
            f"--preferences: needed with a reward model's folder ({folder}), found nothing"
        )
    found = evaluate_reward(folder, sources, skip_invalid=skip_invalid, seed=seed)
    print_preferences(found["metrics"])
    if output is not None:
        write_json(output, found)
    return found


def _recipe_of(where: Path, flags: list[str]) -> Recipe:
    """The recipe; of a run's folder the one that is stored there, wherever the run lies now."""
    if not where.is_dir():
        return load_recipe(where, flags)
    folder = where.resolve()
    place = [f"output={json.dumps(str(folder.parent))}", f"name={json.dumps(folder.name)}"]
    return load_recipe(where / "recipe.yaml", [*place, *flags])
