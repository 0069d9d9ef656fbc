"""The judge section: who is asked which of two answers is better, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from demoalign.config.chat import ChatConfig
from demoalign.config.section import PositiveInt


class JudgeConfig(ChatConfig):
    """A judge behind an OpenAI-compatible address; used by `demoalign judge` and `study critic`."""

    template: str | None = None
    """File of the question, with {conversation}, {answer_a}, {answer_b}; None: the paper's."""
    criterion: Annotated[str, Field(min_length=1)] = "helpful"
    """What {criterion} stands for: which response is more ...?"""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    max_tokens: PositiveInt | None = 256
    prompts: PositiveInt | None = None
    """Test prompts that are judged; None: all."""
    controls: Annotated[int, Field(ge=0)] = 10
    """Prompts on which each kind of control pair is judged."""
