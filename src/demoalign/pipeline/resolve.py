"""From what a recipe names to what is there: folders, digests, the embedded world's parts."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.config import LAB, DemonstrationsConfig, GoldenConfig, ModelConfig, Recipe
from demoalign.demonstrations import Demonstrations, read_demonstrations, read_preferences
from demoalign.errors import ModelError, RecipeError
from demoalign.evaluation.golden import load_golden
from demoalign.evaluation.lm_harness import check_tasks
from demoalign.evaluation.preferences.sets import read_preference_set
from demoalign.policies.load import check_folder, check_quantisation, context_length
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.policies.tracking import check_tracking
from demoalign.processes import is_set, world
from demoalign.rollouts.engines import make_engine
from demoalign.store import digest_file, digest_folder

LAB_ROWS = 2000
LAB_DIAL = 0.0
LAB_KEYS = {
    "dial": "a heterogeneity dial",
    "variant": "variants",
    "quality": "a quality to degrade",
    "faults": "families of faults",
    "test_faults": "families of faults",
}
"""Keys of the demonstrations that nothing else has."""


def resolve_lab(recipe: Recipe) -> Recipe:
    """The recipe with ``lab`` replaced by the embedded base model's folder.

    Raises:
        RecipeError: a key of the embedded world is set for other demonstrations, or it names a
            family of faults that there is not.
    """
    config = recipe.demonstrations
    for key, what in LAB_KEYS.items():
        if getattr(config, key) is not None and config.source != LAB:
            raise RecipeError(
                f"demonstrations.{key}: only the embedded world (source: lab) has {what}, "
                f"found source: {config.source}"
            )
    _check_families(config)
    if recipe.model.base != LAB:
        return recipe
    from demoalign.lab import BASE

    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(BASE)})})


def _check_families(config: DemonstrationsConfig) -> None:
    asked = {"faults": config.faults or (), "test_faults": config.test_faults or ()}
    for key, names in asked.items():
        if names:
            from demoalign.lab.faults import FAMILIES

            if unknown := [name for name in names if name not in FAMILIES]:
                raise RecipeError(
                    f"demonstrations.{key}: must be of {', '.join(FAMILIES)}, found {unknown[0]!r}"
                )


def base_digest(base: str) -> str:
    """Digest of a base model's files: weights, configuration, tokenizer and chat template."""
    folder = Path(base).expanduser()
    check_folder(base, trust_remote_code=True)  # nothing is run here; loading refuses code
    return digest_folder(folder) if folder.is_dir() else hub_digest(base)


def hub_digest(base: str) -> str:
    """The commit of a hub model's snapshot as the local cache has it; fetched if it is not."""
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(base, "config.json")
    except OSError as error:
        raise ModelError(
            f"model.base: {base!r} is no folder here, nor on the hub: {error}"
        ) from error
    return f"{base}@{Path(str(found)).parent.name}"


def source_digest(source: str) -> str:
    """Digest of a data file or folder; a hub id or ``lab`` stands for itself."""
    path = Path(source).expanduser()
    if path.is_file():
        return digest_file(path)
    return digest_folder(path) if path.is_dir() else source


def golden_digest(golden: GoldenConfig | None) -> str:
    """Digest of a golden reward: its model folder, or its module's source."""
    if golden is None:
        return "none"
    spec = golden.source
    path = Path(spec).expanduser()
    if path.is_dir():
        return digest_folder(path) + ("|chat" if golden.chat else "")
    module, separator, _ = spec.partition(":")
    source = _source_file(module) if separator else None
    if source is None:
        return spec + ("|chat" if golden.chat else "")
    return f"{spec}#{digest_file(source)}"


def _source_file(module: str) -> Path | None:
    """The file that a module would be imported from, the working directory included."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.has_location and found.origin else None


def policy_digest(policy: str) -> str:
    """Digest of a policy that a reward model's source names: an adapter's folder or a model.

    Raises:
        ModelError: there is no such policy.
    """
    folder = Path(policy).expanduser()
    if (folder / "adapter_config.json").is_file():
        return digest_folder(folder)
    return base_digest(policy)


def check_inputs(recipe: Recipe) -> None:
    """Fail at once on what a late stage would fail on: engine, preference files, golden reward.

    Raises:
        DemoalignError: a file cannot be read, or a module or folder is not there.
    """
    make_engine(recipe.rollouts)
    check_tracking(recipe.tracking)
    check_quantisation(recipe.model)
    files = {each.preferences for each in (*recipe.reward, *recipe.baselines)}
    for path in sorted(path for path in files if path not in (None, "golden")):
        read_preferences(str(path), skip_invalid=recipe.demonstrations.skip_invalid)
    skip = recipe.evaluation.skip_invalid or recipe.demonstrations.skip_invalid
    for source in recipe.evaluation.preferences:
        read_preference_set(source, skip_invalid=skip)
    if recipe.evaluation.lm_eval is not None:
        check_tasks(recipe.evaluation.lm_eval)
    for golden in recipe.evaluation.goldens:
        if ":" in golden.source or golden.source == LAB:
            load_golden(golden.source)
        else:
            policy_digest(golden.source)


SPLITTING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""What accelerate's launcher sets where weights are to be split among processes."""


def check_shared(recipe: Recipe) -> None:
    """Refuse, where there are several processes, what only one can train.

    Raises:
        RecipeError: naming the method.
    """
    if world() == 1:
        return
    split = [name for name in SPLITTING if is_set(name)]
    if split and recipe.improve.method not in ("best_of_n", "extrapolate"):
        raise RecipeError(
            f"improve.method: {recipe.improve.method} trains whole weights in each process, found "
            f"{split[0]}, which splits them. Launch it with the multi-gpu configuration"
        )
    whole = [each.title for each in recipe.reward if each.model == "full"]
    if "ACCELERATE_USE_FSDP" in split and (recipe.model.adapter.kind != "lora" or whole):
        found = f"reward {whole[0]} with model: full" if whole else "model.adapter.kind: none"
        raise RecipeError(
            "model.adapter.kind: under FSDP only adapters are put together again when they are "
            f"stored; must be lora, and rewards adapter or head, found {found}"
        )
    if any(each.method == "kto" for each in recipe.baselines):
        raise RecipeError(
            "baselines.method: kto estimates its KL from the rows of a whole batch and trains in "
            f"one process, found {world()}; run that recipe without `accelerate launch`, or with "
            "one process"
        )


@dataclass(frozen=True, slots=True)
class BaseText:
    """What is known of a base model without its weights.

    Attributes:
        tokenizer: with a pad token that is no end token.
        config: the model's configuration.
        context: most tokens of prompt and completion together, if the model says.
    """

    tokenizer: Any
    config: Any
    context: int | None

    def prompt_limit(self, recipe: Recipe) -> int:
        """The longest prompt that may be answered: the recipe's limit, or the context's.

        Raises:
            RecipeError: max_new_tokens alone fills the context.
        """
        limit = recipe.demonstrations.max_prompt_tokens
        if self.context is None:
            return limit
        room = self.context - recipe.rollouts.max_new_tokens
        if room < 1:
            raise RecipeError(
                "rollouts.max_new_tokens: must leave room for a prompt in the model's context of "
                f"{self.context} tokens, found {recipe.rollouts.max_new_tokens}"
            )
        return min(limit, room)


def read_base(model: ModelConfig) -> BaseText:
    """The base's tokenizer and configuration, without its weights.

    Raises:
        ModelError: they cannot be loaded safely.
    """
    from transformers import AutoConfig

    check_folder(model.base, model.trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(model.base, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.base: {model.base!r} is no folder here, and cannot be loaded as a hub id: "
            f"{error}\nWithout the hub, --miniature tries the recipe with a tiny model of the same "
            "architecture and made-up rows."
        ) from error
    rows = int(config.get_text_config().vocab_size)
    tokenizer = load_tokenizer(model.base, rows, model.trust_remote_code)
    return BaseText(tokenizer, config, context_length(config))


def load_demonstrations(config: DemonstrationsConfig, seed: int) -> Demonstrations:
    """Read the demonstrations that a recipe names.

    Raises:
        DataError: rows that cannot be used.
    """
    if config.source == LAB:
        lab = importlib.import_module("demoalign.lab")
        dial = LAB_DIAL if config.dial is None else config.dial
        count = config.limit or LAB_ROWS
        rows = lab.demonstrations(count, dial, seed, config.variant, config.quality)
        return Demonstrations(tuple(rows), source=LAB, format=LAB, why="the embedded world")
    return read_demonstrations(
        config.source,
        format=config.format,
        columns=config.map,
        split=config.split,
        skip_invalid=config.skip_invalid,
        limit=config.limit,
    )
