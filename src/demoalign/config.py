"""The recipe: one YAML file that says everything a run does.

Unknown keys and values outside their rule are errors that name the key, the rule and the
value found, with the nearest known key. Defaults are those of the paper (appendix E.6).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from demoalign.errors import RecipeError

Source = Annotated[
    str, Field(pattern=r"^(demonstrations|initial|sft|preferred|dispreferred|policy:.+)$")
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]

LAB = "lab"
"""The embedded world, as a demonstrations source, a base model or a golden reward."""

TAKEN = frozenset({"none", "greedy", "golden", "length", "mean-logprob", "sequence-logprob"})
"""Selectors that stand beside the reward models in every result; no reward model is so named."""

_ONE, _LIST = "<one>", "<list>"
"""How pydantic marks which of `_one_or_list` it tried; no part of a key."""

_SHORT = {"demonstrations": "demo", "initial": "init", "sft": "sft"}


def _one_or_list(value: object) -> str:
    return _LIST if isinstance(value, list | tuple) else _ONE


def _method(value: object) -> str:
    """Which way of improving a mapping (or a section) asks for."""
    if isinstance(value, Mapping):
        return str(value.get("method", "best_of_n"))
    return str(getattr(value, "method", "best_of_n"))


class Section(BaseModel):
    """Base of every recipe section: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AdapterConfig(Section):
    """How weights are changed: LoRA on the shared backbone, or all of them (``none``)."""

    kind: Literal["lora", "none"] = "lora"
    r: PositiveInt = 32
    alpha: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[
        Annotated[str, Tag(_ONE)] | Annotated[list[str], Tag(_LIST)], Discriminator(_one_or_list)
    ] = "all-linear"


class ModelConfig(Section):
    """The base model, which is the initial policy."""

    base: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    adapter: AdapterConfig = AdapterConfig()
    trust_remote_code: bool = False


class DemonstrationsConfig(Section):
    """Where the demonstrations come from and how they are read and split."""

    source: str
    format: Literal[
        "auto", "prompt-completion", "messages", "alpaca", "sharegpt", "hh-rlhf", "lab"
    ] = "auto"
    map: dict[str, str] = {}
    split: str = "train"
    test_fraction: Share = 0.1
    test_source: str | None = None
    max_prompt_tokens: PositiveInt = 512
    limit: PositiveInt | None = None
    skip_invalid: bool = False
    dial: Annotated[float, Field(ge=0, le=1)] | None = None
    variant: Literal["standard", "known-habits", "unknown-quality"] | None = None
    """Of the embedded world: which habits of its demonstrator the dial turns up."""


class OptimiserConfig(Section):
    """What every training stage shares; the paper's appendix E.6 by default."""

    epochs: Annotated[float, Field(gt=0)] = 2
    batch_size: PositiveInt = 4
    accumulation: PositiveInt = 2
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_length: PositiveInt = 1024
    gradient_checkpointing: bool = False


class SftConfig(OptimiserConfig):
    """Supervised fine-tuning; ``occupancy`` weights token k of T by (T-k)/T (Eq. 29)."""

    token_weighting: Literal["none", "occupancy"] = "none"
    checkpoints: Annotated[int, Field(ge=0)] = 1


class EndpointConfig(Section):
    """An OpenAI-compatible server that serves the policies; the key comes from OPENAI_API_KEY."""

    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    """Address of the API, such as ``http://localhost:8000/v1``."""
    models: dict[str, str] = {}
    """Policy name -> the server's model name; a policy that is not named goes by its own name."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests that are under way at the same time."""
    retries: Annotated[int, Field(ge=0, le=100)] = 8
    """How often one request is made again, after ever longer pauses, before the run gives up."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that one request may take."""
    samples_per_request: Annotated[int, Field(ge=1, le=128)] = 8
    logprobs: bool = True
    """Whether to ask for log-probabilities where they are the policy's; some servers refuse."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "base_url must have no user, password, query or fragment: it is stored with the "
                "run (the value is not repeated here). A key belongs into OPENAI_API_KEY"
            )
        if not parts.hostname or parts.port == 0:  # .port raises ValueError if out of range
            raise ValueError(f"base_url must have a host, found {value!r}")
        return value


class VllmConfig(Section):
    """vLLM in this process."""

    memory_fraction: Share = 0.5
    max_length: PositiveInt | None = None


class RolloutsConfig(Section):
    """How completions are sampled."""

    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    samples_per_prompt: PositiveInt = 1
    train_prompts: PositiveInt | None = None
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: PositiveInt = 128
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: PositiveInt | None = None
    min_p: Share | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    batch_size: PositiveInt = 256
    """Completions that are sampled at the same time; bounds the memory of a sampling step."""
    precision: Literal["same", "bfloat16", "auto"] = "same"
    """``same``: the policy's own weights; else a bfloat16 copy, ``auto`` only if it is faster."""
    endpoint: EndpointConfig | None = None
    vllm: VllmConfig = VllmConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> RolloutsConfig:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens must be at most max_new_tokens ({self.max_new_tokens}), "
                f"found {self.min_new_tokens}"
            )
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError(
                "endpoint is needed by engine: openai and by no other, found engine: "
                f"{self.engine} {'with' if self.endpoint else 'without'} endpoint"
            )
        return self


class EnsembleConfig(Section):
    """Several reward models that differ by seed, seen as one."""

    size: PositiveInt = 1
    aggregate: Literal["mean", "min", "mean_minus_std"] = "mean"
    k: Annotated[float, Field(ge=0)] = 1.0


class RatioConfig(Section):
    """The reward in closed form: the log-ratio of two policies, token by token.

    A token counts only inside the negatives' support, where log pi > ``support`` (nats) and
    pi >= ``min_p`` times that of the likeliest token; None lifts a limit. The ``memory`` tokens
    behind one outside do not count either: the negatives' policy does not know its way there.
    ``conditional`` compares the two policies given that they stay inside, so that ordinary tokens
    do not lose by the share that the positives give to what lies outside. What counts is put into ``form`` and clipped to [-clip, clip], then summed or, ``per: mean``,
    divided by the length.
    """

    form: Literal["log_ratio", "jensen_shannon"] = "log_ratio"
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    support: Annotated[float, Field(lt=0)] | None = -6.0
    min_p: Share | None = None
    memory: Annotated[int, Field(ge=0)] = 8
    conditional: bool = False
    per: Literal["sum", "mean"] = "sum"


def check_policies(what: str, *sources: str) -> None:
    """Refuse sources whose likelihoods nobody knows.

    Raises:
        ValueError: one of them is no policy, or both are the same.
    """
    others = [each for each in sources if each in ("demonstrations", "preferred", "dispreferred")]
    if others:
        raise ValueError(
            f"{what} compares two policies (initial, sft, policy:FOLDER), whose likelihoods are "
            f"known; found {others[0]}"
        )
    if len(set(sources)) < len(sources):
        raise ValueError(
            f"{what} needs two different policies, found {sources[0]!r} as positives and negatives"
        )


class RewardConfig(OptimiserConfig):
    """One reward model: which completions are positives, which negatives, and how to learn.

    A ``mixture`` is made of other entries (``members``) and is told apart from them by its sources
    on held-out prompts only. An entry that ``distils`` another learns that one's scores of its
    sources' completions, by ``squared_error``.
    """

    name: Name | None = None
    positives: Source = "sft"
    negatives: Source = "initial"
    loss: Literal["bce", "bradley_terry", "bradley_terry_variance", "squared_error"] = "bce"
    model: Literal["adapter", "head", "full", "density_ratio", "mixture"] = "adapter"
    members: tuple[Name, ...] = ()
    distils: Name | None = None
    ratio: RatioConfig | None = None
    holdout_fraction: Share = 0.1
    preferences: str | None = None
    ensemble: EnsembleConfig = EnsembleConfig()

    @property
    def title(self) -> str:
        """The name given, else the sources' (negatives first, as in Table 1)."""
        if self.name:
            return self.name
        if self.model in UNTRAINED:
            return self.model.replace("_", "-")
        if self.distils:
            return f"{self.distils}-{self.model}"
        if {self.positives, self.negatives} == {"preferred", "dispreferred"}:
            return "preference"
        return f"{_short(self.negatives)}-{_short(self.positives)}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the rewards that this one is made from."""
        return (self.distils,) if self.distils else self.members

    @model_validator(mode="before")
    @classmethod
    def _loss_of_students(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("distils") is not None:
            return {"loss": "squared_error", **value}
        return value

    @field_validator("ensemble", mode="before")
    @classmethod
    def _ensemble_size_alone(cls, value: object) -> object:
        return {"size": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _check_sources(self) -> RewardConfig:
        if self.positives == self.negatives:
            raise ValueError(
                "positives and negatives must differ: a discriminator between "
                f"{self.positives!r} and itself has nothing to learn"
            )
        pair = {self.positives, self.negatives}
        if pair & {"preferred", "dispreferred"}:
            if self.positives != "preferred" or self.negatives != "dispreferred":
                raise ValueError(
                    "preferred and dispreferred belong together (positives: preferred, "
                    f"negatives: dispreferred); found positives: {self.positives}, "
                    f"negatives: {self.negatives}"
                )
            if not self.preferences:
                raise ValueError(
                    "preferences: give the file with chosen and rejected answers, or 'golden' "
                    "to have the golden reward label pairs of SFT samples with noise"
                )
        elif self.preferences:
            raise ValueError(
                "preferences: used only with positives: preferred, negatives: dispreferred; "
                f"found positives: {self.positives}, negatives: {self.negatives}"
            )
        self._check_ratio()
        self._check_mixture()
        self._check_student()
        return self

    def _check_ratio(self) -> None:
        if self.model != "density_ratio":
            if self.ratio is not None:
                raise ValueError(f"ratio: belongs to model: density_ratio, found {self.model}")
            return
        check_policies("model: density_ratio", self.positives, self.negatives)
        self._check_is_one("a density_ratio has no training that could differ by seed")

    def _check_mixture(self) -> None:
        members = list(self.members)
        if self.model != "mixture":
            if members:
                raise ValueError(f"members: belong to model: mixture, found model: {self.model}")
            return
        if len(members) < 2:
            raise ValueError(f"members: a mixture needs at least two rewards, found {members}")
        if twice := sorted({name for name in members if members.count(name) > 1}):
            raise ValueError(f"members: must be named once each, found {twice[0]!r} twice")
        self._check_is_one("a mixture has its members, of which each may be an ensemble")

    def _check_student(self) -> None:
        if self.distils is None:
            if self.loss == "squared_error":
                raise ValueError("loss: squared_error needs a reward to learn from; set distils")
            return
        if self.model in UNTRAINED:
            raise ValueError(
                "distils: a student is model: adapter, head or full, which can be trained, found "
                f"{self.model}"
            )
        if self.loss != "squared_error":
            raise ValueError(f"loss: a student learns by squared_error, found {self.loss}")
        if self.model == "head":
            self._check_is_one("a head that distils is fitted in closed form, whatever the seed")

    def _check_is_one(self, reason: str) -> None:
        if self.ensemble.size > 1:
            raise ValueError(f"ensemble: {reason}, found size {self.ensemble.size}")


UNTRAINED = frozenset({"density_ratio", "mixture"})
"""Kinds of reward model without weights of their own."""


def in_order(rewards: Sequence[RewardConfig]) -> list[RewardConfig]:
    """Rewards such that each comes after those that it needs, else as they were given.

    Raises:
        ValueError: one needs a reward that is not there, or itself by way of others.
    """
    by_title = {reward.title: reward for reward in rewards}
    done: dict[str, RewardConfig] = {}

    def visit(reward: RewardConfig, path: tuple[str, ...]) -> None:
        title, field = reward.title, "distils" if reward.distils else "members"
        if title in path:
            circle = " -> ".join([*path[path.index(title) :], title])
            raise ValueError(
                f"reward: rewards must not need each other in a circle, found {circle}"
            )
        for name in reward.needs if title not in done else ():
            if name not in by_title:
                others = [other for other in by_title if other != title]
                close = difflib.get_close_matches(name, others, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"others: {_listed(others)}"
                raise ValueError(
                    f"reward.{title}.{field}: must name other rewards of this recipe, found "
                    f"{name!r}; {hint}"
                )
            if name == title:
                raise ValueError(
                    f"reward.{title}.{field}: must name other rewards, found the reward itself"
                )
            if reward.model == by_title[name].model == "mixture":
                raise ValueError(
                    f"reward.{title}.members: must not be mixtures themselves, found {name!r}; "
                    f"name its members instead ({_listed(by_title[name].members)})"
                )
            visit(by_title[name], (*path, title))
        done[title] = reward

    for reward in rewards:
        visit(reward, ())
    return list(done.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


class RejectionConfig(Section):
    """Speculative rejection: stop the least promising completions while they are written.

    At each checkpoint (new tokens; a quarter and a half of max_new_tokens by default) the partial
    completions of a cohort are scored, and gentle, moderate or aggressive keeps the best 75, 50 or
    25 % of those that still go on.
    """

    level: Literal["off", "gentle", "moderate", "aggressive"] = "off"
    checkpoints: tuple[PositiveInt, ...] | None = None
    cohort: PositiveInt = 64

    @field_validator("checkpoints")
    @classmethod
    def _ascend(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or list(value) != sorted(set(value))):
            raise ValueError(f"must ascend and name at least one token count, found {list(value)}")
        return value


class BestOfNConfig(Section):
    """Sample from the SFT policy and choose by the reward; needs no further training."""

    method: Literal["best_of_n"] = "best_of_n"
    rejection: RejectionConfig = RejectionConfig()

    @field_validator("rejection", mode="before")
    @classmethod
    def _level_alone(cls, value: object) -> object:
        if value is False:  # YAML reads a bare off as false
            value = "off"
        return {"level": value} if isinstance(value, str) else value


class DistilConfig(SftConfig):
    """Fine-tuning a copy of the SFT policy on samples of a better one."""

    samples_per_prompt: PositiveInt = 1
    train_prompts: PositiveInt | None = None


class ExtrapolateConfig(Section):
    """Decode with the logits of two policies, going on from the negatives' past the positives'.

    At every token the positives' distribution is tilted by exp(``strength`` times the token's
    reward in closed form) and cut to tokens at least ``plausibility`` times as likely as the
    positives' likeliest one; None keeps all.
    """

    method: Literal["extrapolate"] = "extrapolate"
    positives: Source = "sft"
    negatives: Source = "initial"
    strength: Annotated[float, Field(ge=0)] = 2.0
    ratio: RatioConfig = RatioConfig()
    plausibility: Share | None = 0.1
    samples: PositiveInt = 4
    """Answers to each test prompt that are measured."""
    distil: DistilConfig | None = None
    """Train one ordinary policy on what is said on the training prompts; None for not."""

    @model_validator(mode="after")
    def _check_policies(self) -> ExtrapolateConfig:
        check_policies("method: extrapolate", self.positives, self.negatives)
        if self.ratio.per == "mean":
            raise ValueError("ratio.per: decoding tilts every token by itself, found 'mean'")
        return self


ImproveConfig = Annotated[
    Annotated[BestOfNConfig, Tag("best_of_n")] | Annotated[ExtrapolateConfig, Tag("extrapolate")],
    Discriminator(_method),
]
"""What is done with the reward, by ``method``."""

METHODS: Mapping[str, type[Section]] = {
    "best_of_n": BestOfNConfig,
    "extrapolate": ExtrapolateConfig,
}


class EvaluationConfig(Section):
    """What is measured on the test prompts.

    ``golden`` is ``lab``, ``module:function`` or the folder or id of a reward model.
    ``n`` is the largest number of samples per prompt (then all powers of two up to it), or a
    list of the numbers wanted.
    """

    golden: str | None = None
    n: Annotated[
        Annotated[PositiveInt, Tag(_ONE)] | Annotated[list[PositiveInt], Tag(_LIST)],
        Discriminator(_one_or_list),
    ] = 16
    prompts: PositiveInt | None = None
    initial_samples: PositiveInt = 4
    truncated_samples: Annotated[int, Field(ge=0)] = 4
    """Answers at temperature 0.7, top-p 0.9 and min-p 0.1 each, to compare with; 0 for none."""
    browse: Annotated[int, Field(ge=0)] = 20

    @property
    def sizes(self) -> list[int]:
        """All N of the best-of-N curves, ascending, 1 included."""
        if isinstance(self.n, list):
            return sorted({1, *self.n})
        powers = [1 << k for k in range(self.n.bit_length())]
        return sorted({*powers, self.n})


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
    evaluation: EvaluationConfig = EvaluationConfig()

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
        return self

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self.output) / self.name


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, with ``key.sub=value`` overrides (values are YAML).

    Raises:
        RecipeError: the file is missing, is not YAML, or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"recipe {path}: cannot be read ({error}). `demoalign init --output {path}` writes one."
        ) from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"recipe {path}: must be a mapping of keys, found {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, str(path))


def parse_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as plain objects.

    Raises:
        RecipeError: with one line for every rule that is broken.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise RecipeError(f"{where}: {len(lines)} problem(s)\n  " + "\n  ".join(lines)) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; reads back to the same recipe."""
    plain = recipe.model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False)


def _short(source: str) -> str:
    if source.startswith("policy:"):
        return Path(source.removeprefix("policy:")).name or "policy"
    return _SHORT.get(source, source)


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {override!r}: must be key=value, such as sft.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    *parents, last = key.strip().split(".")
    targets: list[Any] = [raw]
    for parent in parents:
        targets = [
            child
            for target in targets
            for child in _children(target.setdefault(parent, {}), key, parent)
        ]
    for target in targets:
        target[last] = value


def _children(value: object, key: str, parent: str) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [value]
    children = [child for child in found if isinstance(child, dict)]
    if len(children) < len(found):
        raise RecipeError(f"--set {key}: {parent!r} holds {value!r}, which has no keys to set")
    return children


def _explain(item: Mapping[str, Any]) -> str:
    parts = [str(part) for part in _named(item["loc"])]
    place = ".".join(parts) or "recipe"
    if item["type"] == "union_tag_invalid":
        found = item["ctx"]["tag"]
        close = difflib.get_close_matches(found, METHODS, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{place}.method: must be one of {', '.join(METHODS)}, found {found!r}{hint}"
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest(item['loc'])}"
    if item["type"] == "missing":
        return f"{place}: required, found nothing"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if item["type"] == "value_error" else f"; found {item['input']!r}"
    return f"{place}: {message}{found}"


def _named(location: Sequence[str | int]) -> list[str | int]:
    """Where a value stands in the recipe: pydantic's place without marks of what it tried."""
    return [
        part
        for number, part in enumerate(location)
        if part not in {_ONE, _LIST} and not (number == 1 and location[0] == "improve")
    ]


def _nearest(location: tuple[str | int, ...]) -> str:
    section: type[BaseModel] | None = Recipe
    if location[0] == "improve":  # then comes the method
        section, location = METHODS[str(location[1])], location[2:]
    for part in location[:-1]:
        if isinstance(part, int) or section is None:
            continue
        section = _section_of(section, part)
    if section is None:
        return ""
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(known)}"


def _section_of(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    if section is Recipe and key == "reward":
        return RewardConfig
    field = section.model_fields.get(key)
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
