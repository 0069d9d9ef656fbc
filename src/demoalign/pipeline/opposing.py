"""The discriminator of an adversarial training, and what it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from demoalign.config import AdversarialConfig, Recipe, RewardConfig
from demoalign.improve.adversarial import AdversarialReward, ByPrompt, Sides
from demoalign.improve.discriminator import Discriminator
from demoalign.policies.backbone import Backbone
from demoalign.records import Prompt
from demoalign.rewards.comparisons import Answer
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scoring import Answer as Scored
from demoalign.rewards.scoring import render_rows
from demoalign.rewards.train import fresh_scorer

NAME = "discriminator"

Answers = Sequence[tuple[Prompt, Answer]]


def opposed_sources(config: AdversarialConfig) -> set[str]:
    """The declared sources that the discriminator is shown, and where the policy begins."""
    return {config.discriminator.positives, *config.discriminator.negatives, "sft"} - {"policy"}


def adversarial_reward(
    recipe: Recipe,
    config: AdversarialConfig,
    backbone: Backbone,
    answers: Mapping[str, Answers],
    sft: Path,
) -> AdversarialReward:
    """The reward that learns, before it has learned anything.

    Args:
        recipe: of the run.
        config: of the method.
        backbone: on which the policy learns; gains the discriminator's adapter.
        answers: of `opposed_sources`.
        sft: folder of the SFT policy, whose weights it may begin with.
    """
    start = sft if config.discriminator.start == "sft" else None
    kind = "adapter" if recipe.model.adapter.kind == "lora" else "full"
    described = RewardConfig(name=NAME, model=kind)
    scorer = fresh_scorer(described, recipe.model, backbone, recipe.seed, NAME, start)
    network = Discriminator(backbone, scorer, config.discriminator, config.level == "token")
    sides = {source: _by_prompt(backbone, each) for source, each in answers.items()}
    return AdversarialReward(
        network,
        config,
        Sides(
            positives=sides[config.discriminator.positives],
            negatives={
                name: sides[name] for name in config.discriminator.negatives if name in sides
            },
            start=sides["sft"],
        ),
        recipe.seed,
    )


def store_discriminator(reward: AdversarialReward, folder: Path) -> None:
    """As a reward model's folder."""
    network = reward.discriminator
    RewardModel(NAME, network.scorer, network.backbone.tokenizer).save(folder / NAME)


def _by_prompt(backbone: Backbone, answers: Answers) -> ByPrompt:
    given = [Scored(prompt, each.completion, each.finished) for prompt, each in answers]
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for row in render_rows(backbone.tokenizer, given, backbone.context):
        if row.completion:
            found.setdefault(row.prompt, []).append(row.completion)
    return found
