"""The paper's comparison of reward models, repeated over seeds and dials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import Recipe
from demoalign.improve.best_of_n import expected_best_of_n
from demoalign.intervals import bootstrap_mean
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.studies.worlds import Array, estimate, world
from demoalign.store import read_json

DIALS = (0.0, 0.5, 1.0)
TRAITS = ("heldout_accuracy", "golden_correlation", "length_correlation")
PLAIN = {
    "initial": "initial",
    "samples": "candidates",
    "greedy": "greedy",
    "demonstrations": "demonstrations",
}


def study_reward_models(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """The four reward models and the cheap selectors at every dial; prompts of all seeds pooled."""
    rows, traits = [], []
    for dial in DIALS:
        pipelines = [world(recipe, dial, seed, output) for seed in range(seeds)]
        for pipeline in pipelines:
            pipeline.advance("evaluation")
        rows += _pooled(dial, pipelines)
        traits += _traits(dial, pipelines)
    return {"rows": rows, "traits": traits}


def _pooled(dial: float, pipelines: Sequence[Pipeline]) -> list[dict[str, Any]]:
    """Means over all seeds' prompts with 95 % intervals, and paired differences."""
    measured = [load_measured(p.recipe, p.run.folder).scored() for p in pipelines]
    sizes = pipelines[0].recipe.evaluation.sizes
    plain = {
        label: [m.golden[source].mean(axis=1) for m in measured if m.golden]
        for label, source in PLAIN.items()
    }
    rivals = {key: plain[key] for key in ("samples", "greedy", "demonstrations")}
    rows = [_row(dial, label, 1, values, {}) for label, values in plain.items()]
    for selector in measured[0].selectors:
        for n in sizes:
            values = [
                expected_best_of_n(m.golden["candidates"], m.selectors[selector], n)
                for m in measured
                if m.golden
            ]
            rows.append(_row(dial, selector, n, values, rivals))
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


def _row(
    dial: float,
    selector: str,
    n: int,
    values: Sequence[Array],
    rivals: Mapping[str, Sequence[Array]],
) -> dict[str, Any]:
    """One selector at one n: values (P,) for each seed, and their differences to the rivals'."""
    differences = {
        f"minus_{key}": estimate([mine - its for mine, its in zip(values, other, strict=True)])
        for key, other in rivals.items()
    }
    joined = np.concatenate(list(values))
    return {
        "dial": dial,
        "selector": selector,
        "n": n,
        "golden": float(joined.mean()),
        "ci95": list(bootstrap_mean(joined)),
        "prompts": len(joined),
        **differences,
    }
