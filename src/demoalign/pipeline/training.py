"""The stages that train: the SFT policy and the reward models."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from demoalign.config import OptimiserConfig, Recipe, RewardConfig
from demoalign.demonstrations.render import render
from demoalign.improve.dpo import DpoSummary
from demoalign.improve.kto import KtoSummary
from demoalign.improve.optimise import Summary
from demoalign.improve.referred import ADAPTER
from demoalign.pipeline.comparing import comparisons_of, store_prompts
from demoalign.pipeline.data import read_data
from demoalign.pipeline.memory import give_back
from demoalign.pipeline.models import Models, member_folder, policy_folder
from demoalign.policies.backbone import Backbone, is_split
from demoalign.policies.policy import INITIAL, SFT
from demoalign.policies.sft import SftSummary, train_sft
from demoalign.processes import is_main
from demoalign.records import Metric
from demoalign.rewards.agreement import agreement_metrics
from demoalign.rewards.comparisons import Comparison, drawn_again, hold_out
from demoalign.rewards.distil import distil
from demoalign.rewards.heldout import (
    Judged,
    comparison_metrics,
    heldout_metrics,
    judge,
    judged_together,
    why_uncalibrated,
)
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.train import train_reward_model
from demoalign.store import write_json

Array = NDArray[np.float64]
Config = TypeVar("Config", bound=OptimiserConfig)

CHECKPOINTS, STEP = "checkpoints", "step-"
"""Where a training's resume points are, and how those begin that are kept as policies."""

NO_CONSTANT = "a distilled reward is its teacher's less a constant, and no log-odds"
"""Why it has neither log loss nor calibration."""


def sft_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Fine-tune the initial policy on the training demonstrations; store a model folder."""
    train, _ = read_data(run / "demonstrations")
    models.release()
    backbone = models.backbone()
    adapter = SFT if models.uses_lora else None
    if adapter is not None:
        backbone.add_adapter(adapter, recipe.model.adapter, recipe.seed)
    rows = [render(backbone.tokenizer, row.prompt, row.completion) for row in train]
    config = within_context(recipe.sft, backbone)
    summary = train_sft(backbone, adapter, rows, config, recipe.seed, folder)
    store_policy(backbone, adapter, summary, folder, config.keep_checkpoints)
    models.release()


def store_policy(
    backbone: Backbone,
    adapter: str | None,
    summary: SftSummary | DpoSummary | KtoSummary | Summary,
    folder: Path,
    keep: bool = False,
) -> None:
    """A policy that was trained, as a model folder; resume points go, or become policies (keep)."""
    if keep and is_main() and not isinstance(summary, Summary):
        _keep_checkpoints(backbone, adapter, summary.steps, folder)
    save_weights(backbone, adapter, folder)
    write_json(folder / "training.json", dataclasses.asdict(summary))
    for path in (folder / CHECKPOINTS).glob("*"):
        if path.is_file():
            path.unlink()
        elif not path.name.startswith(STEP):
            shutil.rmtree(path)
    if not any((folder / CHECKPOINTS).glob("*")):
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def trainable(recipe: Recipe, start: str, run: Path, models: Models) -> tuple[Backbone, str | None]:
    """Weights to be trained on from a policy, and the adapter that holds them.

    Args:
        recipe, run, models: of the run.
        start: ``initial``, ``sft`` or ``baseline:NAME``.

    Returns:
        The backbone, and the only adapter on it; None for full fine-tuning.
    """
    if not models.uses_lora:
        models.release()
        return models.policy(start).backbone, None
    backbone = models.backbone()
    if start == INITIAL:
        backbone.add_adapter(ADAPTER, recipe.model.adapter, recipe.seed)
    else:
        backbone.load_adapter(ADAPTER, run / policy_folder(start))
    for other in backbone.adapters:
        if other != ADAPTER:
            backbone.remove_adapter(other)
    return backbone, ADAPTER


def save_weights(backbone: Backbone, adapter: str | None, folder: Path) -> None:
    """A policy as it is now, as a model folder."""
    if adapter is None:
        backbone.causal.save_pretrained(str(folder))
        backbone.tokenizer.save_pretrained(str(folder))
    else:
        backbone.save_adapter(adapter, folder)


def _keep_checkpoints(backbone: Backbone, adapter: str | None, steps: int, folder: Path) -> None:
    """Store the policies of resume points before the last step as model folders of their own.

    Args:
        backbone: that was trained.
        adapter: its trained adapter; None after full fine-tuning.
        steps: of the whole training.
        folder: of the stage; gets ``checkpoints/step-N``.
    """
    for path in sorted((folder / CHECKPOINTS).glob("checkpoint-*")):
        number = int(path.name.rpartition("-")[2])
        if number >= steps:
            continue
        place = path.with_name(f"{STEP}{number}")
        if adapter is None:
            backbone.tokenizer.save_pretrained(str(place))
            for file in [*path.glob("*config.json"), *path.glob("model*")]:
                shutil.move(file, place / file.name)
        else:
            within = path / adapter  # PEFT stores the one called default beside it
            backbone.load_adapter(place.name, within if within.is_dir() else path)
            backbone.save_adapter(place.name, place)
            backbone.remove_adapter(place.name)


def reward_stage(
    recipe: Recipe, config: RewardConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train one reward model, measure it on held-out comparisons, store it.

    One in closed form has nothing to train.
    """
    train, _ = read_data(run / "demonstrations")
    comparisons = comparisons_of(recipe, config, run, models, folder, train)
    training, held_out = hold_out(comparisons, config.holdout_fraction, recipe.seed)
    if config.model == "density_ratio":
        found = heldout_metrics(models.ratio(config), held_out, config.loss, recipe.seed)
        store_heldout(folder, found)
        models.release()
        return
    store_prompts(folder, training, held_out)
    taught = _teacher_scores(config, models, [*training, *held_out]) if config.distils else None
    lessons, checks = (None, None) if taught is None else np.split(taught, [len(training)])
    judged = []
    for member in range(config.ensemble.size):
        place = member_folder(folder, config, member)
        seed = recipe.seed + 1000 * member
        drawn = _drawn(config, training, seed)
        pairs = [training[place] for place in drawn]
        told = None if lessons is None else lessons[drawn]
        model, facts = _train_member(recipe, config, models, pairs, told, seed)
        model.save(place)
        if is_split(model.scorer):  # no longer: only all processes together could score with it
            del model
            models.release()
            model = models.reward(config.title, place)
        judged.append(judge(model, held_out))
        write_json(place / "training.json", {**facts, "pairs": len(pairs)})
        models.drop_rewards()
        del model
        give_back()
    together = judged_together(judged, config.ensemble)
    store_heldout(folder, _heldout(config, together, held_out, checks, recipe.seed))
    models.release()


def _drawn(config: RewardConfig, training: Sequence[Comparison], seed: int) -> list[int]:
    """Places of the pairs that a member learns from.

    The fit of a `head` is convex: it forgets its seed, and only other pairs make another member.
    """
    if config.model == "head" and config.ensemble.size > 1:
        return drawn_again(training, seed)
    return list(range(len(training)))


def store_heldout(folder: Path, metrics: Sequence[Metric]) -> None:
    """What was measured on held-out prompts, for the evaluation to take over."""
    write_json(folder / "heldout.json", [dataclasses.asdict(metric) for metric in metrics])


def _train_member(
    recipe: Recipe,
    config: RewardConfig,
    models: Models,
    training: Sequence[Comparison],
    lessons: Array | None,
    seed: int,
) -> tuple[RewardModel, dict[str, Any]]:
    """Train one model of an ensemble, or the only one: the model and what is noted of it."""
    sft = models.sft() if config.model == "head" else None
    backbone = models.backbone() if sft is None else sft.backbone
    fitting = within_context(config, backbone)
    given = fitting, recipe.model, backbone, sft, training
    if lessons is None:
        model, losses = train_reward_model(*given, seed, config.title)
        return model, {"losses": losses}
    facts = distil(*given, lessons, seed, config.title)._asdict()
    return facts.pop("model"), {"teacher": config.distils, **facts}


def _teacher_scores(
    config: RewardConfig, models: Models, comparisons: Sequence[Comparison]
) -> Array:
    """(B, 2) what the reward to be distilled says of positives and of negatives."""
    count = len(comparisons)
    answers = [pair.positive for pair in comparisons] + [pair.negative for pair in comparisons]
    scores = models.named(str(config.distils)).score(
        [pair.prompt for pair in comparisons] * 2,
        [answer.completion for answer in answers],
        [answer.finished for answer in answers],
    )
    models.drop_rewards()
    give_back()
    return np.stack([scores[:count], scores[count:]], axis=1)


def _heldout(
    config: RewardConfig,
    judged: Judged,
    held_out: Sequence[Comparison],
    checks: Array | None,
    seed: int,
) -> list[Metric]:
    """How well a trained reward tells its sources apart, and how far it follows its teacher.

    An ensemble is judged as the one reward that it is used as.
    """
    name = config.title
    if checks is None:
        reason = why_uncalibrated(config.ensemble)
        return comparison_metrics(name, judged, config.loss, seed, reason)
    said, wanted = np.stack([judged.ups, judged.downs]), checks.T
    prompts = [pair.prompt_id for pair in held_out] * 2
    teacher = str(config.distils)
    return [
        *comparison_metrics(name, judged, config.loss, seed, NO_CONSTANT),
        *agreement_metrics(name, teacher, said.ravel(), wanted.ravel(), prompts, seed),
    ]


def within_context(config: Config, backbone: Backbone) -> Config:
    """Settings that cut rows where the model's context ends, if not before."""
    longest = min(config.max_length, backbone.context or config.max_length)
    return config.model_copy(update={"max_length": longest})


def train_samples(recipe: Recipe, policy: str = SFT) -> int:
    """A policy's samples of each training prompt: simulated annotators need two to compare."""
    needs_pairs = any(each.preferences == "golden" for each in recipe.reward) and policy == SFT
    needs_pairs |= any(
        each.preferences == "golden" and each.labels == policy for each in recipe.baselines
    )
    return max(recipe.rollouts.samples_per_prompt, 2 if needs_pairs else 1)
