"""All studies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from demoalign.config import Recipe
from demoalign.errors import RecipeError
from demoalign.pipeline.studies.closed_form import study_closed_form
from demoalign.pipeline.studies.discriminator import study_discriminator
from demoalign.pipeline.studies.rejection import study_rejection
from demoalign.pipeline.studies.reward_models import study_reward_models
from demoalign.store import write_json

Study = Callable[[Recipe, int, Path], dict[str, Any]]
"""Runs what it needs below a folder, for a recipe and a number of seeds; gives what it found."""

STUDIES: Mapping[str, Study] = {
    "reward-models": study_reward_models,
    "rejection": study_rejection,
    "discriminator": study_discriminator,
    "closed-form": study_closed_form,
}


def run_study(name: str, recipe: Recipe, seeds: int, output: Path) -> Path:
    """Run a study on the embedded world and store what it found.

    Runs that are already up to date in ``output/runs`` are used as they are.

    Args:
        name: of `STUDIES`.
        recipe: the embedded world's recipe; its seed and dial are replaced.
        seeds: how many, from 0.
        output: gets ``results.json`` and ``runs/``.

    Returns:
        The path of results.json.

    Raises:
        RecipeError: no such study.
    """
    if name not in STUDIES:
        raise RecipeError(f"study: must be one of {', '.join(STUDIES)}, found {name!r}")
    found = STUDIES[name](recipe, seeds, output)
    path = output / "results.json"
    write_json(path, {"schema": 1, "study": name, "seeds": seeds, **found})
    return path
