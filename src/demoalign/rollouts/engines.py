"""The rollout engine that a recipe asks for."""

from __future__ import annotations

from pathlib import Path

from demoalign.config import RolloutsConfig
from demoalign.rollouts.engine import Engine


def make_engine(config: RolloutsConfig, responses: Path | None = None) -> Engine:
    """The engine that the recipe names.

    Args:
        config: of the engine.
        responses: where an engine that asks a server keeps what it was answered, see
            `OpenAIEngine`; others do not use it.

    Raises:
        RolloutError: it needs a package that is not installed.
    """
    if config.engine == "vllm":
        from demoalign.rollouts.vllm_engine import VllmEngine

        return VllmEngine(config)
    if config.engine == "openai":
        from demoalign.rollouts.openai_engine import OpenAIEngine

        return OpenAIEngine(config, responses)
    from demoalign.rollouts.transformers_engine import TransformersEngine

    return TransformersEngine(config)
