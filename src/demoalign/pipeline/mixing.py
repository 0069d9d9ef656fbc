"""The stage of a mixture: where its members' scores lie, and how well it tells sources apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from demoalign.config import Recipe, RewardConfig
from demoalign.demonstrations.split import prompt_key
from demoalign.errors import DataError
from demoalign.pipeline.comparing import comparisons_of, seen_prompts
from demoalign.pipeline.data import read_data
from demoalign.pipeline.memory import give_back
from demoalign.pipeline.models import Models
from demoalign.pipeline.training import store_heldout
from demoalign.records import Demonstration, Prompt, Rollout
from demoalign.rewards.comparisons import Answer, Comparison, held_out_ids, hold_out
from demoalign.rewards.heldout import Judged, comparison_metrics
from demoalign.rewards.mixture import Array, measure_standards, mix, write_standards
from demoalign.rollouts.write import read_rollouts

STANDARDISED = "a mixture is in standard deviations, and no log-odds"
"""Why it has neither log loss nor calibration."""


class Asked(NamedTuple):
    """An answer that all members judge."""

    prompt: Prompt
    answer: Answer


def mixture_stage(
    recipe: Recipe, config: RewardConfig, run: Path, models: Models, folder: Path
) -> None:
    """Measure the members on held-out SFT samples of the training prompts; store what was found.

    Prompts that a member was trained on do not count: scores on them are not those on new prompts.
    """
    train, _ = read_data(run / "demonstrations")
    members = [each for each in recipe.reward if each.title in config.members]
    seen = seen_prompts(recipe, members, run, train)
    samples = _held_out_samples(recipe, config, run, train, seen)
    comparisons = comparisons_of(recipe, config, run, models, folder, train)
    _, held_out = hold_out(comparisons, config.holdout_fraction, recipe.seed)
    held_out = [pair for pair in held_out if prompt_key(pair.prompt) not in seen]
    if not held_out:
        raise DataError(
            f"reward {config.title}: needs held-out comparisons of prompts that none of its "
            f"members was trained on, found none of {len(comparisons)}. Raise holdout_fraction."
        )
    scores = _member_scores(config, models, [*samples, *_sides(held_out)])
    standards = measure_standards(
        config.title, {name: values[: len(samples)] for name, values in scores.items()}
    )
    prompts = {prompt_key(each.prompt) for each in samples}
    write_standards(folder, standards, len(prompts), len(samples))
    rest = {name: values[len(samples) :] for name, values in scores.items()}
    ups, downs = np.split(mix(standards, rest, config.ensemble), 2)
    judged = Judged(ups, downs, np.ones_like(ups), np.ones_like(downs))
    store_heldout(
        folder, comparison_metrics(config.title, judged, config.loss, recipe.seed, STANDARDISED)
    )
    models.release()


def _held_out_samples(
    recipe: Recipe,
    config: RewardConfig,
    run: Path,
    train: Sequence[Demonstration],
    seen: set[str],
) -> list[Asked]:
    rollouts: list[Rollout] = read_rollouts(run / "rollouts" / "sft.jsonl")
    ids = held_out_ids((each.prompt_id for each in rollouts), config.holdout_fraction, recipe.seed)
    prompts = {row.id: row.prompt for row in train if row.id in ids}
    return [
        Asked(prompts[each.prompt_id], Answer(each.completion, each.finish_reason == "stop"))
        for each in rollouts
        if each.prompt_id in ids and prompt_key(prompts[each.prompt_id]) not in seen
    ]


def _sides(comparisons: Sequence[Comparison]) -> list[Asked]:
    """All positives, then all negatives."""
    return [Asked(pair.prompt, pair.positive) for pair in comparisons] + [
        Asked(pair.prompt, pair.negative) for pair in comparisons
    ]


def _member_scores(
    config: RewardConfig, models: Models, asked: Sequence[Asked]
) -> dict[str, Array]:
    """Scores (B,) by member, one model at a time in memory."""
    found = {}
    for name in config.members:
        found[name] = models.named(name).score(
            [each.prompt for each in asked],
            [each.answer.completion for each in asked],
            [each.answer.finished for each in asked],
        )
        models.drop_rewards()
        give_back()
    return found
