"""What all sections of a recipe share: their base, kinds of values, what trainings set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Source = Annotated[
    str, Field(pattern=r"^(demonstrations|initial|sft|preferred|dispreferred|policy:.+)$")
]
BASELINE = "baseline:"
"""How a source begins that is a policy of the recipe's ``baselines``."""

BASELINE_PATTERN = r"baseline:[A-Za-z0-9][A-Za-z0-9._-]*(/iteration-[1-9][0-9]*)?"
"""The policy of a baseline, or of an iteration of SPIN before the last."""

RewardSource = Annotated[
    str,
    Field(
        pattern=r"^(demonstrations|initial|sft|preferred|dispreferred|policy:.+"
        rf"|{BASELINE_PATTERN})$"
    ),
]
"""A source that may also be a baseline of the run."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]

EXTRAPOLATED, DISTILLED = "extrapolated", "distilled"
TRAINED = ("raft", "rloo", "grpo", "ppo", "adversarial", "irl")
"""Policies of the methods of ``improve``; those that train one are named by the method."""

IMPROVED = (EXTRAPOLATED, DISTILLED, *TRAINED)

ONE, LIST = "<one>", "<list>"
"""How pydantic marks which of `one_or_list` it tried; no part of a key."""


def one_or_list(value: object) -> str:
    """Which of two kinds a value may be: one of something, or a list."""
    return LIST if isinstance(value, list | tuple) else ONE


class Section(BaseModel):
    """Base of every recipe section: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimiserConfig(Section):
    """What every training stage shares; the paper's appendix E.6 by default."""

    epochs: Annotated[float, Field(gt=0)] = 2
    batch_size: PositiveInt = 4
    accumulation: PositiveInt = 2
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_length: PositiveInt = 1024
    gradient_checkpointing: bool = False


class SftConfig(OptimiserConfig):
    """Supervised fine-tuning; ``occupancy`` weights token k of T by (T-k)/T (Eq. 29)."""

    token_weighting: Literal["none", "occupancy"] = "none"
    packing: bool = False
    """Put several rows into one sequence of max_length; batch_size then counts sequences."""
    group_by_length: bool = False
    """Batches of rows of like length: less padding, so faster, but a batch is less of a mixture."""
    checkpoints: Annotated[int, Field(ge=0)] = 1
    keep_checkpoints: bool = False
    """Keep the policies of these resume points, as ``checkpoints/step-N`` of the stage's folder."""
