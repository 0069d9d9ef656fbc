"""Studies: a comparison of the paper repeated on the embedded world, over seeds and dials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import Recipe
from demoalign.errors import RecipeError
from demoalign.improve.best_of_n import expected_best_of_n
from demoalign.intervals import bootstrap_mean
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.pipeline import Pipeline
from demoalign.store import read_json, write_json

DIALS = (0.0, 0.5, 1.0)
TRAITS = ("heldout_accuracy", "golden_correlation", "length_correlation")
STUDIES = ("reward-models",)
PLAIN = {
    "initial": "initial",
    "samples": "candidates",
    "greedy": "greedy",
    "demonstrations": "demonstrations",
}


def run_study(name: str, recipe: Recipe, seeds: int, output: Path) -> Path:
    """Run the embedded world at every dial and seed; pool the prompts; store the comparison.

    Runs that are already up to date in ``output/runs`` are used as they are.

    Args:
        name: which study: ``reward-models`` (the four reward models and the cheap selectors).
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
    rows, traits = [], []
    for dial in DIALS:
        pipelines = [_pipeline(recipe, dial, seed, output) for seed in range(seeds)]
        for pipeline in pipelines:
            pipeline.advance("evaluation")
        rows += _pooled(dial, pipelines)
        traits += _traits(dial, pipelines)
    path = output / "results.json"
    write_json(path, {"schema": 1, "study": name, "seeds": seeds, "rows": rows, "traits": traits})
    return path


def _pipeline(recipe: Recipe, dial: float, seed: int, output: Path) -> Pipeline:
    return Pipeline(
        recipe.model_copy(
            update={
                "name": f"dial-{dial}-seed-{seed}",
                "seed": seed,
                "output": str(output / "runs"),
                "demonstrations": recipe.demonstrations.model_copy(update={"dial": dial}),
            }
        )
    )


def _pooled(dial: float, pipelines: Sequence[Pipeline]) -> list[dict[str, Any]]:
    """Means over all seeds' prompts with 95 % intervals, and paired differences."""
    measured = [load_measured(p.recipe, p.run.folder).scored() for p in pipelines]
    sizes = pipelines[0].recipe.evaluation.sizes
    plain = {
        label: _joined([m.golden[source].mean(axis=1) for m in measured if m.golden])
        for label, source in PLAIN.items()
    }
    rows = [_row(dial, label, 1, values, {}, []) for label, values in plain.items()]
    for selector in measured[0].selectors:
        for n in sizes:
            parts = [
                expected_best_of_n(m.golden["candidates"], m.selectors[selector], n)
                for m in measured
                if m.golden
            ]
            values, lengths = _joined(parts), [len(part) for part in parts]
            rivals = {key: plain[key] for key in ("samples", "greedy", "demonstrations")}
            rows.append(_row(dial, selector, n, values, rivals, lengths))
    return rows


def _traits(dial: float, pipelines: Sequence[Pipeline]) -> list[dict[str, Any]]:
    """What each reward model can tell apart, and what its score follows: means over seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for pipeline in pipelines:
        results = read_json(pipeline.run.folder / "evaluation" / "results.json")
        for metric in results["metrics"]:
            if metric["metric"] in TRAITS and metric["value"] is not None:
                key = (metric["metric"], metric["selector"])
                found.setdefault(key, []).append(metric["value"])
    return [
        {"dial": dial, "metric": metric, "selector": selector, "value": sum(v) / len(v)}
        for (metric, selector), v in found.items()
    ]


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(list(parts))


def _row(
    dial: float,
    selector: str,
    n: int,
    values: Any,
    rivals: dict[str, Any],
    lengths: Sequence[int],
) -> dict[str, Any]:
    """One selector at one n; ``by_seed`` splits a difference by the run it came from."""
    bounds = np.cumsum(lengths)[:-1]
    differences = {
        f"minus_{key}": {
            "value": float((values - other).mean()),
            "ci95": list(bootstrap_mean(values - other)),
            "by_seed": [float(part.mean()) for part in np.split(values - other, bounds)],
        }
        for key, other in rivals.items()
    }
    return {
        "dial": dial,
        "selector": selector,
        "n": n,
        "golden": float(values.mean()),
        "ci95": list(bootstrap_mean(values)),
        "prompts": len(values),
        **differences,
    }
