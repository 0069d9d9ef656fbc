"""Self-play fine-tuning: the policy of the last iteration answers, the next one learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from demoalign.config import BASELINE, DpoConfig, Recipe, SpinConfig
from demoalign.improve.dpo import DpoSummary, token_pairs, train_dpo
from demoalign.improve.referred import reference_logprobs
from demoalign.pipeline.comparing import answers_by_prompt
from demoalign.pipeline.data import read_data
from demoalign.pipeline.models import Models, policy_folder
from demoalign.pipeline.resolve import base_digest
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.training import store_policy, trainable, within_context
from demoalign.policies.policy import INITIAL
from demoalign.processes import agreed, is_main
from demoalign.records import Demonstration
from demoalign.rewards.comparisons import Comparison, answers_of_rollouts, pair_sources
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import digest_folder, read_json, settings_of, write_json

ITERATIONS = "iterations.json"
"""What each finished iteration started from, was sampled by and learned from."""

SEED_STEP = 1000
"""Between the seeds of iterations, so that no two draw the same numbers."""


def train_spin(recipe: Recipe, config: SpinConfig, run: Path, models: Models, folder: Path) -> None:
    """Train all iterations that ``folder`` does not have yet; the last policy is the folder's own.

    Those before it are model folders ``iteration-1``, ``iteration-2``, ... of it.
    """
    train, _ = read_data(run / "demonstrations")
    folder = agreed(lambda: folder)  # where every process finds the iteration before
    record = folder / ITERATIONS
    done: list[dict[str, Any]] = agreed(lambda: read_json(record) if record.is_file() else [])
    for iteration in range(len(done) + 1, config.iterations + 1):
        models.release()
        samples = _sample(recipe, config, run, models, folder, train, iteration)
        comparisons = _comparisons(recipe, config, run, models, folder, train, iteration)
        summary = _train(recipe, config, run, models, folder, comparisons, iteration)
        done.append(agreed(partial(_noted, recipe, config, run, samples, summary, iteration)))
        if is_main():
            write_json(record, done)


def starts_from(config: SpinConfig, iteration: int) -> str:
    """The policy that an iteration samples from, refers to and trains on."""
    if iteration == 1:
        return config.start
    return f"{BASELINE}{config.name}/iteration-{iteration - 1}"


def _place(config: SpinConfig, folder: Path, iteration: int) -> Path:
    return folder if iteration == config.iterations else folder / f"iteration-{iteration}"


def _samples_path(config: SpinConfig, run: Path, folder: Path, iteration: int) -> Path:
    """The first iteration learns from the samples that the run has of its policies anyway."""
    if iteration == 1:
        return run / "rollouts" / f"{config.start}.jsonl"
    return folder / "samples" / f"iteration-{iteration}.jsonl"


def _seed(recipe: Recipe, iteration: int) -> int:
    return recipe.seed + SEED_STEP * (iteration - 1)


def _sample(
    recipe: Recipe,
    config: SpinConfig,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
    iteration: int,
) -> Path:
    """Where the answers are of the policy that an iteration starts from."""
    path = _samples_path(config, run, folder, iteration)
    if not agreed(path.is_file):
        policy = models.policy(starts_from(config, iteration))
        specs = specs_of(train[: recipe.rollouts.train_prompts])
        engine, most = make_engine(recipe.rollouts), recipe.rollouts.samples_per_prompt
        write_rollouts(path, engine, policy, specs, most, _seed(recipe, iteration))
    return path


def _comparisons(
    recipe: Recipe,
    config: SpinConfig,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
    iteration: int,
) -> list[Comparison]:
    """Positives over the answers of the latest iterations, one after the other."""
    prompts = {row.id: row.prompt for row in train}
    given = recipe, config.positives, run, models, folder / "positives.jsonl", train
    ups = answers_by_prompt(*given)
    found: list[Comparison] = []
    for each in config.trained_on(iteration):
        rollouts = read_rollouts(_samples_path(config, run, folder, each))
        kept = [each for each in rollouts if each.index < recipe.rollouts.samples_per_prompt]
        found += pair_sources(prompts, ups, answers_of_rollouts(kept))
    return found


def _train(
    recipe: Recipe,
    config: SpinConfig,
    run: Path,
    models: Models,
    folder: Path,
    comparisons: Sequence[Comparison],
    iteration: int,
) -> DpoSummary:
    """One iteration: DPO on from its policy, relative to it."""
    start, place = starts_from(config, iteration), _place(config, folder, iteration)
    reference = models.policy(start)
    settings: DpoConfig = within_context(config.training(iteration), reference.backbone)
    tokenizer = reference.backbone.tokenizer
    pairs, cut = token_pairs(tokenizer, comparisons, config.name, settings.max_length)
    logprobs = reference_logprobs(reference, pairs)
    del reference
    backbone, adapter = trainable(recipe, start, run, models)
    seed = _seed(recipe, iteration)
    summary = train_dpo(backbone, adapter, pairs, logprobs, settings, seed, place, cut)
    if is_main():
        store_policy(backbone, adapter, summary, place)
    return summary


def _noted(
    recipe: Recipe,
    config: SpinConfig,
    run: Path,
    samples: Path,
    summary: DpoSummary,
    iteration: int,
) -> dict[str, Any]:
    """What is to be known of an iteration if another is to come out the same."""
    start, settings = starts_from(config, iteration), config.training(iteration)
    engine = samples.with_suffix(".engine.json")
    is_base = start == INITIAL
    return {
        "iteration": iteration,
        "starts_from": start,
        "starts_from_digest": base_digest(recipe.model.base)
        if is_base
        else digest_folder(run / policy_folder(start)),
        "samples": samples.relative_to(run).as_posix(),
        "engine": read_json(engine) if engine.is_file() else None,
        "rollouts": dict(settings_of(recipe.rollouts)),
        "seed": _seed(recipe, iteration),
        "trained_on_samples_of_iterations": list(config.trained_on(iteration)),
        "pairs": summary.pairs,
        "truncated": summary.truncated,
        "beta": settings.beta,
        "learning_rate": settings.learning_rate,
        "steps": summary.steps,
        "loss": summary.losses[-1] if summary.losses else None,
        "accuracy": summary.accuracies[-1] if summary.accuracies else None,
        "margin": summary.margins[-1] if summary.margins else None,
    }
