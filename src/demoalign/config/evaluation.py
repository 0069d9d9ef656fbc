"""The evaluation section: what is measured on the test prompts."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from demoalign.config.judge import JudgeConfig
from demoalign.config.lm_eval import LmEvalConfig
from demoalign.config.section import LIST, ONE, Name, PositiveInt, Section, one_or_list

TEXT, OTHER = "<text>", "<other>"
"""How pydantic marks whether a value was given as text; no part of a key."""

MOST_COMPARED = 16
"""The largest number of candidates at which selectors enter the win matrix by default."""


class GoldenConfig(Section):
    """A golden reward with a name: ``lab``, ``module:function``, a reward model's folder or id."""

    name: Name | None = None
    source: Annotated[str, Field(min_length=1)]
    chat: bool = False
    """Give a reward model the whole conversation in its own chat template: HH-RLHF transcripts
    become messages. By default it is given prompt and completion as they stand."""

    @property
    def title(self) -> str:
        """Its name in results; without one the function's, or the last part of the folder."""
        if self.name is not None:
            return self.name
        last = re.split(r"[:/\\]", self.source.rstrip("/\\"))[-1]
        return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]", "", last)[:100] or "other"


def text_or_other(value: object) -> str:
    """Which of two kinds a value may be: text, or anything else."""
    return TEXT if isinstance(value, str) else OTHER


Golden = Annotated[
    Annotated[Annotated[str, Field(min_length=1)], Tag(TEXT)] | Annotated[GoldenConfig, Tag(OTHER)],
    Discriminator(text_or_other),
]


class EvaluationConfig(Section):
    """What is measured on the test prompts.

    ``golden`` is ``lab``, ``module:function`` or the folder or id of a reward model; or a list of
    such, each with a name if wanted: ``{name: NAME, source: SPEC}`` (and ``chat: true`` for reward
    models that read a chat template). The first is the main one.
    ``n`` is the largest number of samples per prompt (then all powers of two up to it), or a
    list of the numbers wanted.
    ``length`` is the number of tokens after which completions are cut for the length-controlled
    evaluation: ``demonstrations`` for the mean of the demonstrations on the test prompts, null for
    none. Golden rewards are asked again about whatever was cut.
    ``win_n`` is the n of the selectors in the win matrix; by default the largest of ``sizes`` up
    to 16 that leaves one candidate to compare with.
    ``preferences`` are files of answers of which it is known which are better: pairs, RewardBench,
    RewardBench 2; ``skip_invalid`` goes on without rows of theirs that cannot be used, as that of
    the demonstrations does.
    """

    golden: (
        Annotated[
            Annotated[Golden, Tag(ONE)] | Annotated[list[Golden], Tag(LIST)],
            Discriminator(one_or_list),
        ]
        | None
    ) = None
    n: Annotated[
        Annotated[PositiveInt, Tag(ONE)] | Annotated[list[PositiveInt], Tag(LIST)],
        Discriminator(one_or_list),
    ] = 16
    prompts: PositiveInt | None = None
    length: (
        Annotated[
            Annotated[Literal["demonstrations"], Tag(TEXT)] | Annotated[PositiveInt, Tag(OTHER)],
            Discriminator(text_or_other),
        ]
        | None
    ) = "demonstrations"
    win_n: Annotated[int, Field(ge=2)] | None = None
    initial_samples: PositiveInt = 4
    truncated_samples: Annotated[int, Field(ge=0)] = 4
    """Answers at temperature 0.7, top-p 0.9 and min-p 0.1 each, to compare with; 0 for none."""
    browse: Annotated[int, Field(ge=0)] = 20
    judge: JudgeConfig | None = None
    """Whom `demoalign judge` asks; a run itself asks no judge."""
    preferences: tuple[str, ...] = ()
    skip_invalid: bool = False
    lm_eval: LmEvalConfig | None = None

    @field_validator("preferences", mode="before")
    @classmethod
    def _one_file_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        titles = [golden.title for golden in self.goldens]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(
                f"golden: names must differ, found {twice} twice; set name: and source:"
            )
        if isinstance(self.golden, list) and not self.golden:
            raise ValueError("golden: needs at least one golden reward, or null for none; found []")
        if self.win_n is not None and self.win_n > max(self.sizes):
            raise ValueError(
                f"win_n: must be at most n, which is {max(self.sizes)}, found {self.win_n}"
            )
        return self

    @property
    def goldens(self) -> tuple[GoldenConfig, ...]:
        """Every golden reward, the main one first; none if there is none."""
        if self.golden is None:
            return ()
        given = self.golden if isinstance(self.golden, list) else [self.golden]
        return tuple(GoldenConfig(source=each) if isinstance(each, str) else each for each in given)

    @property
    def main_golden(self) -> GoldenConfig | None:
        """The golden reward whose metrics have plain names, and which labels pairs."""
        return next(iter(self.goldens), None)

    @property
    def sizes(self) -> list[int]:
        """All N of the best-of-N curves, ascending, 1 included."""
        if isinstance(self.n, list):
            return sorted({1, *self.n})
        powers = [1 << k for k in range(self.n.bit_length())]
        return sorted({*powers, self.n})

    @property
    def compared_n(self) -> int:
        """The n of the selectors in the win matrix; 1 if there are too few candidates for any."""
        most = max(self.sizes)
        fitting = [n for n in self.sizes if n <= MOST_COMPARED and n < most]
        return self.win_n or max(fitting, default=1)
