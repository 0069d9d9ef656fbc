"""The quickstart's recipe, small enough for a study in a test."""

from __future__ import annotations

from pathlib import Path

import demoalign
from demoalign.config import Recipe, load_recipe
from tests.pipeline.test_quickstart import MINIATURE


def miniature() -> Recipe:
    shipped = Path(demoalign.__file__).parent / "recipes" / "quickstart.yaml"
    smaller = {
        **MINIATURE,
        "demonstrations.limit": 40,
        "rollouts.train_prompts": 16,
        "sft.batch_size": 8,  # the first step of a warm-up changes nothing
    }
    return load_recipe(shipped, [f"{key}={value}" for key, value in smaller.items()])
