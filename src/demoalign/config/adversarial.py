"""The improve section's adversarial method: a policy and a discriminator that learn by turns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from demoalign.config.optimise import FixedRewardConfig, NonNegative, Positive, RoundsConfig
from demoalign.config.section import PositiveInt, Section, Share, Source

Negatives = Annotated[str, Field(pattern=r"^(policy|initial|sft|policy:.+)$")]


class DiscriminatorConfig(Section):
    """What tells the demonstrator from the policy, and what keeps it from being too sure.

    It begins with the weights of the ``start`` policy. ``negatives`` are drawn equally often:
    ``policy`` is the one that learns. Of its samples the share ``replay`` is from earlier rounds
    (at most ``memory`` of them) or from the SFT policy.
    ``warmup`` steps are taken before the first round and ``steps`` in each. Regularisers:
    ``label_smoothing`` (how far labels are from 0 and 1), ``gradient_penalty`` (weight of the
    squared norm of the logit's gradient by the embeddings), ``spectral_norm`` (the head's norm
    is held at 1), and ``target_accuracy``, from which on it does not learn in a round (None:
    never).
    """

    start: Literal["sft", "initial"] = "sft"
    positives: Source = "demonstrations"
    negatives: Annotated[tuple[Negatives, ...], Field(min_length=1)] = ("policy",)
    warmup: Annotated[int, Field(ge=0)] = 40
    steps: Annotated[int, Field(ge=0)] = 2
    batch_size: PositiveInt = 32
    """Pairs of a positive and a negative in a step."""
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    gradient_penalty: NonNegative = 0.0
    spectral_norm: bool = False
    target_accuracy: Share | None = 0.8
    replay: Annotated[float, Field(ge=0, le=1)] = 0.5
    memory: PositiveInt = 20

    @model_validator(mode="after")
    def _check_sides(self) -> DiscriminatorConfig:
        if self.positives in self.negatives:
            raise ValueError(
                f"positives and negatives must differ, found {self.positives!r} on both sides"
            )
        if self.positives in ("preferred", "dispreferred"):
            raise ValueError(
                "positives: must be demonstrations, initial, sft or policy:FOLDER, found "
                f"{self.positives}"
            )
        return self


class AdversarialConfig(RoundsConfig):
    """Minimise a divergence to the demonstrator, with rewards f*(f'(e^h)) of its logit h.

    ``divergence`` names the reward (see `demoalign.divergences`); h is cut at +-``logit_clip``
    first. ``level: auto`` is trajectory. ``whiten`` gives a round's rewards mean 0 and deviation 1,
    over completions or, with ``level: token``, over tokens: a discriminator that has seen its
    positives before finds every other token too unlikely. The policy learns as in rloo. With
    ``rounds: 0`` nothing but the discriminator is trained: with ``sft`` against ``initial`` it is
    the one-shot reward model.
    """

    method: Literal["adversarial"] = "adversarial"
    divergence: Literal["airl", "gail", "fairl", "alpha"] = "airl"
    alpha: float | None = None
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    logit_clip: Positive = 4.0
    whiten: bool = True

    @model_validator(mode="after")
    def _check_alpha(self) -> AdversarialConfig:
        if (self.divergence == "alpha") != (self.alpha is not None):
            rule = "needs a number" if self.divergence == "alpha" else "belongs to alpha only"
            raise ValueError(f"alpha: {rule}, found {self.alpha} with {self.divergence}")
        return self


PolicyGradientConfig = FixedRewardConfig | AdversarialConfig
"""Everything that learns by policy gradients."""
