"""The lm_eval section: tasks of the language model evaluation harness, and whom they are put to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from demoalign.config.section import (
    BASELINE,
    BASELINE_PATTERN,
    DISTILLED,
    TRAINED,
    Name,
    PositiveInt,
    Section,
)

LmPolicy = Annotated[
    str,
    Field(pattern=rf"^(initial|sft|{DISTILLED}|{'|'.join(TRAINED)}|policy:.+|{BASELINE_PATTERN})$"),
]


class LmEvalConfig(Section):
    """What the harness asks; needs ``pip install 'demoalign[lm-eval]'``.

    ``include`` is a folder of tasks of one's own, in the harness's YAML. ``shots`` and ``limit``
    are examples before a question and questions a task; by default as the task says, and all.
    ``chat`` puts questions into the chat template; by default as the demonstrations are asked.
    """

    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]
    policies: Annotated[tuple[LmPolicy, ...], Field(min_length=1)] = ("sft",)
    include: str | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: PositiveInt | None = None
    chat: bool | None = None
    batch_size: PositiveInt = 16

    @property
    def baselines(self) -> tuple[str, ...]:
        """Those of the policies that are baselines, NAME or NAME/iteration-K."""
        given = (each for each in self.policies if each.startswith(BASELINE))
        return tuple(each.removeprefix(BASELINE) for each in given)

    @field_validator("tasks", "policies", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
