"""The rollout engine that a recipe asks for."""

from __future__ import annotations

from demoalign.config import RolloutsConfig
from demoalign.rollouts.engine import Engine


def make_engine(config: RolloutsConfig) -> Engine:
    """The engine that the recipe names."""
    from demoalign.rollouts.transformers_engine import TransformersEngine

    return TransformersEngine(config)
