"""One step of a run, and the digests that several kinds of steps depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.config import Recipe, RolloutsConfig
from demoalign.pipeline.models import Models
from demoalign.pipeline.resolve import golden_digest, policy_digest, source_digest
from demoalign.store import settings_of

SHARED = frozenset(
    {
        *("sft", "rollouts", "reward", "strength", "policy", "rollouts-test", "improve"),
        *("baseline", "baseline-rollouts", "best-of-n", "trained"),
    }
)
"""Stages, by the first part of their name, that processes share; the main one does the others."""

Work = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    Attributes:
        name: its folder below the run.
        fingerprint: of its settings and of everything it reads.
        work: does it, into the folder given.
        resumes: whether an interrupted attempt is continued rather than begun again.
    """

    name: str
    fingerprint: str
    work: Work
    resumes: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether all processes of a run work on it: it trains, samples or scores."""
        return self.name.partition("/")[0] in SHARED


@dataclass(frozen=True)
class Bound:
    """A recipe that is bound to a folder, with its models."""

    recipe: Recipe
    folder: Path
    models: Models


def policy_digests(*sources: str) -> list[str]:
    """Digests of those sources that are policies from elsewhere."""
    return [
        policy_digest(source.removeprefix("policy:"))
        for source in sources
        if source.startswith("policy:")
    ]


def preferences_digest(recipe: Recipe, preferences: str | None) -> str | None:
    """Digest of labelled pairs: of their file, or of the golden reward that labels them."""
    if preferences is None:
        return None
    if preferences == "golden":
        return f"golden:{golden_digest(recipe.evaluation.main_golden)}"
    return source_digest(preferences)


def sampling_settings(config: RolloutsConfig) -> dict[str, Any]:
    """What rollouts depend on: not how hard a server is pressed for them."""
    settings = dict(settings_of(config))
    if settings["endpoint"] is not None:
        pressure = {"concurrency", "retries", "timeout"}
        endpoint = settings["endpoint"]
        settings["endpoint"] = {key: endpoint[key] for key in endpoint if key not in pressure}
    return settings
