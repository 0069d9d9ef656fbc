"""The baselines section: policies that are trained to be compared with, one entry each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from demoalign.config.baseline import BaselineBase, ReferredConfig
from demoalign.config.rollouts import TRUNCATIONS
from demoalign.config.section import (
    IMPROVED,
    OptimiserConfig,
    PositiveInt,
    Section,
    SftConfig,
    Source,
)

TAKEN_POLICIES = frozenset(
    {
        *("initial", "sft", "demonstrations", "candidates", "greedy", "policy"),
        *(f"{name}{end}" for name in IMPROVED for end in ("", "-greedy")),
        *(f"sft-{name}" for name in TRUNCATIONS),
    }
)
"""Policies and sources that results already have; no baseline is so named."""


def _method(value: object) -> str:
    """Which training a mapping (or a section) asks for."""
    if isinstance(value, Mapping):
        return str(value.get("method", ""))
    return str(getattr(value, "method", ""))


class SftBaselineConfig(BaselineBase, SftConfig):
    """Supervised fine-tuning on ``positives``, such as the preferred answers."""

    method: Literal["sft"] = "sft"


class DpoConfig(ReferredConfig):
    """Direct preference optimisation of ``positives`` over ``negatives``, by TRL's trainer.

    ``label_smoothing`` is the share of labels that are taken to be wrong, for the robust loss.
    """

    method: Literal["dpo"] = "dpo"
    loss: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0

    @model_validator(mode="after")
    def _check_smoothing(self) -> DpoConfig:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f"label_smoothing: belongs to loss: robust, found loss: {self.loss}")
        return self


class KtoConfig(ReferredConfig):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024), by TRL's trainer.

    Each answer of ``positives`` is desirable by itself and each of ``negatives`` undesirable;
    nothing is paired. ``desirable_weight: auto`` gives both kinds the same weight in all.
    ``batch_size`` is at least 2: the KL term sets prompts against answers to others of the batch.
    """

    method: Literal["kto"] = "kto"
    positives: Source = "demonstrations"
    negatives: Source = "initial"
    desirable_weight: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 4


class SpinConfig(BaselineBase):
    """Self-play fine-tuning (SPIN; Chen et al., 2024), each iteration by TRL's DPO trainer.

    In iteration t the policy of iteration t-1 answers the training prompts, and is what training
    starts from and refers to; ``positives`` are preferred to its answers. ``mix`` is how many of
    the latest iterations' answers are trained on, 2 as in the authors' code. ``betas`` and
    ``learning_rates`` set those of the iterations one by one, the last one also of the rest.
    """

    method: Literal["spin"] = "spin"
    positives: Source = "demonstrations"
    start: Literal["initial", "sft"] = "sft"
    iterations: PositiveInt = 3
    mix: PositiveInt = 2
    beta: Annotated[float, Field(gt=0)] = 0.1
    betas: tuple[Annotated[float, Field(gt=0)], ...] = ()
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    loss: Literal["sigmoid", "hinge"] = "sigmoid"

    @property
    def sources(self) -> tuple[str, ...]:
        """Positives, and the policy whose answers the first iteration learns from."""
        return (self.positives, self.start)

    def trained_on(self, iteration: int) -> range:
        """Iterations whose answers this one (from 1) is trained on."""
        return range(max(1, iteration - self.mix + 1), iteration + 1)

    def training(self, iteration: int) -> DpoConfig:
        """How one iteration, from 1, is trained."""
        shared = {key: getattr(self, key) for key in OptimiserConfig.model_fields}
        rate = _nth(self.learning_rates, iteration, self.learning_rate)
        return DpoConfig(
            **{**shared, "learning_rate": rate},
            name=self.name,
            positives=self.positives,
            negatives=self.start,
            start=self.start,
            beta=_nth(self.betas, iteration, self.beta),
            loss=self.loss,
            checkpoints=self.checkpoints,
        )

    @model_validator(mode="after")
    def _check_iterations(self) -> SpinConfig:
        if self.is_labelled:
            raise ValueError(
                "positives: SPIN prefers an answer to the policy's own, which needs demonstrations "
                f"(or samples), found {self.positives}"
            )
        if self.positives == self.start:
            raise ValueError(
                f"positives must differ from what training starts from, found {self.start!r} as "
                "both"
            )
        for key in ("betas", "learning_rates"):
            if len(getattr(self, key)) > self.iterations:
                raise ValueError(
                    f"{key}: must be at most one for each of {self.iterations} iterations, found "
                    f"{len(getattr(self, key))}"
                )
        return self


def _nth(values: Sequence[float], number: int, default: float) -> float:
    """Value ``number`` from 1, the last one beyond the end; the default if there are none."""
    return values[min(number, len(values)) - 1] if values else default


BaselineConfig = Annotated[
    Annotated[SftBaselineConfig, Tag("sft")]
    | Annotated[DpoConfig, Tag("dpo")]
    | Annotated[KtoConfig, Tag("kto")]
    | Annotated[SpinConfig, Tag("spin")],
    Discriminator(_method),
]
"""A policy to compare with, by ``method``."""

BASELINE_METHODS: Mapping[str, type[Section]] = {
    "sft": SftBaselineConfig,
    "dpo": DpoConfig,
    "kto": KtoConfig,
    "spin": SpinConfig,
}


def check_baseline_names(baselines: Sequence[BaselineBase]) -> None:
    """Refuse names that results could not tell apart.

    Raises:
        ValueError: a name is taken, or given twice (greedy answers go by the name and -greedy).
    """
    names = [each.name for each in baselines]
    if taken := sorted(TAKEN_POLICIES.intersection(names)):
        raise ValueError(f"baselines: name must not be that of another policy, found {taken[0]!r}")
    keys = [key for name in names for key in (name, f"{name}-greedy")]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"baselines: names must differ, found {twice[0]!r} twice")


def check_baseline_source(where: str, source: str, baselines: Sequence[BaselineBase]) -> None:
    """Refuse a source that names no policy of these baselines.

    Args:
        where: the section that has it, for the error.
        source: NAME or NAME/iteration-K.
        baselines: of the recipe.

    Raises:
        ValueError: no such baseline, or one without that iteration.
    """
    name, _, iteration = source.partition("/iteration-")
    known = {each.name: each for each in baselines}
    if name not in known:
        raise ValueError(
            f"{where}: baseline:NAME must name one of the recipe's baselines "
            f"({', '.join(known) or 'none'}), found {name!r}"
        )
    if not iteration:
        return
    config = known[name]
    before = config.iterations - 1 if isinstance(config, SpinConfig) else 0
    if int(iteration) > before:
        stored = f"1 to {before}" if before else "none"
        raise ValueError(
            f"{where}: baseline:{name}/iteration-K must be an iteration of SPIN before the last "
            f"({stored} here; the last is baseline:{name}), found {iteration}"
        )
