"""Training a policy against a reward that stays as it is."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from demoalign.config import (
    FixedRewardConfig,
    RaftConfig,
    Recipe,
    RoundsConfig,
    reward_of,
)
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.optimise import Summary, Training, optimise
from demoalign.improve.raft import train_raft
from demoalign.improve.selector import Selector
from demoalign.pipeline.setting import Setting
from demoalign.rewards.density_ratio import DensityRatio

STARTS = 4
"""Answers of the SFT policy to each held-out prompt, by which rewards are standardised."""

Rounds = TypeVar("Rounds", bound=RoundsConfig)


def train_fixed(setting: Setting, config: FixedRewardConfig | RaftConfig) -> Summary:
    """Against a reward of the recipe."""
    entry = reward_of(setting.recipe, config)
    known = entry.model == "density_ratio" and entry.positives == "sft"
    return against(setting, config, setting.models.named(entry.title), known)


def against(
    setting: Setting,
    config: FixedRewardConfig | RaftConfig,
    reward: Selector | DensityRatio,
    is_of_reference: bool = False,
) -> Summary:
    """Against any reward.

    Args:
        setting: of the training.
        config: of the optimiser.
        reward: that is maximised.
        is_of_reference: whether it compares the reference policy with another one.
    """
    if isinstance(reward, DensityRatio) and config.repeats is not None:
        once = reward.config.model_copy(update={"repeats": config.repeats})
        reward = dataclasses.replace(reward, config=once)
    found = FixedReward(reward, is_of_reference=is_of_reference, unfinished=config.unfinished)
    if isinstance(config, RaftConfig):
        return _raft(setting, config, _standardised(setting, found))
    config = settled(setting.recipe, config, isinstance(reward, DensityRatio))
    by_token = config.level == "token"
    found = dataclasses.replace(found, by_token=by_token, clip=config.reward_clip)
    if config.standardise:
        found = _standardised(setting, found)
    seed = setting.recipe.seed
    training = Training(setting.asking, setting.prompts, setting.held_out, config, seed)
    return optimise(training, found, setting.folder, setting.store_last)


def settled(recipe: Recipe, config: Rounds, has_token_rewards: bool) -> Rounds:
    """The settings with a number or a name wherever they leave it open."""
    changes: dict[str, object] = {}
    if config.level == "auto":
        changes["level"] = "token" if has_token_rewards else "trajectory"
    if config.learning_rate is None:
        changes["learning_rate"] = recipe.sft.learning_rate / 6
    return config.model_copy(update=changes)


def _standardised(setting: Setting, reward: FixedReward) -> FixedReward:
    """In units of what the SFT policy's answers have."""
    begun = dataclasses.replace(setting.asking, policy=setting.asking.reference)
    return reward.measured(begun.say(setting.held_out.specs, STARTS, setting.recipe.seed))


def _raft(setting: Setting, config: RaftConfig, reward: FixedReward) -> Summary:
    return train_raft(
        setting.asking,
        reward,
        setting.prompts[: config.train_prompts],
        setting.held_out,
        config,
        setting.recipe.seed,
        setting.folder,
        setting.store_last,
    )
