"""From a policy and prompts to rollouts."""

from demoalign.rollouts.engine import Engine, PromptSpec, TransformersEngine, make_engine

__all__ = ["Engine", "PromptSpec", "TransformersEngine", "make_engine"]
