"""What entries of the baselines section share, whatever their method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from demoalign.config.section import Name, OptimiserConfig, PositiveInt, Source

LABELLED = ("preferred", "dispreferred")


class BaselineBase(OptimiserConfig):
    """What all baselines set.

    ``start`` is the policy whose weights training goes on from: the initial one (single-phase, as
    in section 4.1) or the SFT policy. ``preferences`` is a file with chosen and rejected answers,
    or ``golden``: the golden reward labels, with noise, pairs of samples of the policy that
    ``labels`` names. ``checkpoints`` counts resume points.
    """

    name: Name
    positives: Source = "preferred"
    preferences: str | None = None
    labels: Literal["sft", "initial"] = "sft"
    start: Literal["initial", "sft"] = "initial"
    checkpoints: Annotated[int, Field(ge=0)] = 1
    samples: PositiveInt = 4
    """Answers to each test prompt that are measured, beside the greedy one."""

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources of completions."""
        return (self.positives,)

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies of the run that training starts from or compares with."""
        return (self.start,)

    @property
    def reads_rollouts(self) -> bool:
        """Whether it learns from samples of the run's own policies."""
        return self.preferences == "golden" or bool({"initial", "sft"}.intersection(self.sources))

    @property
    def is_labelled(self) -> bool:
        """Whether it learns from preferences."""
        return any(source in LABELLED for source in self.sources)

    @model_validator(mode="after")
    def _check_preferences(self) -> BaselineBase:
        if self.is_labelled and not self.preferences:
            raise ValueError(
                "preferences: give the file with chosen and rejected answers, or 'golden' to have "
                "the golden reward label pairs of samples with noise"
            )
        if self.preferences and not self.is_labelled:
            raise ValueError(
                "preferences: used only with preferred or dispreferred answers, found "
                f"{' and '.join(self.sources)}"
            )
        if self.labels != "sft" and self.preferences != "golden":
            raise ValueError(
                "labels: says whose samples preferences: golden compares, found preferences: "
                f"{self.preferences}"
            )
        return self


class ReferredConfig(BaselineBase):
    """What baselines with an implicit reward beta log(pi / reference) set.

    ``reference`` is the policy that the reward is relative to; ``start`` takes what training
    started from.
    """

    negatives: Source = "dispreferred"
    reference: Literal["start", "initial", "sft"] = "start"
    beta: Annotated[float, Field(gt=0)] = 0.1

    @property
    def sources(self) -> tuple[str, ...]:
        """Positives, then negatives."""
        return (self.positives, self.negatives)

    @property
    def relative_to(self) -> str:
        """The reference policy: ``initial`` or ``sft``."""
        return self.start if self.reference == "start" else self.reference

    @property
    def policies(self) -> tuple[str, ...]:
        """The policy that training starts from, and the reference."""
        return (self.start, self.relative_to)

    @model_validator(mode="after")
    def _check_sides(self) -> ReferredConfig:
        if self.positives == self.negatives:
            raise ValueError(
                f"positives and negatives must differ, found {self.positives!r} as both"
            )
        if self.is_labelled and self.sources != LABELLED:
            raise ValueError(
                "preferred and dispreferred belong together (positives: preferred, negatives: "
                f"dispreferred); found positives: {self.positives}, negatives: {self.negatives}"
            )
        return self
