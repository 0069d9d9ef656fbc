"""Reading recipes: files, overrides, and errors that name the key, the rule and the value found."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from demoalign.config.baselines import BASELINE_METHODS
from demoalign.config.evaluation import OTHER, TEXT, EvaluationConfig, GoldenConfig
from demoalign.config.improve import METHODS
from demoalign.config.recipe import Recipe
from demoalign.config.reward import RewardConfig
from demoalign.config.section import LIST, ONE, Section
from demoalign.errors import RecipeError

MARKS = frozenset({ONE, LIST, TEXT, OTHER})
"""How pydantic says which of several forms of a value it tried."""


class Union(NamedTuple):
    """A section that is told apart by its method.

    Attributes:
        methods: the section of each.
        place: where pydantic puts the method among the keys that lead to a value.
    """

    methods: Mapping[str, type[Section]]
    place: int


UNIONS = {"improve": Union(METHODS, 1), "baselines": Union(BASELINE_METHODS, 2)}
STEP = ("improve", "irl", "step")
STEPS = Union({name: METHODS[name] for name in ("rloo", "grpo", "ppo", "raft")}, len(STEP))
"""The union within a union: the policy step of irl."""


def _union_of(location: Sequence[str | int]) -> Union | None:
    """The innermost union on the way to a value."""
    if tuple(location[: len(STEP)]) == STEP:
        return STEPS
    return UNIONS.get(str(location[0])) if location else None


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
    try:
        return parse_recipe(with_overrides(raw, overrides), str(path))
    except RecipeError as error:
        raise RecipeError(f"{error}{_begin_anew(str(error), overrides)}") from error


def _begin_anew(said: str, overrides: Sequence[str]) -> str:
    """What to do where another method was set over the keys of the one before."""
    hints = []
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, last = key.strip().rpartition(".")
        if last == "method" and f"\n  {section}." in said and ": unknown key" in said:
            hints.append(
                f"\n  The recipe's {section} has keys of another method. "
                f"--set '{section}={{method: {value.strip()}}}' begins it anew."
            )
    return "".join(hints)


def with_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recipe given as plain objects, with ``key.sub=value`` overrides (values are YAML).

    Raises:
        RecipeError: an override is not of that form.
    """
    found = copy.deepcopy(dict(raw))
    for override in overrides:
        _override(found, override)
    return found


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
            child for target in targets for child in _children(_opened(target, parent), key, parent)
        ]
    for target in targets:
        target[last] = value


def _opened(target: dict[str, Any], parent: str) -> object:
    """What stands under a key; a section that is not there, or null, begins empty."""
    if target.get(parent) is None:
        target[parent] = {}
    return target[parent]


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
        union = _union_of(item["loc"])
        found, methods = item["ctx"]["tag"], union.methods if union else {}
        close = difflib.get_close_matches(found, methods, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{place}.method: must be one of {', '.join(methods)}, found {found!r}{hint}"
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest(item['loc'])}"
    if item["type"] == "missing":
        return f"{place}: required, found nothing"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if item["type"] == "value_error" else f"; found {item['input']!r}"
    return f"{place}: {message}{found}"


def _named(location: Sequence[str | int]) -> list[str | int]:
    """Where a value stands in the recipe: pydantic's place without marks of what it tried."""
    outer = UNIONS.get(str(location[0])) if location else None
    places = {union.place for union in (outer, _union_of(location)) if union}
    return [
        part for number, part in enumerate(location) if part not in MARKS and number not in places
    ]


def _nearest(location: tuple[str | int, ...]) -> str:
    section: type[BaseModel] | None = Recipe
    if union := _union_of(location):
        section = union.methods.get(str(location[union.place]))
        location = location[union.place + 1 :]
    for part in location[:-1]:
        if isinstance(part, int) or part in MARKS or section is None:
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
    if section is EvaluationConfig and key == "golden":
        return GoldenConfig
    field = section.model_fields.get(key)
    annotation = field.annotation if field else None
    options = [each for each in get_args(annotation) if each is not NoneType]
    if len(options) == 1 and NoneType in get_args(annotation):  # an optional section
        annotation = options[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
