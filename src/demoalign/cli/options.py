"""What commands share: their options, the recipe they name, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.config import Recipe, load_recipe
from demoalign.console import print_results, print_stages, print_training
from demoalign.errors import RecipeError
from demoalign.processes import is_main

PACKAGE = Path(__file__).parent.parent

RecipePath = Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key: sft.epochs=3"),
]
SkipInvalid = Annotated[
    bool,
    typer.Option("--skip-invalid", help="Go on without unusable rows; they go to rejected.jsonl."),
]
Miniature = Annotated[
    bool,
    typer.Option("--miniature", help="Tiny models and made-up rows: whether it runs, in a minute."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Override the recipe's seed.")]


def advance(path: Path, overrides: Sequence[str], target: str, as_json: bool) -> None:
    """Run a recipe up to a stage of `pipeline.TARGETS` and print what came of it."""
    finish(go(load_recipe(path, overrides), target), as_json)


def go(recipe: Recipe, target: str) -> dict[str, Any]:
    """As `advance`, without printing the result for machines, which is returned."""
    from demoalign.pipeline import Pipeline

    pipeline = Pipeline(recipe)
    outcomes = pipeline.advance(target)
    if not is_main():
        return {}
    print_stages(outcomes)
    result: dict[str, Any] = {
        "run": str(pipeline.run.folder),
        "stages": [
            {"stage": each.stage, "status": each.status, "seconds": each.seconds}
            for each in outcomes
        ],
    }
    if target == "improve":
        result |= _training_of(recipe, pipeline.run.folder)
    if target == "report":
        print_results(pipeline.run.folder, pipeline.report)
        result["report"] = str(pipeline.report)
    return result


def _training_of(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Print what became of the policy's training and return it; nothing where none was trained."""
    from demoalign.report.stored import Problems
    from demoalign.report.trainings import read_training

    found = read_training(folder, {"improve": {"method": recipe.improve.method}}, Problems())
    if found is None or found.best is None:
        return {}
    print_training(found)
    return {
        "training": {
            "policy": found.method,
            "rounds": found.done,
            "kept": found.best,
            "stopped": found.stopped or None,
            "checks": [{"round": each.round, **each.values} for each in found.checks],
        }
    }


def in_miniature(recipe: Recipe) -> Recipe:
    """The recipe with tiny models and made-up rows."""
    from demoalign.pipeline.miniature import miniature

    return miniature(recipe)


def read_recipe(path: Path, overrides: Sequence[str] | None, *, skip_invalid: bool) -> Recipe:
    """A recipe with what the flags override."""
    return load_recipe(path, flags_of(overrides, None, skip_invalid))


def flags_of(overrides: Sequence[str] | None, seed: int | None, skip_invalid: bool) -> list[str]:
    """Flags as overrides of recipe keys."""
    flags = list(overrides or [])
    if seed is not None:
        flags.append(f"seed={seed}")
    if skip_invalid:
        flags.append("demonstrations.skip_invalid=true")
    return flags


def shipped_recipes() -> Path:
    """The folder of the recipes that come with the package."""
    return PACKAGE / "recipes"


def shipped(name: str) -> Path:
    """The path of a recipe that comes with the package.

    Raises:
        RecipeError: no such recipe.
    """
    path = shipped_recipes() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in shipped_recipes().glob("*.yaml")))
        raise RecipeError(f"--recipe: must be one of {known}, found {name!r}")
    return path


def launchers() -> list[str]:
    """Names of the configurations of ``accelerate launch`` that come with the package."""
    return sorted(path.stem for path in (shipped_recipes() / "accelerate").glob("*.yaml"))


def launcher(name: str) -> Path:
    """The path of one of these configurations.

    Raises:
        RecipeError: no such configuration.
    """
    if name not in launchers():
        known = ", ".join(launchers())
        raise RecipeError(f"--accelerate: must be one of {known}, found {name!r}")
    return shipped_recipes() / "accelerate" / f"{name}.yaml"


def finish(result: Any, as_json: bool) -> None:
    """Print a command's result as the last line of stdout, if that was asked for."""
    if as_json and is_main():
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")


def price_of(text: str) -> dict[str, float]:
    """What --price says.

    Raises:
        RecipeError: it is not two numbers.
    """
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(
            f"--price: must be two numbers, the prices of a million tokens read and written, such "
            f"as 2.5,10, found {text!r}"
        ) from None
    return {"input": prompt, "output": completion}
