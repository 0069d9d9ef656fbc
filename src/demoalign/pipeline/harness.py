"""A stage for each policy and task of lm-eval."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from demoalign.config import BASELINE, DISTILLED, TRAINED, Recipe, trained_policy
from demoalign.errors import RecipeError
from demoalign.evaluation.lm_harness import evaluate_task, task_metrics
from demoalign.pipeline.data import read_data
from demoalign.pipeline.models import Models
from demoalign.store import read_json, write_json

FOLDER = "lm-eval"
RESULTS = "results.json"


def tasks_of(recipe: Recipe) -> list[tuple[str, str]]:
    """Policy and task of every stage.

    Raises:
        RecipeError: it asks for a policy that the recipe does not train, or for two of one name.
    """
    config = recipe.evaluation.lm_eval
    if config is None:
        return []
    if missing := sorted(
        {*config.policies} & {DISTILLED, *TRAINED} - {trained_policy(recipe.improve)}
    ):
        raise RecipeError(
            f"evaluation.lm_eval.policies: {missing[0]} is trained by no section of this recipe; "
            f"set improve.method to one of {', '.join(TRAINED)}, or improve.distil of extrapolate"
        )
    labels = [label_of(policy) for policy in config.policies]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise RecipeError(
            f"evaluation.lm_eval.policies: names must differ, found {twice[0]!r} twice"
        )
    return [(policy, task) for policy in config.policies for task in config.tasks]


def label_of(policy: str) -> str:
    """What a policy is called in results: a folder and a baseline by its name."""
    if policy.startswith(BASELINE):
        return policy.removeprefix(BASELINE).replace("/", "-")
    name = policy.removeprefix("policy:").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "_", name) or "policy"


def task_folder(policy: str, task: str) -> str:
    """Where the results of a policy on a task are, below the run."""
    return f"{FOLDER}/{label_of(policy)}-{task}"


def lm_eval_stage(
    recipe: Recipe, policy: str, task: str, run: Path, models: Models, folder: Path
) -> None:
    """Put a task to a policy; store what the harness found, and its metrics."""
    config = recipe.evaluation.lm_eval
    assert config is not None
    own = policy == trained_policy(recipe.improve)
    asked = models.improved(policy) if own else models.policy(policy)
    train, _ = read_data(run / "demonstrations")
    is_chat = not isinstance(train[0].prompt, str) and bool(asked.backbone.tokenizer.chat_template)
    chat = is_chat if config.chat is None else config.chat
    found = evaluate_task(asked, task, config, chat=chat, seed=recipe.seed)
    metrics = task_metrics(found, label_of(policy), recipe.seed)
    plain = [dataclasses.asdict(metric) for metric in metrics]
    write_json(
        folder / RESULTS, {"policy": policy, "task": task, "chat": chat, "metrics": plain} | found
    )
    models.release()


def stored_metrics(recipe: Recipe, run: Path) -> list[Any]:
    """The metrics of all stages, as plain objects."""
    return [
        metric
        for policy, task in tasks_of(recipe)
        for metric in read_json(run / task_folder(policy, task) / RESULTS)["metrics"]
    ]
