"""The recipe: all sections together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from demoalign.config.baselines import (
    BaselineConfig,
    check_baseline_names,
    check_baseline_source,
)
from demoalign.config.collect import CollectConfig
from demoalign.config.evaluation import EvaluationConfig
from demoalign.config.improve import BestOfNConfig, ImproveConfig
from demoalign.config.reward import TAKEN, RewardConfig, in_order
from demoalign.config.rollouts import RolloutsConfig
from demoalign.config.section import (
    LIST,
    ONE,
    TRAINED,
    Name,
    PositiveInt,
    Section,
    SftConfig,
    Share,
    one_or_list,
)

LAB = "lab"
"""The embedded world, as a demonstrations source, a base model or a golden reward."""


class AdapterConfig(Section):
    """How weights are changed: LoRA on the shared backbone, or all of them (``none``)."""

    kind: Literal["lora", "none"] = "lora"
    r: PositiveInt = 32
    alpha: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[
        Annotated[str, Tag(ONE)] | Annotated[list[str], Tag(LIST)], Discriminator(one_or_list)
    ] = "all-linear"


class ModelConfig(Section):
    """The base model, which is the initial policy."""

    base: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    adapter: AdapterConfig = AdapterConfig()
    quantisation: Literal["none", "4bit", "8bit"] = "none"
    """Hold the frozen base in fewer bits (QLoRA, nf4 quantised doubly); needs bitsandbytes."""
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _check_quantisation(self) -> ModelConfig:
        if self.quantisation != "none" and self.adapter.kind != "lora":
            raise ValueError(
                "quantisation: a quantised base is frozen, which needs adapter.kind: lora, found "
                f"{self.adapter.kind}"
            )
        return self


class DemonstrationsConfig(Section):
    """Where the demonstrations come from and how they are read and split."""

    source: str
    format: Literal[
        "auto", "prompt-completion", "messages", "alpaca", "sharegpt", "hh-rlhf", "lab"
    ] = "auto"
    map: dict[str, str] = Field(default_factory=dict)
    split: str = "train"
    test_fraction: Share = 0.1
    test_source: str | None = None
    max_prompt_tokens: PositiveInt = 512
    limit: PositiveInt | None = None
    skip_invalid: bool = False
    dial: Annotated[float, Field(ge=0, le=1)] | None = None
    variant: Literal["standard", "known-habits", "unknown-quality"] | None = None
    """Of the embedded world: which habits of its demonstrator the dial turns up."""
    quality: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the embedded world: share of demonstrations that are not degraded to what the initial
    policy would say; 1 by default."""
    faults: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Of the embedded world: families of faults, such as kettle, that are trained on; the others'
    training demonstrations are left out after the split. All by default."""
    test_faults: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The same of the test demonstrations."""
    train_limit: PositiveInt | None = None
    """How many of the training demonstrations are used, the first ones; the test set stays."""


class Recipe(Section):
    """A whole run."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    output: str = "runs"
    model: ModelConfig
    demonstrations: DemonstrationsConfig
    sft: SftConfig = SftConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    reward: tuple[RewardConfig, ...] = (RewardConfig(),)
    improve: ImproveConfig = BestOfNConfig()
    baselines: tuple[BaselineConfig, ...] = ()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Who is told loss and learning rate while models train; nobody by default."""
    collect: CollectConfig | None = None

    @field_validator("reward", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        titles = [reward.title for reward in self.reward]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if not titles:
            raise ValueError("reward: needs at least one reward model, found none")
        if twice:
            raise ValueError(f"reward: names must differ, found {twice} twice; set name:")
        if taken := sorted(TAKEN.intersection(titles)):
            raise ValueError(f"reward: name must not be that of another selector, found {taken}")
        if any(r.preferences == "golden" for r in self.reward) and not self.evaluation.golden:
            raise ValueError("reward.preferences: golden needs evaluation.golden, found none")
        in_order(self.reward)
        whole = [reward.title for reward in self.reward if reward.model == "full"]
        if whole and self.model.quantisation != "none":
            raise ValueError(
                f"reward.{whole[0]}.model: full trains all weights, which model.quantisation: "
                f"{self.model.quantisation} freezes; set model: adapter"
            )
        if self.improve.method == "extrapolate" and self.rollouts.engine != "transformers":
            raise ValueError(
                "improve.method: extrapolate combines the logits of two policies at every token, "
                f"which needs rollouts.engine: transformers, found {self.rollouts.engine}"
            )
        if self.improve.method in TRAINED and self.rollouts.engine != "transformers":
            raise ValueError(
                f"improve.method: {self.improve.method} trains and samples by turns, which needs "
                f"rollouts.engine: transformers, found {self.rollouts.engine}"
            )
        return self

    @model_validator(mode="after")
    def _check_baselines(self) -> Recipe:
        check_baseline_names(self.baselines)
        if self.baselines and self.rollouts.engine == "openai":
            raise ValueError(
                "baselines: are trained and sampled here, which needs rollouts.engine: "
                "transformers or vllm, found openai"
            )
        if any(b.preferences == "golden" for b in self.baselines) and not self.evaluation.golden:
            raise ValueError("baselines.preferences: golden needs evaluation.golden, found none")
        for reward in self.reward:
            for source in reward.baselines:
                check_baseline_source(f"reward.{reward.title}", source, self.baselines)
        for source in () if self.evaluation.lm_eval is None else self.evaluation.lm_eval.baselines:
            check_baseline_source("evaluation.lm_eval.policies", source, self.baselines)
        return self

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self.output) / self.name
