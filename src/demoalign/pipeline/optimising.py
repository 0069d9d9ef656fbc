"""The stage that trains the policy against a reward of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoalign.config import RaftConfig, Recipe, RewardConfig, TrainedConfig
from demoalign.errors import RecipeError
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.held_out import Asking, HeldOut, Lookers
from demoalign.improve.optimise import Training, optimise
from demoalign.improve.raft import train_raft
from demoalign.pipeline.data import distinct_prompts, read_data
from demoalign.pipeline.goldens import main_golden
from demoalign.pipeline.models import Models
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.sources import WHOLE
from demoalign.pipeline.training import save_weights, store_policy
from demoalign.records import Prompt
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine

Array = NDArray[np.float64]

LEARNER = "learner"
"""The adapter that is trained."""

STARTS = 4
"""Answers of the SFT policy to each held-out prompt, by which rewards are standardised."""


def optimise_stage(
    recipe: Recipe, config: TrainedConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train a copy of the SFT policy; store the best policy as a model folder, and the last."""
    models.release()
    student, reference = models.student(LEARNER), models.sft()
    engine = make_engine(recipe.rollouts.model_copy(update={**WHOLE, "min_new_tokens": 0}))
    asking = Asking(student, reference, engine)
    train, _ = read_data(run / "demonstrations")
    specs = specs_of(distinct_prompts(train, None))
    check = config.check
    held_out = HeldOut(
        specs[: check.prompts], check, recipe.seed, lookers_of(recipe, config, models)
    )
    left = specs[check.prompts :]
    reward = _reward(recipe, config, models, asking, held_out.specs)

    weights = student.backbone, student.adapter
    store_last = partial(save_weights, *weights, folder / "last")
    if isinstance(config, RaftConfig):
        left = left[: config.train_prompts]
        found = train_raft(asking, reward, left, held_out, config, recipe.seed, folder, store_last)
    else:
        training = Training(asking, left, held_out, config, recipe.seed)
        found = optimise(training, reward, folder, store_last)
    store_policy(*weights, found, folder)
    models.release()


def reward_of(recipe: Recipe, config: TrainedConfig) -> RewardConfig:
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
    wanted, own = config.check.witness, reward_of(recipe, config).title
    if wanted is None:
        return None
    if wanted != "auto":
        return _named(recipe, wanted, "improve.check.witness")
    others = [each for each in recipe.reward if each.title != own]
    return next((each for each in others if each.model == "density_ratio"), None)


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


def _reward(
    recipe: Recipe,
    config: TrainedConfig,
    models: Models,
    asking: Asking,
    held_out: Sequence[PromptSpec],
) -> FixedReward:
    """The recipe's reward in the units that the method wants."""
    entry = reward_of(recipe, config)
    is_of_reference = entry.model == "density_ratio" and entry.positives == "sft"
    found = FixedReward(
        models.named(entry.title),
        is_of_reference=is_of_reference,
        unfinished=config.unfinished,
    )
    if not isinstance(config, RaftConfig):
        by_token = config.level == "token"
        found = dataclasses.replace(found, by_token=by_token, clip=config.reward_clip)
        if not config.standardise:
            return found
    begun = dataclasses.replace(asking, policy=asking.reference)
    return found.measured(begun.say(held_out, STARTS, recipe.seed))


def _named(recipe: Recipe, title: str, key: str) -> RewardConfig:
    found = {each.title: each for each in recipe.reward}
    if title not in found:
        raise RecipeError(f"{key}: must be one of {', '.join(found)}, found {title!r}")
    return found[title]
