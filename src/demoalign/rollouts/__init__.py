"""From a policy and prompts to rollouts."""

from demoalign.rollouts.engine import Engine, PromptSpec
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.transformers_engine import TransformersEngine

__all__ = ["Engine", "PromptSpec", "TransformersEngine", "make_engine"]
