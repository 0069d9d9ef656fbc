"""The stages of baselines: training a policy to compare with, and having it answer."""

from __future__ import annotations

from pathlib import Path

from demoalign.config import (
    BaselineConfig,
    DpoConfig,
    KtoConfig,
    Recipe,
    SftBaselineConfig,
    SpinConfig,
)
from demoalign.demonstrations.render import render
from demoalign.improve.dpo import token_pairs, train_dpo
from demoalign.improve.kto import examples_of, train_kto
from demoalign.improve.referred import reference_logprobs
from demoalign.pipeline.comparing import answers_to, comparisons_of, labelled_pairs
from demoalign.pipeline.data import read_data
from demoalign.pipeline.improving import answer_tests, store_logprobs
from demoalign.pipeline.models import Models
from demoalign.pipeline.sources import baseline_sources
from demoalign.pipeline.spin import train_spin
from demoalign.pipeline.training import store_policy, trainable, within_context
from demoalign.policies.sft import train_sft
from demoalign.records import Prompt
from demoalign.rewards.comparisons import Answer

Lesson = tuple[Prompt, Answer]
"""A prompt, and an answer to be learned or to be avoided."""


def baseline_stage(
    recipe: Recipe, config: BaselineConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train one baseline from the policy that it starts from; store a model folder."""
    if isinstance(config, SftBaselineConfig):
        _train_sft(recipe, config, run, models, folder)
    elif isinstance(config, SpinConfig):
        train_spin(recipe, config, run, models, folder)
    elif isinstance(config, KtoConfig):
        _train_kto(recipe, config, run, models, folder)
    else:
        _train_dpo(recipe, config, run, models, folder)
    models.release()


def baseline_rollouts_stage(
    recipe: Recipe, config: BaselineConfig, run: Path, models: Models, folder: Path
) -> None:
    """Have one baseline answer the test prompts, and note what the SFT policy makes of it."""
    sources = [each for each in baseline_sources(recipe) if each.policy == config.name]
    policy = models.baseline(config.name)
    answer_tests(recipe, run, policy, sources, config.samples)
    del policy
    store_logprobs(recipe, run, models, sources, folder)
    models.release()


def _train_sft(
    recipe: Recipe, config: SftBaselineConfig, run: Path, models: Models, folder: Path
) -> None:
    lessons = _lessons(recipe, config, run, models, folder)
    backbone, adapter = trainable(recipe, config.start, run, models)
    rows = [
        render(backbone.tokenizer, prompt, answer.completion, answer.finished)
        for prompt, answer in lessons
    ]
    settings, name = within_context(config, backbone), f"baselines.{config.name}"
    summary = train_sft(backbone, adapter, rows, settings, recipe.seed, folder, name)
    store_policy(backbone, adapter, summary, folder, config.keep_checkpoints)


def _lessons(
    recipe: Recipe, config: SftBaselineConfig, run: Path, models: Models, folder: Path
) -> list[Lesson]:
    """Prompts with the answers to be learned."""
    train, _ = read_data(run / "demonstrations")
    if config.preferences is None:
        return answers_to(recipe, config.positives, run, models, folder, train)
    pairs = labelled_pairs(recipe, config.preferences, run, train, config.labels)
    if config.positives == "preferred":
        return [(pair.prompt, pair.positive) for pair in pairs]
    return [(pair.prompt, pair.negative) for pair in pairs]


def _train_dpo(recipe: Recipe, config: DpoConfig, run: Path, models: Models, folder: Path) -> None:
    train, _ = read_data(run / "demonstrations")
    comparisons = comparisons_of(recipe, config, run, models, folder, train, config.labels)
    reference = models.policy(config.relative_to)
    settings = within_context(config, reference.backbone)
    tokenizer, longest = reference.backbone.tokenizer, settings.max_length
    pairs, truncated = token_pairs(tokenizer, comparisons, config.name, longest)
    logprobs = reference_logprobs(reference, pairs)
    del reference
    backbone, adapter = trainable(recipe, config.start, run, models)
    given = pairs, logprobs, settings, recipe.seed, folder, truncated
    store_policy(backbone, adapter, train_dpo(backbone, adapter, *given), folder)


def _train_kto(recipe: Recipe, config: KtoConfig, run: Path, models: Models, folder: Path) -> None:
    good, bad = _unpaired(recipe, config, run, models, folder)
    reference = models.policy(config.relative_to)
    settings = within_context(config, reference.backbone)
    tokenizer = reference.backbone.tokenizer
    examples, truncated = examples_of(tokenizer, good, bad, settings, recipe.seed)
    logprobs = reference_logprobs(reference, examples)
    del reference
    backbone, adapter = trainable(recipe, config.start, run, models)
    given = examples, logprobs, settings, recipe.seed, folder, truncated
    store_policy(backbone, adapter, train_kto(backbone, adapter, *given), folder)


def _unpaired(
    recipe: Recipe, config: KtoConfig, run: Path, models: Models, folder: Path
) -> tuple[list[Lesson], list[Lesson]]:
    """Prompts with desirable and with undesirable answers."""
    train, _ = read_data(run / "demonstrations")
    if config.preferences is not None:
        pairs = labelled_pairs(recipe, config.preferences, run, train, config.labels)
        return (
            [(pair.prompt, pair.positive) for pair in pairs],
            [(pair.prompt, pair.negative) for pair in pairs],
        )
    given = run, models, folder, train
    return (
        answers_to(recipe, config.positives, *given, "positives"),
        answers_to(recipe, config.negatives, *given, "negatives"),
    )
