"""The reward models that a stored recipe asks for, by the names they have in results. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from demoalign.config import BASELINE, UNTRAINED
from demoalign.report.read import RunResults
from demoalign.report.stored import Json, list_of, mapping_of, text_of

SHORT_SOURCES = {"initial": "init", "demonstrations": "demo"}


def recipe_reward_models(run: RunResults) -> list[tuple[str, Mapping[str, Json]]]:
    """(name, settings) of the recipe's reward models: one section, or a list of them."""
    stored = run.recipe.get("reward")
    found = []
    for section in map(mapping_of, list_of(stored) or [stored]):
        found.append((text_of(section.get("name")) or _title(section), section))
    return [(name, section) for name, section in found if name]


def _title(section: Mapping[str, Json]) -> str:
    """What a reward model without a name is called, as `RewardConfig.title` says."""
    model, teacher = text_of(section.get("model")), text_of(section.get("distils"))
    if model in UNTRAINED:
        return model.replace("_", "-")
    if teacher:
        return f"{teacher}-{model or 'adapter'}"
    sides = [text_of(section.get(side)) for side in ("negatives", "positives")]
    if sides == ["dispreferred", "preferred"]:
        return "preference"
    return "-".join(_short(side) for side in sides if side)


def _short(source: str) -> str:
    if source.startswith(BASELINE):
        return source.removeprefix(BASELINE).replace("/", "-")
    if source.startswith("policy:"):
        return source.removeprefix("policy:").rstrip("/").rpartition("/")[2]
    return SHORT_SOURCES.get(source, source)
