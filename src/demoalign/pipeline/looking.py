"""Who looks on while a policy is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from demoalign.config import Recipe, TrainedConfig, witness_of
from demoalign.improve.held_out import Lookers
from demoalign.pipeline.goldens import main_golden
from demoalign.pipeline.models import Models
from demoalign.records import Prompt

Array = NDArray[np.float64]


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
