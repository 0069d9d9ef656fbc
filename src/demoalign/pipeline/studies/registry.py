"""All studies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demoalign.config import Recipe
from demoalign.errors import RecipeError
from demoalign.pipeline.studies.adversarial import study_adversarial, study_stabilisers
from demoalign.pipeline.studies.alarm import study_alarm
from demoalign.pipeline.studies.amount import study_amount
from demoalign.pipeline.studies.closed_form import study_closed_form
from demoalign.pipeline.studies.critic import study_critic
from demoalign.pipeline.studies.discriminator import study_discriminator
from demoalign.pipeline.studies.ensembles import study_ensembles
from demoalign.pipeline.studies.heterogeneity import study_heterogeneity
from demoalign.pipeline.studies.irl import study_irl
from demoalign.pipeline.studies.optimisers import study_optimisers
from demoalign.pipeline.studies.policies import study_policies
from demoalign.pipeline.studies.quality import study_quality
from demoalign.pipeline.studies.rejection import study_rejection
from demoalign.pipeline.studies.rewards import study_rewards
from demoalign.pipeline.studies.transfer import study_transfer
from demoalign.store import write_json

Study = Callable[[Recipe, int, Path], dict[str, Any]]
"""Runs what it needs below a folder, for a recipe and a number of seeds; gives what it found."""

STUDIES: Mapping[str, Study] = {
    "policies": study_policies,
    "rewards": study_rewards,
    "critic": study_critic,
    "quality": study_quality,
    "transfer": study_transfer,
    "amount": study_amount,
    "rejection": study_rejection,
    "discriminator": study_discriminator,
    "closed-form": study_closed_form,
    "alarm": study_alarm,
    "heterogeneity": study_heterogeneity,
    "ensembles": study_ensembles,
    "optimisers": study_optimisers,
    "adversarial": study_adversarial,
    "stabilisers": study_stabilisers,
    "irl": study_irl,
}


def run_study(
    name: str,
    recipe: Recipe,
    seeds: int,
    output: Path,
    runs_of: Path | None = None,
    changed: Sequence[str] = (),
) -> Path:
    """Run a study and store what it found.

    Runs that are already up to date are used as they are.

    Args:
        name: of `STUDIES`.
        recipe: the embedded world's, or one of the user's own where the study has no need of
            that world; its name, its seed and whatever the study varies are replaced.
        seeds: how many, from 0.
        output: gets ``results.json``, and ``runs/`` unless ``runs_of`` is given.
        runs_of: folder of another study, whose ``runs/`` are used and added to.
        changed: what was set in the recipe, ``section.key=value``, for the record.

    Returns:
        The path of results.json.

    Raises:
        RecipeError: no such study, or the recipe has not what it needs.
    """
    if name not in STUDIES:
        raise RecipeError(f"study: must be one of {', '.join(STUDIES)}, found {name!r}")
    found = STUDIES[name](recipe, seeds, runs_of or output)
    path = output / "results.json"
    write_json(path, {"schema": 1, "study": name, "seeds": seeds, "set": [*changed], **found})
    return path
