"""What studies share: their runs, and means over prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoalign.config import LAB, Recipe, parse_recipe
from demoalign.errors import RecipeError
from demoalign.evaluation.measured import Measured
from demoalign.intervals import bootstrap_mean, student_mean, wilson
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.stage import Stage
from demoalign.store import fingerprint, read_json, write_json

Array = NDArray[np.float64]

FOUND = "found.json"


def only_the_world(recipe: Recipe, study: str, why: str) -> None:
    """Refuse demonstrations that are not the embedded world's.

    Raises:
        RecipeError: they come from elsewhere.
    """
    if recipe.demonstrations.source != LAB:
        raise RecipeError(
            f"demonstrations.source: the study {study} {why}, which only the embedded world has "
            f"(source: lab), found {recipe.demonstrations.source}; model.base may be any model"
        )


def needs_golden(recipe: Recipe, study: str) -> None:
    """Refuse a recipe without the yardstick.

    Raises:
        RecipeError: it has no golden reward.
    """
    if recipe.evaluation.golden is None:
        raise RecipeError(
            f"evaluation.golden: the study {study} compares golden rewards, found none; "
            "set lab, module:function or the folder of a reward model"
        )


def lean(recipe: Recipe, n: int | None = None) -> Recipe:
    """The recipe without what these studies do not look at: no further policy, no truncation.

    Args:
        recipe: as the user has it.
        n: candidates a test prompt; None leaves what the recipe says.
    """
    raw = recipe.model_dump(mode="json")
    raw["improve"] = {"method": "best_of_n"}
    raw["evaluation"] |= {"truncated_samples": 0} | ({} if n is None else {"n": n})
    return parse_recipe(raw, recipe.name)


def varied(
    recipe: Recipe, label: str, changes: Mapping[str, Mapping[str, Any]], seed: int, output: Path
) -> Pipeline:
    """The recipe's run with some keys changed, and a seed, below ``output/runs``.

    Args:
        recipe: what is varied.
        label: what the run is called, together with its seed.
        changes: section -> key -> value.
        seed: of data, training and sampling.
        output: of the study.
    """
    raw = recipe.model_dump(mode="json")
    for section, values in changes.items():
        raw[section] = {**raw[section], **values}
    name = f"{label}-seed-{seed}"
    raw |= {"name": name, "seed": seed, "output": str(output / "runs")}
    return Pipeline(parse_recipe(raw, name))


def world(recipe: Recipe, dial: float | None, seed: int, output: Path) -> Pipeline:
    """The recipe's run at a dial and a seed; demonstrations from elsewhere have no dial."""
    label = "as-given" if dial is None else f"dial-{dial}"
    return varied(recipe, label, {"demonstrations": {"dial": dial}}, seed, output)


def dials_of(recipe: Recipe, dials: Sequence[float]) -> Sequence[float | None]:
    """The dials of the embedded world, or nothing to turn."""
    return dials if recipe.demonstrations.source == LAB else (None,)


def finished(pipeline: Pipeline) -> Measured:
    """What a run measures on the test prompts that are wholly scored; what is missing is run."""
    pipeline.advance("evaluation")
    return load_measured(pipeline.recipe, pipeline.run.folder).scored()


def estimate(parts: Sequence[Array]) -> dict[str, Any]:
    """Mean over all prompts, with intervals over prompts and over seeds, and each seed's mean.

    Args:
        parts: for each seed the values (P,) of its prompts; NaN where there is none, which does
            not count. A mean of nothing is None.

    Returns:
        ``value``; ``ci95`` by bootstrap over prompts, which holds for these trainings;
        ``by_seed``; ``seeds95`` by Student's t over the seeds' means, which includes how trainings
        differ and is None with fewer than two seeds.
    """
    known = [part[np.isfinite(part)] for part in parts]
    values = np.concatenate(known)
    return _over_seeds(known) | {
        "value": float(values.mean()) if len(values) else None,
        "ci95": list(bootstrap_mean(values)) if len(values) else None,
    }


def share(parts: Sequence[Array]) -> dict[str, Any]:
    """The same of proportions, values in [0, 1]; ``ci95`` is Wilson's."""
    known = [part[np.isfinite(part)] for part in parts]
    values = np.concatenate(known)
    total, count = float(values.sum().clip(0, len(values))), len(values)
    return _over_seeds(known) | {
        "value": total / count if count else None,
        "ci95": list(wilson(total, count)) if count else None,
    }


def _over_seeds(parts: Sequence[Array]) -> dict[str, Any]:
    means = [float(part.mean()) if len(part) else None for part in parts]
    known = [mean for mean in means if mean is not None]
    spread = student_mean(known) if len(known) == len(means) else None
    return {"by_seed": means, "seeds95": None if spread is None else list(spread)}


def kept(
    pipeline: Pipeline, stage: str, settings: object, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What a further stage of a run finds, read back if it was done and nothing has changed."""
    wanted = fingerprint(stage=stage, run=pipeline.stages[-1].fingerprint, settings=settings)
    pipeline.do(Stage(stage, wanted, lambda folder: write_json(folder / FOUND, work())))
    found: dict[str, Any] = read_json(pipeline.run.folder / stage / FOUND)
    return found
