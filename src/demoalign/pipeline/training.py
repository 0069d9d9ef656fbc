"""The stages that train: the SFT policy and the reward models."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from demoalign.config import OptimiserConfig, Recipe, RewardConfig
from demoalign.demonstrations import read_preferences
from demoalign.demonstrations.render import render
from demoalign.evaluation.golden import load_golden
from demoalign.pipeline.data import read_data
from demoalign.pipeline.memory import give_back
from demoalign.pipeline.models import Models, member_folder
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import SFT, Policy
from demoalign.policies.sft import train_sft
from demoalign.records import Demonstration
from demoalign.rewards.comparisons import (
    Answers,
    Comparison,
    answers_of_demonstrations,
    answers_of_rollouts,
    hold_out,
    label_pairs,
    pair_preferences,
    pair_sources,
)
from demoalign.rewards.heldout import heldout_metrics
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.train import train_reward_model
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import write_json

Config = TypeVar("Config", bound=OptimiserConfig)


def sft_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Fine-tune the initial policy on the training demonstrations; store a model folder."""
    train, _ = read_data(run / "demonstrations")
    models.release()
    backbone = models.backbone()
    adapter = SFT if models.uses_lora else None
    if adapter is not None:
        backbone.add_adapter(adapter, recipe.model.adapter, recipe.seed)
    rows = [render(backbone.tokenizer, row.prompt, row.completion) for row in train]
    config = _within(recipe.sft, backbone)
    summary = train_sft(backbone, adapter, rows, config, recipe.seed, folder)
    if adapter is None:
        backbone.causal.save_pretrained(str(folder))
        backbone.tokenizer.save_pretrained(str(folder))
    else:
        backbone.save_adapter(adapter, folder)
    write_json(folder / "training.json", dataclasses.asdict(summary))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    models.release()


def reward_stage(
    recipe: Recipe, config: RewardConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train one reward model, measure it on held-out comparisons, store it.

    One in closed form has nothing to train.
    """
    train, _ = read_data(run / "demonstrations")
    comparisons = _comparisons(recipe, config, run, models, folder, train)
    training, held_out = hold_out(comparisons, config.holdout_fraction, recipe.seed)
    if config.model == "density_ratio":
        found = heldout_metrics(models.ratio(config), held_out, config.loss, recipe.seed)
        write_json(folder / "heldout.json", [dataclasses.asdict(metric) for metric in found])
        models.release()
        return
    metrics = []
    for member in range(config.ensemble.size):
        place = member_folder(folder, config, member)
        seed = recipe.seed + 1000 * member
        model, losses = _train_member(recipe, config, models, training, seed)
        model.save(place)
        metrics += heldout_metrics(model, held_out, config.loss, recipe.seed)
        write_json(place / "training.json", {"losses": losses, "pairs": len(training)})
        models.drop_rewards()
        del model
        give_back()
    write_json(folder / "heldout.json", [dataclasses.asdict(metric) for metric in metrics])
    models.release()


def _train_member(
    recipe: Recipe,
    config: RewardConfig,
    models: Models,
    training: Sequence[Comparison],
    seed: int,
) -> tuple[RewardModel, list[float]]:
    """Train one model of an ensemble, or the only one: the model and its losses."""
    sft = models.sft() if config.model == "head" else None
    backbone = models.backbone() if sft is None else sft.backbone
    fitting = _within(config, backbone)
    return train_reward_model(fitting, recipe.model, backbone, sft, training, seed, config.title)


def _within(config: Config, backbone: Backbone) -> Config:
    """Settings that cut rows where the model's context ends, if not before."""
    longest = min(config.max_length, backbone.context or config.max_length)
    return config.model_copy(update={"max_length": longest})


def _comparisons(
    recipe: Recipe,
    config: RewardConfig,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
) -> list[Comparison]:
    if config.preferences == "golden":
        return _golden_preferences(recipe, run, train)
    if config.preferences is not None:
        skip = recipe.demonstrations.skip_invalid
        return pair_preferences(read_preferences(config.preferences, skip_invalid=skip))
    prompts = {row.id: row.prompt for row in train}
    positives = _answers(recipe, config.positives, run, models, folder, train)
    negatives = _answers(recipe, config.negatives, run, models, folder, train)
    return pair_sources(prompts, positives, negatives)


def _answers(
    recipe: Recipe,
    source: str,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
) -> Answers:
    """The answers of one declared source to the training prompts."""
    if source == "demonstrations":
        return answers_of_demonstrations(train)
    limit = recipe.rollouts.samples_per_prompt
    if not source.startswith("policy:"):
        rollouts = read_rollouts(run / "rollouts" / f"{source}.jsonl")
        return answers_of_rollouts(rollout for rollout in rollouts if rollout.index < limit)
    models.release()
    policy = Policy.load(source.removeprefix("policy:"), "policy", recipe.model.device)
    specs = [PromptSpec(row.id, row.prompt) for row in train[: recipe.rollouts.train_prompts]]
    path = folder / "rollouts.jsonl"
    write_rollouts(path, make_engine(recipe.rollouts), policy, specs, limit, recipe.seed)
    return answers_of_rollouts(read_rollouts(path))


def _golden_preferences(
    recipe: Recipe, run: Path, train: Sequence[Demonstration]
) -> list[Comparison]:
    """Pairs of SFT samples labelled by the golden reward with Bradley-Terry noise."""
    rollouts = read_rollouts(run / "rollouts" / "sft.jsonl")
    answers = answers_of_rollouts(rollouts)
    prompts = {row.id: row.prompt for row in train if row.id in answers}
    firsts = {key: [each[0]] for key, each in answers.items()}
    seconds = {key: [each[1]] for key, each in answers.items()}
    pairs = pair_sources(prompts, firsts, seconds)
    golden = load_golden(str(recipe.evaluation.golden), recipe.model.device)
    questions = [pair.prompt for pair in pairs]
    ups = golden.score(questions, [pair.positive.completion for pair in pairs])
    downs = golden.score(questions, [pair.negative.completion for pair in pairs])
    known = [
        (pair, (up, down))
        for pair, up, down in zip(pairs, ups, downs, strict=True)
        if up is not None and down is not None
    ]
    return label_pairs([pair for pair, _ in known], [values for _, values in known], recipe.seed)


def train_samples(recipe: Recipe) -> int:
    """SFT samples a training prompt: simulated annotators need two to compare."""
    needs_pairs = any(reward.preferences == "golden" for reward in recipe.reward)
    return max(recipe.rollouts.samples_per_prompt, 2 if needs_pairs else 1)
