"""The improve section's methods that train the policy against a reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from demoalign.config.section import Name, PositiveInt, Section, SftConfig, Share

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class CheckConfig(Section):
    """How a training is watched on prompts that it does not learn from, and when it stops.

    Every ``every`` rounds the policy answers ``prompts`` training prompts that are held out (at
    most a quarter of all), ``samples`` times each. ``witness`` is another reward of the recipe that
    is asked for its view: training stops when it falls (paired by prompt, the 95 % interval of the
    fall above 0), which is where over-optimisation begins. ``auto`` is the recipe's reward in
    closed form where that is not the reward itself; None is nobody, and then the objective is
    watched. It also stops beyond ``kl`` nats from the SFT policy, and at a collapse: entropy or
    distinct pairs of words below the share ``collapse`` of what they were, or as large a share of
    answers more that do not end. What has collapsed is not kept, nor a policy whose greedy answers
    loop (distinct pairs within each below that share).
    """

    every: PositiveInt = 10
    prompts: PositiveInt = 64
    samples: PositiveInt = 4
    witness: Name | Literal["auto"] | None = "auto"
    kl: Positive | None = None
    collapse: Share = 0.6


class RoundsConfig(Section):
    """What all trainings on the policy's own samples share: rounds of sampling and learning.

    A round answers ``prompts`` training prompts ``samples_per_prompt`` times at temperature 1,
    without truncation. The objective is E[r] - ``beta`` KL(pi || pi_SFT) (ML-IRL Eq. 3 and 5b).
    Rewards of whole answers are in units of their standard deviation over the SFT policy's samples
    (``standardise``); an answer that does not end loses ``unfinished`` of them. With
    ``level: token`` every token has its own reward, which a reward in closed form and token-level
    discriminators give; ``auto`` is token where the reward has them, else trajectory.
    Where tokens have rewards, a run of ``repeats`` tokens that the answer has had before loses what
    it would earn: a sum over tokens would pay for saying a good sentence again. None pays.
    """

    rounds: Annotated[int, Field(ge=0)] = 40
    prompts: PositiveInt = 16
    samples_per_prompt: PositiveInt = 8
    level: Literal["auto", "trajectory", "token"] = "auto"
    beta: NonNegative = 0.1
    standardise: bool = True
    reward_clip: Positive | None = None
    repeats: PositiveInt | None = 4
    unfinished: NonNegative = 2.0
    passes: PositiveInt = 1
    minibatches: PositiveInt = 1
    batch_size: PositiveInt = 32
    """Completions in one forward and backward pass; the result does not depend on it."""
    learning_rate: Positive | None = None
    """A sixth of ``sft.learning_rate`` by default."""
    schedule: Literal["linear", "cosine", "constant"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 5
    """Optimiser steps until the whole learning rate."""
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    clip: Positive = 0.2
    check: CheckConfig = CheckConfig()
    checkpoint_every: PositiveInt = 10
    samples: PositiveInt = 4
    """Answers to each test prompt that are measured, beside the greedy one."""


class AgainstConfig(RoundsConfig):
    """What maximises a ``reward`` of the recipe that stays as it is."""

    reward: Name | None = None
    passes: PositiveInt = 2
    minibatches: PositiveInt = 2


class GroupedConfig(AgainstConfig):
    """What compares the samples of a prompt with each other."""

    method: str

    @model_validator(mode="after")
    def _needs_others(self) -> GroupedConfig:
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"samples_per_prompt: {self.method} compares the samples of a prompt with each "
                f"other and needs at least 2, found {self.samples_per_prompt}"
            )
        return self


class RlooConfig(GroupedConfig):
    """REINFORCE with the other samples' mean as baseline (Ahmadian et al., 2024)."""

    method: Literal["rloo"] = "rloo"


class GrpoConfig(GroupedConfig):
    """Advantages standardised within a prompt, clipped token by token (Shao et al., 2024).

    One step a round: its advantages stay as large however little there is left to gain, and with
    four it went further from the SFT policy than it gained.
    """

    method: Literal["grpo"] = "grpo"
    passes: PositiveInt = 1
    minibatches: PositiveInt = 1


class PpoConfig(AgainstConfig):
    """Clipped surrogate with a learned value function (Schulman et al., 2017).

    ``decay`` is lambda of generalised advantages; ``value_learning_rate`` is the value head's,
    ``value_clip`` how far a value may move at a time.
    """

    method: Literal["ppo"] = "ppo"
    decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    value_learning_rate: Positive = 3e-3
    value_clip: Positive = 0.5


class RaftConfig(SftConfig):
    """Fine-tuning on the best of n of one's own samples, in rounds (Dong et al., 2023).

    Each of ``rounds`` answers ``train_prompts`` training prompts ``samples_per_prompt`` times and
    learns the answer that the reward likes best; ``unfinished`` and ``repeats`` as above.
    """

    method: Literal["raft"] = "raft"
    reward: Name | None = None
    rounds: PositiveInt = 2
    samples_per_prompt: PositiveInt = 16
    train_prompts: PositiveInt | None = None
    unfinished: NonNegative = 1.0
    repeats: PositiveInt | None = 4
    check: CheckConfig = CheckConfig(every=1)
    samples: PositiveInt = 4


FixedRewardConfig = RlooConfig | GrpoConfig | PpoConfig
"""Optimisers of a fixed reward by policy gradients."""
