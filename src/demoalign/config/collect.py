"""The collect section: whose answers to which prompts become demonstrations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from demoalign.config.chat import ChatConfig
from demoalign.config.section import PositiveInt, Section

PAPER_TEMPLATE, NO_TEMPLATE = "paper", "none"


class CollectConfig(Section):
    """Collecting demonstrations; used by `demoalign collect`, and by no stage of a run."""

    prompts: Annotated[str, Field(min_length=1)]
    """A file, a folder or a hub id; anything with a prompt in it."""
    output: Annotated[str, Field(pattern=r"\.jsonl$")]
    split: str = "train"
    limit: PositiveInt | None = None
    """Prompts that are answered, the first ones; None: all."""
    skip_invalid: bool = False
    server: ChatConfig | None = None
    """The demonstrator behind an OpenAI-compatible address; its key is OPENAI_API_KEY's."""
    policy: str | None = None
    """The demonstrator as a model's or adapter's folder, sampled here by the rollouts section."""
    template: Annotated[str, Field(min_length=1)] | None = None
    """``paper``, ``none`` (the prompt as it stands), or a file with {prompt}; None: the paper's
    for a server, none for a policy."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """What all replies for this output may cost, in the currency of ``server.price``."""
    min_characters: Annotated[int, Field(ge=1)] = 1
    max_characters: PositiveInt | None = None
    max_prompt_characters: PositiveInt | None = None
    keep_cut: bool = False
    """Keep answers that were cut at the limit of tokens: they do not teach where to end."""
    refusals: Literal["keep", "reject"] = "keep"
    """Answers that decline in words; of a harmless demonstrator they are good demonstrations."""

    @model_validator(mode="after")
    def _has_one_demonstrator(self) -> CollectConfig:
        if (self.server is None) == (self.policy is None):
            what = "neither" if self.server is None else "both"
            raise ValueError(
                "one of server (base_url and model) and policy (a folder) must be set, found "
                f"{what}"
            )
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters must be at least min_characters ({self.min_characters}), "
                f"found {self.max_characters}"
            )
        if self.max_cost is not None and (
            self.server is None or self.server.price is None or self.server.max_tokens is None
        ):
            raise ValueError(
                "max_cost needs server.price and server.max_tokens: without them nobody knows "
                "beforehand what a request may cost"
            )
        return self
