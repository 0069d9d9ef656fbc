"""Which reward a method maximises, who looks on, and what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from demoalign.config import (
    AdversarialConfig,
    FixedRewardConfig,
    IrlConfig,
    RaftConfig,
    Recipe,
    RewardConfig,
    TrainedConfig,
)
from demoalign.errors import RecipeError
from demoalign.improve.held_out import Lookers
from demoalign.pipeline.goldens import main_golden
from demoalign.pipeline.models import Models
from demoalign.records import Prompt

Array = NDArray[np.float64]


def reward_of(recipe: Recipe, config: FixedRewardConfig | RaftConfig) -> RewardConfig:
    """The reward that a method is told to maximise: by default the one in closed form, if any.

    Raises:
        RecipeError: there is no reward of that name.
    """
    if config.reward is None:
        closed = [each for each in recipe.reward if each.model == "density_ratio"]
        return (closed or recipe.reward)[0]
    return _named(recipe, config.reward, "improve.reward")


def witness_of(recipe: Recipe, config: TrainedConfig) -> RewardConfig | None:
    """The reward that looks on.

    Raises:
        RecipeError: there is no reward of that name.
    """
    wanted = config.check.witness
    own = None if isinstance(config, LEARNING) else reward_of(recipe, config).title
    if wanted is None:
        return None
    if wanted != "auto":
        return _named(recipe, wanted, "improve.check.witness")
    others = [each for each in recipe.reward if each.title != own]
    return next((each for each in others if each.model == "density_ratio"), None)


LEARNING = (AdversarialConfig, IrlConfig)
"""Methods that learn a reward of their own."""


def needed_rewards(recipe: Recipe, config: TrainedConfig) -> list[RewardConfig]:
    """The recipe's rewards that a method uses."""
    own = [] if isinstance(config, LEARNING) else [reward_of(recipe, config)]
    witness = witness_of(recipe, config)
    return own if witness is None else [*own, witness]


def lookers_of(recipe: Recipe, config: TrainedConfig, models: Models) -> Lookers:
    """The witness and the golden reward."""
    witness = witness_of(recipe, config)
    view = None if witness is None else partial(_witness_view, models, witness.title)
    golden = partial(_golden_view, recipe) if recipe.evaluation.goldens else None
    return Lookers(view, "" if witness is None else witness.title, golden)


def _witness_view(
    models: Models,
    title: str,
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    finished: Sequence[bool],
) -> Array:
    return models.named(title).score(list(prompts), list(texts), list(finished))


def _golden_view(
    recipe: Recipe, prompts: Sequence[Prompt], texts: Sequence[str], _finished: Sequence[bool]
) -> Sequence[float | None]:
    return main_golden(recipe).score(list(prompts), list(texts))


def _named(recipe: Recipe, title: str, key: str) -> RewardConfig:
    found = {each.title: each for each in recipe.reward}
    if title not in found:
        raise RecipeError(f"{key}: must be one of {', '.join(found)}, found {title!r}")
    return found[title]
