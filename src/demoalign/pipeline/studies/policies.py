"""The paper's comparison of single-phase policies (section 4.1, Figure 3) over seeds and dials.

All trainings share the settings of the recipe's SFT (appendix E.6) and learn from the same training
prompts. The preferences are simulated: the golden reward labels, with noise, pairs of samples. The
paper's preference data know nothing of the demonstrations, so the pairs of the single-phase
policies are the initial policy's samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demoalign.config import BaselineBase, DpoConfig, Recipe, SftBaselineConfig, parse_recipe
from demoalign.evaluation.measured import Measured
from demoalign.pipeline.sources import CANDIDATES, GREEDY
from demoalign.pipeline.studies.methods import compare, golden_by_method
from demoalign.pipeline.studies.rewards import RunGolden
from demoalign.pipeline.studies.worlds import (
    Array,
    dials_of,
    estimate,
    finished,
    lean,
    needs_golden,
    share,
    world,
)

DIALS = (0.0, 0.5, 1.0)
N = 16
CHEAP = ("head", "density_ratio")
"""Kinds of reward models that are kept beside the policies, if the recipe has any."""

BASELINES: tuple[dict[str, Any], ...] = (
    {"method": "sft", "name": "sft-preferred", "preferences": "golden", "labels": "initial"},
    {"method": "dpo", "name": "dpo-preferences", "preferences": "golden", "labels": "initial"},
    {
        "method": "dpo",
        "name": "dpo-demonstrations",
        "positives": "demonstrations",
        "negatives": "initial",
    },
    {"method": "dpo", "name": "sft-then-dpo", "preferences": "golden", "start": "sft"},
)
"""The paper's three, and what is usually done with preferences once there is an SFT policy."""


KINDS: dict[str, type[BaselineBase]] = {"sft": SftBaselineConfig, "dpo": DpoConfig}
"""What the settings of the recipe's SFT have to fit into."""


def study_policies(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Every policy and selector at every dial, if the recipe's world has one.

    Of each method: the golden reward, the same normalised (0 is the initial policy, 1 the
    demonstrations), and the differences to SFT samples and SFT greedy, paired by prompt. Of
    policies also how often what they say wins against SFT samples and SFT greedy (a tie counts one
    half), and the KL from the SFT policy (nats).

    Raises:
        RecipeError: there is no golden reward.
    """
    needs_golden(recipe, "policies")
    compared, rows = with_baselines(recipe), []
    for dial in dials_of(recipe, DIALS):
        runs = [finished(world(compared, dial, seed, output)) for seed in range(seeds)]
        rows += [{"dial": dial, **row} for row in _rows(runs)]
    return {"n": N, "rows": rows}


def with_baselines(recipe: Recipe) -> Recipe:
    """The recipe with the policies of Figure 3, all trained with the settings of its SFT."""
    raw = lean(recipe, N).model_dump(mode="json")
    raw["baselines"] = [_shared(raw["sft"], each["method"]) | each for each in BASELINES]
    raw["rollouts"]["train_prompts"] = None
    raw["evaluation"]["truncated_samples"] = recipe.evaluation.truncated_samples
    cheap = [each for each in raw["reward"] if each["model"] in CHEAP]
    raw["reward"] = cheap or raw["reward"][:1]
    return parse_recipe(raw, recipe.name)


def _shared(sft: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The settings of the recipe's SFT that a method has, too."""
    has = KINDS[method].model_fields
    return {key: value for key, value in sft.items() if key in has and key != "keep_checkpoints"}


def _rows(runs: Sequence[Measured]) -> list[dict[str, Any]]:
    """All methods at one dial."""
    parts = [RunGolden(each) for each in runs]
    methods = [golden_by_method(each, N) for each in runs]
    sources = {
        name if selector == "none" else f"{name}, {selector}": key
        for key, (name, selector) in runs[0].plain.items()
    }
    found = []
    for row in compare(methods):
        name = row["method"]
        pairs = list(zip(parts, methods, strict=True))
        normalised = estimate([part.normalised(each[name]) for part, each in pairs])
        found.append(row | {"normalised": normalised} | _of_policy(parts, sources.get(name)))
    return found


def _of_policy(parts: Sequence[RunGolden], source: str | None) -> dict[str, Any]:
    """What is known of policies but not of selectors."""
    if source is None:
        return {}
    ratios = [part.measured.log_ratios.get(source) for part in parts]
    known = [each.mean(axis=1) for each in ratios if each is not None]
    wins = {} if source == CANDIDATES else {"wins_samples": _wins(parts, source, CANDIDATES)}
    wins |= {} if source == GREEDY else {"wins_greedy": _wins(parts, source, GREEDY)}
    is_moved = source != CANDIDATES and len(known) == len(parts)
    return wins | ({"kl": estimate(known)} if is_moved else {})


def _wins(parts: Sequence[RunGolden], source: str, rival: str) -> dict[str, Any]:
    """How often a source's completion beats a rival's, over all pairs of the two on a prompt."""
    return share([_share_won(part.golden[source], part.golden[rival]) for part in parts])


def _share_won(mine: Array, its: Array) -> Array:
    """(P,) of (P, K) against (P, L); a tie counts one half."""
    left, right = mine[:, :, None], its[:, None, :]
    won: Array = ((left > right) + 0.5 * (left == right)).mean(axis=(1, 2))
    return won
