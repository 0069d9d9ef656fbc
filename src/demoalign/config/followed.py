"""Which of a recipe's rewards a training maximises, and which one looks on."""

from __future__ import annotations

from demoalign.config.adversarial import AdversarialConfig
from demoalign.config.improve import TrainedConfig
from demoalign.config.irl import IrlConfig
from demoalign.config.optimise import FixedRewardConfig, RaftConfig, RoundsConfig
from demoalign.config.recipe import Recipe
from demoalign.config.reward import RewardConfig
from demoalign.errors import RecipeError

LEARNING = (AdversarialConfig, IrlConfig)
"""Methods that learn a reward of their own."""


def reward_of(recipe: Recipe, config: FixedRewardConfig | RaftConfig) -> RewardConfig:
    """The reward that a method is told to maximise: by default the one in closed form, if any.

    Raises:
        RecipeError: there is no reward of that name, or it has no rewards of tokens where the
            method needs them.
    """
    closed = [each for each in recipe.reward if each.model == "density_ratio"]
    if config.reward is None:
        found = (closed or recipe.reward)[0]
    else:
        found = _named(recipe, config.reward, "improve.reward")
    if isinstance(config, RoundsConfig) and config.level == "token" and found not in closed:
        raise RecipeError(
            f"improve.level: token needs a reward in closed form (model: density_ratio), found "
            f"{found.title}, which judges whole answers; set level: trajectory"
        )
    return found


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


def needed_rewards(recipe: Recipe, config: TrainedConfig) -> list[RewardConfig]:
    """The recipe's rewards that a method uses."""
    own = [] if isinstance(config, LEARNING) else [reward_of(recipe, config)]
    witness = witness_of(recipe, config)
    return own if witness is None else [*own, witness]


def _named(recipe: Recipe, title: str, key: str) -> RewardConfig:
    found = {each.title: each for each in recipe.reward}
    if title not in found:
        raise RecipeError(f"{key}: must be one of {', '.join(found)}, found {title!r}")
    return found[title]
