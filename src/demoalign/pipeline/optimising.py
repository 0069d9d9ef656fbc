"""The stage that trains the policy against a reward, or along with one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from demoalign.config import (
    AdversarialConfig,
    FixedRewardConfig,
    RaftConfig,
    Recipe,
    TrainedConfig,
)
from demoalign.improve.adversarial import AdversarialReward
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.held_out import Asking, HeldOut
from demoalign.improve.optimise import Summary, Training, optimise
from demoalign.improve.raft import train_raft
from demoalign.pipeline.data import distinct_prompts, read_data
from demoalign.pipeline.looking import lookers_of, reward_of
from demoalign.pipeline.models import Models
from demoalign.pipeline.opposing import adversarial_reward, declared_answers, store_discriminator
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.sources import WHOLE
from demoalign.pipeline.training import save_weights, store_policy
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine

LEARNER = "learner"
"""The adapter that is trained."""

STARTS = 4
"""Answers of the SFT policy to each held-out prompt, by which rewards are standardised."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What every training of a policy has.

    Attributes:
        recipe, models, folder: of the run and of the stage.
        asking: the policy that learns.
        prompts: that it learns from.
        held_out: that it is watched on.
    """

    recipe: Recipe
    models: Models
    folder: Path
    asking: Asking
    prompts: Sequence[PromptSpec]
    held_out: HeldOut

    def store_last(self) -> None:
        """The policy as it is now, as the last one."""
        policy = self.asking.policy
        save_weights(policy.backbone, policy.adapter, self.folder / "last")


def optimise_stage(
    recipe: Recipe, config: TrainedConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train a copy of the SFT policy; store the best policy as a model folder, and the last."""
    models.release()
    train, _ = read_data(run / "demonstrations")
    answers = (
        declared_answers(recipe, config, run, models, folder, train)
        if isinstance(config, AdversarialConfig)
        else {}
    )
    student, reference = models.student(LEARNER), models.sft()
    engine = make_engine(recipe.rollouts.model_copy(update={**WHOLE, "min_new_tokens": 0}))
    specs, check = specs_of(distinct_prompts(train, None)), config.check
    lookers = lookers_of(recipe, config, models)
    setting = Setting(
        recipe,
        models,
        folder,
        Asking(student, reference, engine),
        specs[check.prompts :],
        HeldOut(specs[: check.prompts], check, recipe.seed, lookers),
    )
    if isinstance(config, AdversarialConfig):
        reward = adversarial_reward(recipe, config, student.backbone, answers)
        found = _train(setting, config, reward)
        store_discriminator(reward, folder)
    else:
        found = train_fixed(setting, config)
    store_policy(student.backbone, student.adapter, found, folder)
    models.release()


def train_fixed(setting: Setting, config: FixedRewardConfig | RaftConfig) -> Summary:
    """Against a reward of the recipe."""
    entry = reward_of(setting.recipe, config)
    is_closed = entry.model == "density_ratio"
    found = FixedReward(
        setting.models.named(entry.title),
        is_of_reference=is_closed and entry.positives == "sft",
        unfinished=config.unfinished,
    )
    if isinstance(config, RaftConfig):
        return _train_raft(setting, config, _standardised(setting, found))
    level = config.level if config.level != "auto" else ("token" if is_closed else "trajectory")
    config = config.model_copy(update={"level": level})
    found = dataclasses.replace(found, by_token=level == "token", clip=config.reward_clip)
    reward = _standardised(setting, found) if config.standardise else found
    return _train(setting, config, reward)


def _standardised(setting: Setting, reward: FixedReward) -> FixedReward:
    """In units of what the SFT policy's answers have."""
    begun = dataclasses.replace(setting.asking, policy=setting.asking.reference)
    return reward.measured(begun.say(setting.held_out.specs, STARTS, setting.recipe.seed))


def _train(
    setting: Setting,
    config: FixedRewardConfig | AdversarialConfig,
    reward: FixedReward | AdversarialReward,
) -> Summary:
    training = Training(
        setting.asking, setting.prompts, setting.held_out, config, setting.recipe.seed
    )
    return optimise(training, reward, setting.folder, setting.store_last)


def _train_raft(setting: Setting, config: RaftConfig, reward: FixedReward) -> Summary:
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
