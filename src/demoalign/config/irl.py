"""The improve section's iterative method: reward and policy teach each other (ML-IRL)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from demoalign.config.optimise import (
    CheckConfig,
    GrpoConfig,
    PpoConfig,
    RaftConfig,
    RlooConfig,
)
from demoalign.config.section import OptimiserConfig, PositiveInt, Section, Share, Source


class IrlRewardConfig(OptimiserConfig):
    """The reward step: ``positives`` against the current policy's own samples.

    ``train_prompts`` training prompts are answered ``samples_per_prompt`` times; the share
    ``holdout_fraction`` of them is kept for the accuracy that stops the training. The first reward
    model begins with the weights of the ``start`` policy (ML-IRL, section 6). ``past`` takes
    the samples of all earlier policies as negatives, too; ``restart`` begins each iteration with a
    fresh reward model; ``mix`` adds comparisons of the SFT policy's samples with the initial
    policy's, that many for each other one, so that the demonstrator's habits do not take over.
    """

    positives: Source = "demonstrations"
    loss: Literal["bce", "bradley_terry"] = "bradley_terry"
    train_prompts: PositiveInt | None = None
    samples_per_prompt: PositiveInt = 1
    holdout_fraction: Share = 0.1
    start: Literal["sft", "initial"] = "sft"
    past: bool = False
    restart: bool = False
    mix: Annotated[float, Field(ge=0)] = 0.0


StepConfig = Annotated[
    Annotated[RlooConfig, Tag("rloo")]
    | Annotated[GrpoConfig, Tag("grpo")]
    | Annotated[PpoConfig, Tag("ppo")]
    | Annotated[RaftConfig, Tag("raft")],
    Discriminator("method"),
]


class IrlConfig(Section):
    """Algorithm 1 of ML-IRL: a reward step (Eq. 11) and a policy step (Eq. 5b) by turns.

    It ends after ``iterations``, or when the reward model can no longer tell the demonstrations
    from the policy's samples: when the interval of its accuracy on held-out prompts holds 0.5.
    ``step`` is the optimiser of the policy step; its ``check`` watches the whole training.
    """

    method: Literal["irl"] = "irl"
    iterations: PositiveInt = 3
    reward: IrlRewardConfig = IrlRewardConfig()
    step: StepConfig = RlooConfig(rounds=20)
    samples: PositiveInt = 4

    @property
    def check(self) -> CheckConfig:
        """How the policy is watched."""
        return self.step.check

    @model_validator(mode="after")
    def _check_step(self) -> IrlConfig:
        if self.step.reward is not None:
            raise ValueError(
                "step.reward: the policy step follows the reward that is learned, found "
                f"{self.step.reward!r}"
            )
        if not isinstance(self.step, RaftConfig) and self.step.level == "token":
            raise ValueError(
                "step.level: the reward that is learned judges whole answers; must be auto or "
                "trajectory, found 'token'"
            )
        if self.reward.positives in ("preferred", "dispreferred"):
            raise ValueError(
                "reward.positives: must be demonstrations, initial, sft or policy:FOLDER, found "
                f"{self.reward.positives}"
            )
        return self
