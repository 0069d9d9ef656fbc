"""The rollout engine that a recipe asks for."""

from __future__ import annotations

from demoalign.config import RolloutsConfig
from demoalign.rollouts.engine import Engine


def make_engine(config: RolloutsConfig) -> Engine:
    """The engine that the recipe names.

    Raises:
        RolloutError: it needs a package that is not installed.
    """
    if config.engine == "vllm":
        from demoalign.rollouts.vllm_engine import VllmEngine

        return VllmEngine(config)
    from demoalign.rollouts.transformers_engine import TransformersEngine

    return TransformersEngine(config)
