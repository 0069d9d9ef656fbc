"""What a training maximised and who looked on, as the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demoalign.config import (
    AdversarialConfig,
    IrlConfig,
    RaftConfig,
    Recipe,
    RoundsConfig,
    parse_recipe,
    reward_of,
    witness_of,
)
from demoalign.errors import RecipeError
from demoalign.report.stored import Json

DEVIATIONS = "deviations of the SFT policy's samples"


@dataclass(frozen=True, slots=True)
class Maximised:
    """Of a training; all that cannot be read from the recipe is left open.

    Attributes:
        planned: rounds or iterations, None if unknown.
        reward: its name; empty if unknown, or if the method learns its own.
        unit: of the reward.
        witness: name of the reward that looked on; empty if nobody did.
        learns: whether the reward changes while the policy learns.
    """

    planned: int | None = None
    reward: str = ""
    unit: str = "as it was maximised"
    witness: str = ""
    learns: bool = False


def what_is_maximised(recipe: Mapping[str, Json]) -> Maximised:
    """Of a stored recipe, which may be damaged or of another version."""
    try:
        return _of(parse_recipe(recipe))
    except RecipeError:
        return Maximised()


def _of(recipe: Recipe) -> Maximised:
    config = recipe.improve
    if not isinstance(config, RoundsConfig | RaftConfig | IrlConfig):
        return Maximised()
    found = witness_of(recipe, config)
    witness = "" if found is None else found.title
    if isinstance(config, IrlConfig):
        return Maximised(config.iterations, "", "", witness, learns=True)
    if isinstance(config, AdversarialConfig):
        return Maximised(config.rounds, "", "logit, on average", witness, learns=True)
    is_scaled = not isinstance(config, RoundsConfig) or config.standardise
    unit = DEVIATIONS if is_scaled else "own scale"
    return Maximised(config.rounds, reward_of(recipe, config).title, unit, witness)
