"""The two steps of iterative inverse reinforcement learning, on the models of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from demoalign.config import IrlConfig, RewardConfig
from demoalign.improve.irl import Material, iterate
from demoalign.improve.optimise import Summary
from demoalign.improve.selector import Selector
from demoalign.pipeline.fixed import against
from demoalign.pipeline.setting import Setting
from demoalign.processes import is_main
from demoalign.records import Prompt
from demoalign.rewards.comparisons import Answer, Comparison, pair_sources
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.train import fresh_scorer, render_pairs, train_scorer

NAME = "irl"

Answers = Sequence[tuple[Prompt, Answer]]


def irl_sources(config: IrlConfig) -> set[str]:
    """The declared sources that are compared."""
    return {config.reward.positives} | ({"initial", "sft"} if config.reward.mix else set())


def train_irl(setting: Setting, config: IrlConfig, answers: Mapping[str, Answers]) -> Summary:
    """Iterate on the run's models.

    Args:
        setting: of the training.
        config: of the method.
        answers: of every declared source.
    """
    specs = list(setting.prompts[: config.reward.train_prompts])
    prompts = {spec.id: spec.prompt for spec in specs}
    sides = {source: _by_id(prompts, each) for source, each in answers.items()}
    mixed = pair_sources(prompts, sides["sft"], sides["initial"]) if config.reward.mix else []
    material = Material(prompts, specs, sides[config.reward.positives], mixed)
    steps = partial(_train_reward, setting, config), partial(_improve, setting, config)
    return iterate(
        setting.asking,
        material,
        setting.held_out,
        config,
        steps,
        setting.recipe.seed,
        setting.folder,
        setting.store_last,
    )


def _train_reward(
    setting: Setting,
    config: IrlConfig,
    comparisons: Sequence[Comparison],
    number: int,
    before: Path | None,
    folder: Path,
) -> Selector:
    """Eq. 11, going on from the reward before if there is one."""
    recipe, backbone = setting.recipe, setting.asking.policy.backbone
    kind = "adapter" if setting.models.uses_lora else "full"
    own = {"train_prompts", "samples_per_prompt", "past", "restart", "mix", "positives", "start"}
    settings = {k: v for k, v in config.reward.model_dump().items() if k not in own}
    described = RewardConfig(name=NAME, model=kind, **settings)
    if before is None:
        start = setting.models.sft_folder if config.reward.start == "sft" else None
        seed = recipe.seed + number
        scorer = fresh_scorer(described, recipe.model, backbone, seed, NAME, start)
    else:
        scorer = RewardModel.load(before, NAME, recipe.model.device, backbone).scorer
    pairs = render_pairs(backbone.tokenizer, comparisons, described.max_length)
    train_scorer(described, scorer, backbone, pairs, recipe.seed + number, NAME)
    model = RewardModel(NAME, scorer, backbone.tokenizer)
    if is_main():
        model.save(folder)
    return model


def _improve(setting: Setting, config: IrlConfig, reward: Selector, folder: Path) -> Summary:
    """Eq. 5b, for some rounds."""
    return against(dataclasses.replace(setting, folder=folder), config.step, reward)


def _by_id(prompts: Mapping[str, Prompt], answers: Answers) -> dict[str, list[Answer]]:
    """Answers by the id of the training prompt that they answer."""
    ids = {_key(prompt): key for key, prompt in prompts.items()}
    found: dict[str, list[Answer]] = {}
    for prompt, answer in answers:
        if (key := ids.get(_key(prompt))) is not None:
            found.setdefault(key, []).append(answer)
    return found


def _key(prompt: Prompt) -> str:
    return repr(prompt)
