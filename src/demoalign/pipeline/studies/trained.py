"""Policies trained within the runs of a study: each a further stage, with its answers measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from demoalign.config import TrainedConfig
from demoalign.evaluation.surface import repetition
from demoalign.improve.optimise import CHECKS, ROUNDS
from demoalign.pipeline.goldens import main_golden
from demoalign.pipeline.improving import log_ratios_to
from demoalign.pipeline.measure import test_rows
from demoalign.pipeline.optimising import optimise_stage
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.sources import WHOLE
from demoalign.pipeline.stage import Stage
from demoalign.pipeline.studies.worlds import FOUND
from demoalign.records import Rollout
from demoalign.rollouts.engines import make_engine
from demoalign.store import fingerprint, read_json, read_lines, settings_of, write_json

Found = Mapping[str, Any]


def train_in(pipeline: Pipeline, name: str, config: TrainedConfig) -> Found:
    """Train a policy in a finished run, unless it was trained already, and measure what it says.

    Args:
        pipeline: of the run, whose evaluation is done.
        name: of the stage's folder below ``trained/``.
        config: of the method.

    Returns:
        ``golden``, ``kl`` and ``tokens`` of every sample on the test prompts, prompt by prompt,
        ``golden_greedy`` of the greedy answers, ``repetition`` and the ``answers`` of the samples,
        ``seconds`` of training, the ``rounds`` and ``checks`` of it, and its ``summary``.
    """
    stage = f"trained/{name}"
    wanted = fingerprint(
        stage=stage, run=pipeline.stages[-1].fingerprint, settings=settings_of(config)
    )

    def work(folder: Path) -> None:
        recipe, run, models = pipeline.recipe, pipeline.run.folder, pipeline.models
        optimise_stage(recipe, config, run, models, folder)
        write_json(folder / FOUND, _measured(pipeline, config, folder))
        models.release()

    outcome = pipeline.do(Stage(stage, wanted, work, resumes=True))
    folder = pipeline.run.folder / stage
    manifest = pipeline.run.manifest(stage)
    found: dict[str, Any] = read_json(folder / FOUND)
    seconds = outcome.seconds if manifest is None else manifest.seconds
    return {
        **found,
        "seconds": seconds,
        "rounds": read_lines(folder / ROUNDS),
        "checks": read_lines(folder / CHECKS),
        "summary": read_json(folder / "training.json"),
    }


def _measured(pipeline: Pipeline, config: TrainedConfig, folder: Path) -> dict[str, Any]:
    """What the trained policy says on the test prompts."""
    recipe, models = pipeline.recipe, pipeline.models
    rows = test_rows(recipe, pipeline.run.folder)
    prompts = {row.id: row.prompt for row in rows}
    policy = models.trained(config.method, folder)
    engine = make_engine(recipe.rollouts.model_copy(update=WHOLE))
    specs = specs_of(rows)
    said = list(engine.sample(policy, specs, config.samples, recipe.seed))
    greedy = list(engine.sample(policy, specs, 1, recipe.seed, greedy=True))
    golden = main_golden(recipe)

    def judge(rollouts: list[Rollout]) -> list[float | None]:
        asked = [prompts[each.prompt_id] for each in rollouts]
        return list(golden.score(asked, [each.completion for each in rollouts]))

    texts = [each.completion for each in said]
    return {
        "golden": judge(said),
        "golden_greedy": judge(greedy),
        "kl": log_ratios_to(models.sft(), prompts, said),
        "tokens": [len(each.token_ids) for each in said],
        "entropy": -float(np.mean([np.mean(each.token_logprobs or [np.nan]) for each in said])),
        "repetition": float(np.mean([repetition(text) for text in texts])),
        "answers": texts,
    }
