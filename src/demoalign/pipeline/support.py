"""Storing and reading back what the SFT policy says outside the initial policy's support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demoalign.config import Recipe, RewardConfig
from demoalign.evaluation.heterogeneity import Support
from demoalign.evaluation.measured import as_grid
from demoalign.rewards.density_ratio import TokenRatios
from demoalign.store import read_json

SUPPORT = "support.json"
"""In the folder of the best-of-n stage: columns by reward, a row for each candidate."""


def measures_support(config: RewardConfig) -> bool:
    """Whether a reward sees what the SFT policy says outside a policy's support."""
    return config.model == "density_ratio" and config.positives == "sft"


def columns_of(read: Sequence[TokenRatios]) -> dict[str, list[Any]]:
    """Counts and sums of completions (`Support`), one row each."""
    sums = [(each.log_ratios.sum(), each.log_ratios[~each.inside].sum()) for each in read]
    return {
        "tokens": [len(each.inside) for each in read],
        "outside": [int((~each.inside).sum()) for each in read],
        "log_ratio": [_finite(whole) for whole, _ in sums],
        "log_ratio_outside": [_finite(part) for _, part in sums],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def read_support(recipe: Recipe, run: Path, prompts: int) -> dict[str, Support | str]:
    """What the best-of-n stage has stored, by reward; else why it is not known."""
    path = run / "best-of-n" / SUPPORT
    stored: Mapping[str, Mapping[str, list[Any]]] = read_json(path) if path.is_file() else {}
    found: dict[str, Support | str] = {}
    for config in recipe.reward:
        if not measures_support(config):
            continue
        ratio = config.ratio
        if ratio is not None and ratio.support is None and ratio.min_p is None:
            found[config.title] = "the reward has no limit of support"
        elif config.title not in stored:
            found[config.title] = f"best-of-n/{SUPPORT} does not hold it"
        else:
            columns = {k: as_grid(v, prompts) for k, v in stored[config.title].items()}
            found[config.title] = Support(**columns)
    return found
