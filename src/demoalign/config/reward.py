"""The reward section: one entry a reward model, of which some are made of others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from demoalign.config.rollouts import DECODINGS
from demoalign.config.section import (
    BASELINE,
    Name,
    OptimiserConfig,
    PositiveInt,
    RewardSource,
    Section,
    Share,
)
from demoalign.errors import RecipeError

TAKEN = frozenset({*DECODINGS, "golden", "length", "mean-logprob", "sequence-logprob"})
"""Selectors that stand beside the reward models in every result; no reward model is so named."""

_SHORT = {"demonstrations": "demo", "initial": "init", "sft": "sft"}


class EnsembleConfig(Section):
    """Several reward models seen as one.

    They differ by their seed: first weights and order of the pairs. A ``head``, which is fitted to
    its only optimum whatever the seed, learns from a bootstrap sample of the training prompts.
    """

    size: PositiveInt = 1
    aggregate: Literal["mean", "min", "mean_minus_std"] = "mean"
    k: Annotated[float, Field(ge=0)] = 1.0


class RatioConfig(Section):
    """The reward in closed form: the log-ratio of two policies, token by token.

    A token counts only inside the negatives' support, where log pi > ``support`` (nats) and
    pi >= ``min_p`` times that of the likeliest token; None lifts a limit. ``support: auto`` is the
    log-probability below which the share ``outside`` of the initial policy's own tokens lies. The
    ``memory`` tokens behind one outside do not count either: the negatives' policy does not know
    its way there. ``conditional`` compares the two policies given that they stay inside, so that
    ordinary tokens do not lose by the share that the positives give to what lies outside. What
    counts is put into ``form`` and clipped to [-clip, clip], then summed or, ``per: mean``,
    divided by the length. A run of ``repeats`` tokens that the answer has had before loses what it
    would earn; None pays for it every time.
    """

    form: Literal["log_ratio", "jensen_shannon"] = "log_ratio"
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    support: Annotated[float, Field(lt=0)] | Literal["auto"] | None = -6.0
    outside: Share = 0.03
    min_p: Share | None = None
    memory: Annotated[int, Field(ge=0)] = 8
    conditional: bool = False
    per: Literal["sum", "mean"] = "sum"
    repeats: PositiveInt | None = None

    @property
    def threshold(self) -> float | None:
        """The support's limit in nats.

        Raises:
            RecipeError: it is ``auto``, which only a run can find out.
        """
        if self.support == "auto":
            raise RecipeError(
                "ratio.support: auto is found out in a run, from rollouts of the initial policy; "
                "elsewhere give nats (support_of tells them for log-probabilities of its tokens)"
            )
        return self.support


def check_policies(what: str, positives: str, negatives: str, ratio: RatioConfig) -> None:
    """Refuse sources whose likelihoods nobody knows.

    Raises:
        ValueError: one of them is no policy, both are the same, or ``support: auto`` is asked for
            other negatives than the initial policy.
    """
    sources = (positives, negatives)
    if ratio.support == "auto" and negatives != "initial":
        raise ValueError(
            "ratio.support: auto is measured on rollouts of the initial policy, found negatives: "
            f"{negatives}; give nats"
        )
    others = [each for each in sources if each in ("demonstrations", "preferred", "dispreferred")]
    if others:
        raise ValueError(
            f"{what} compares two policies (initial, sft, policy:FOLDER; of a reward also "
            f"baseline:NAME), whose likelihoods are known; found {others[0]}"
        )
    if len(set(sources)) < len(sources):
        raise ValueError(
            f"{what} needs two different policies, found {sources[0]!r} as positives and negatives"
        )


class RewardConfig(OptimiserConfig):
    """One reward model: which completions are positives, which negatives, and how to learn.

    A ``mixture`` is made of other entries (``members``) and is told apart from them by its sources
    on held-out prompts only. An entry that ``distils`` another learns that one's scores of its
    sources' completions, by ``squared_error``.
    """

    name: Name | None = None
    positives: RewardSource = "sft"
    negatives: RewardSource = "initial"
    loss: Literal["bce", "bradley_terry", "bradley_terry_variance", "squared_error"] = "bce"
    model: Literal["adapter", "head", "full", "density_ratio", "mixture"] = "adapter"
    members: tuple[Name, ...] = ()
    distils: Name | None = None
    ratio: RatioConfig | None = None
    holdout_fraction: Share = 0.1
    preferences: str | None = None
    ensemble: EnsembleConfig = EnsembleConfig()

    @property
    def title(self) -> str:
        """The name given, else the sources' (negatives first, as in Table 1)."""
        if self.name:
            return self.name
        if self.model in UNTRAINED:
            return self.model.replace("_", "-")
        if self.distils:
            return f"{self.distils}-{self.model}"
        if {self.positives, self.negatives} == {"preferred", "dispreferred"}:
            return "preference"
        return f"{_short(self.negatives)}-{_short(self.positives)}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the rewards that this one is made from."""
        return (self.distils,) if self.distils else self.members

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the policies among its sources that are the recipe's baselines, as given."""
        sides = (self.positives, self.negatives)
        return tuple(each.removeprefix(BASELINE) for each in sides if each.startswith(BASELINE))

    @model_validator(mode="before")
    @classmethod
    def _loss_of_students(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("distils") is not None:
            return {"loss": "squared_error", **value}
        return value

    @field_validator("ensemble", mode="before")
    @classmethod
    def _ensemble_size_alone(cls, value: object) -> object:
        return {"size": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _check_sources(self) -> RewardConfig:
        if self.positives == self.negatives:
            raise ValueError(
                "positives and negatives must differ: a discriminator between "
                f"{self.positives!r} and itself has nothing to learn"
            )
        pair = {self.positives, self.negatives}
        if pair & {"preferred", "dispreferred"}:
            if self.positives != "preferred" or self.negatives != "dispreferred":
                raise ValueError(
                    "preferred and dispreferred belong together (positives: preferred, "
                    f"negatives: dispreferred); found positives: {self.positives}, "
                    f"negatives: {self.negatives}"
                )
            if not self.preferences:
                raise ValueError(
                    "preferences: give the file with chosen and rejected answers, or 'golden' "
                    "to have the golden reward label pairs of SFT samples with noise"
                )
        elif self.preferences:
            raise ValueError(
                "preferences: used only with positives: preferred, negatives: dispreferred; "
                f"found positives: {self.positives}, negatives: {self.negatives}"
            )
        self._check_ratio()
        self._check_mixture()
        self._check_student()
        return self

    def _check_ratio(self) -> None:
        if self.model != "density_ratio":
            if self.ratio is not None:
                raise ValueError(f"ratio: belongs to model: density_ratio, found {self.model}")
            return
        check_policies(
            "model: density_ratio", self.positives, self.negatives, self.ratio or RatioConfig()
        )
        self._check_is_one("a density_ratio has no training that could differ by seed")

    def _check_mixture(self) -> None:
        members = list(self.members)
        if self.model != "mixture":
            if members:
                raise ValueError(f"members: belong to model: mixture, found model: {self.model}")
            return
        if len(members) < 2:
            raise ValueError(f"members: a mixture needs at least two rewards, found {members}")
        if twice := sorted({name for name in members if members.count(name) > 1}):
            raise ValueError(f"members: must be named once each, found {twice[0]!r} twice")
        self._check_is_one("a mixture has its members, of which each may be an ensemble")

    def _check_student(self) -> None:
        if self.distils is None:
            if self.loss == "squared_error":
                raise ValueError("loss: squared_error needs a reward to learn from; set distils")
            return
        if self.model in UNTRAINED:
            raise ValueError(
                "distils: a student is model: adapter, head or full, which can be trained, found "
                f"{self.model}"
            )
        if self.loss != "squared_error":
            raise ValueError(f"loss: a student learns by squared_error, found {self.loss}")
        if self.model == "head":
            self._check_is_one("a head that distils is fitted in closed form, whatever the seed")

    def _check_is_one(self, reason: str) -> None:
        if self.ensemble.size > 1:
            raise ValueError(f"ensemble: {reason}, found size {self.ensemble.size}")


UNTRAINED = frozenset({"density_ratio", "mixture"})
"""Kinds of reward model without weights of their own."""


def in_order(rewards: Sequence[RewardConfig]) -> list[RewardConfig]:
    """Rewards such that each comes after those that it needs, else as they were given.

    Raises:
        ValueError: one needs a reward that is not there, or itself by way of others.
    """
    by_title = {reward.title: reward for reward in rewards}
    done: dict[str, RewardConfig] = {}

    def visit(reward: RewardConfig, path: tuple[str, ...]) -> None:
        title, field = reward.title, "distils" if reward.distils else "members"
        if title in path:
            circle = " -> ".join([*path[path.index(title) :], title])
            raise ValueError(
                f"reward: rewards must not need each other in a circle, found {circle}"
            )
        for name in reward.needs if title not in done else ():
            if name not in by_title:
                others = [other for other in by_title if other != title]
                close = difflib.get_close_matches(name, others, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"others: {_listed(others)}"
                raise ValueError(
                    f"reward.{title}.{field}: must name other rewards of this recipe, found "
                    f"{name!r}; {hint}"
                )
            if name == title:
                raise ValueError(
                    f"reward.{title}.{field}: must name other rewards, found the reward itself"
                )
            if reward.model == by_title[name].model == "mixture":
                raise ValueError(
                    f"reward.{title}.members: must not be mixtures themselves, found {name!r}; "
                    f"name its members instead ({_listed(by_title[name].members)})"
                )
            visit(by_title[name], (*path, title))
        done[title] = reward

    for reward in rewards:
        visit(reward, ())
    return list(done.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _short(source: str) -> str:
    if source.startswith(BASELINE):
        return source.removeprefix(BASELINE).replace("/", "-")
    if source.startswith("policy:"):
        return Path(source.removeprefix("policy:")).name or "policy"
    return _SHORT.get(source, source)
