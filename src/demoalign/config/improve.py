"""The improve section: what is done with the reward, by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from demoalign.config.adversarial import AdversarialConfig
from demoalign.config.irl import IrlConfig
from demoalign.config.optimise import GrpoConfig, PpoConfig, RaftConfig, RlooConfig
from demoalign.config.reward import RatioConfig, check_policies
from demoalign.config.section import (
    DISTILLED,
    EXTRAPOLATED,
    PositiveInt,
    Section,
    SftConfig,
    Share,
    Source,
)
from demoalign.errors import RecipeError


def _method(value: object) -> str:
    """Which way of improving a mapping (or a section) asks for."""
    if isinstance(value, Mapping):
        return str(value.get("method", "best_of_n"))
    return str(getattr(value, "method", "best_of_n"))


class RejectionConfig(Section):
    """Speculative rejection: stop the least promising completions while they are written.

    At each checkpoint (new tokens; a quarter and a half of max_new_tokens by default) the partial
    completions of a cohort are scored, and gentle, moderate or aggressive keeps the best 75, 50 or
    25 % of those that still go on.
    """

    level: Literal["off", "gentle", "moderate", "aggressive"] = "off"
    checkpoints: tuple[PositiveInt, ...] | None = None
    cohort: PositiveInt = 64

    @field_validator("checkpoints")
    @classmethod
    def _ascend(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or list(value) != sorted(set(value))):
            raise ValueError(f"must ascend and name at least one token count, found {list(value)}")
        return value


class BestOfNConfig(Section):
    """Sample from the SFT policy and choose by the reward; needs no further training."""

    method: Literal["best_of_n"] = "best_of_n"
    rejection: RejectionConfig = RejectionConfig()

    @field_validator("rejection", mode="before")
    @classmethod
    def _level_alone(cls, value: object) -> object:
        if value is False:  # YAML reads a bare off as false
            value = "off"
        return {"level": value} if isinstance(value, str) else value


class DistilConfig(SftConfig):
    """Fine-tuning a copy of the SFT policy on samples of a better one."""

    samples_per_prompt: PositiveInt = 1
    train_prompts: PositiveInt | None = None


class DecodingRatioConfig(RatioConfig):
    """The same reward with defaults for decoding.

    There both distributions are at hand, so that they may be compared given that they stay inside;
    a tighter support then does without memory.
    """

    support: Annotated[float, Field(lt=0)] | Literal["auto"] | None = -4.0
    memory: Annotated[int, Field(ge=0)] = 0
    conditional: bool = True

    @model_validator(mode="after")
    def _check_repeats(self) -> DecodingRatioConfig:
        if self.repeats is not None:
            raise ValueError(
                "repeats: a next token is weighed before what it repeats is known; must be null, "
                f"found {self.repeats}"
            )
        return self


class ExtrapolateConfig(Section):
    """Decode with the logits of two policies, going on from the negatives' past the positives'.

    At every token the positives' distribution is tilted by exp(``strength`` times the token's
    reward in closed form) and cut to tokens at least ``plausibility`` times as likely as the
    positives' likeliest one; None keeps all. ``strength: auto`` has a run choose, without a golden
    reward (see `improve.strength`).
    """

    method: Literal["extrapolate"] = "extrapolate"
    positives: Source = "sft"
    negatives: Source = "initial"
    strength: Annotated[float, Field(ge=0)] | Literal["auto"] = 2.0
    ratio: DecodingRatioConfig = DecodingRatioConfig()
    plausibility: Share | None = 0.1
    samples: PositiveInt = 4
    """Answers to each test prompt that are measured."""
    distil: DistilConfig | None = None
    """Train one ordinary policy on what is said on the training prompts; None for not."""

    @property
    def settled_strength(self) -> float:
        """The strength.

        Raises:
            RecipeError: it is ``auto``, which only a run can find out.
        """
        if self.strength == "auto":
            raise RecipeError(
                "improve.strength: auto is chosen in a run; elsewhere give a number, such as 2"
            )
        return self.strength

    @model_validator(mode="after")
    def _check_policies(self) -> ExtrapolateConfig:
        check_policies("method: extrapolate", self.positives, self.negatives, self.ratio)
        if self.ratio.per == "mean":
            raise ValueError("ratio.per: decoding tilts every token by itself, found 'mean'")
        return self


ImproveConfig = Annotated[
    Annotated[BestOfNConfig, Tag("best_of_n")]
    | Annotated[ExtrapolateConfig, Tag("extrapolate")]
    | Annotated[RaftConfig, Tag("raft")]
    | Annotated[RlooConfig, Tag("rloo")]
    | Annotated[GrpoConfig, Tag("grpo")]
    | Annotated[PpoConfig, Tag("ppo")]
    | Annotated[AdversarialConfig, Tag("adversarial")]
    | Annotated[IrlConfig, Tag("irl")],
    Discriminator(_method),
]
"""What is done with the reward, by ``method``."""

METHODS: Mapping[str, type[Section]] = {
    "best_of_n": BestOfNConfig,
    "extrapolate": ExtrapolateConfig,
    "raft": RaftConfig,
    "rloo": RlooConfig,
    "grpo": GrpoConfig,
    "ppo": PpoConfig,
    "adversarial": AdversarialConfig,
    "irl": IrlConfig,
}

MAKING = tuple(name for name in METHODS if name != "best_of_n")
"""Methods that make a policy of their own."""

TrainedConfig = RaftConfig | RlooConfig | GrpoConfig | PpoConfig | AdversarialConfig | IrlConfig
"""Methods that train the policy against a reward; the policy is named by the method."""


def policies_of(config: ImproveConfig) -> tuple[str, ...]:
    """Names of the policies that a method makes."""
    if isinstance(config, BestOfNConfig):
        return ()
    if isinstance(config, ExtrapolateConfig):
        return (EXTRAPOLATED,) if config.distil is None else (EXTRAPOLATED, DISTILLED)
    return (config.method,)


def trained_policy(config: ImproveConfig) -> str | None:
    """The name of the policy that a method trains and a run stores as ``policy``."""
    return next((name for name in policies_of(config) if name != EXTRAPOLATED), None)
