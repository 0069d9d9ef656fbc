"""Each divergence at each level against the SFT policy and the one-shot method, and stabilisers.

The stabilisers are varied one at a time, from the defaults of the first divergence at dial 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demoalign.config import AdversarialConfig, Recipe, TrainedConfig
from demoalign.pipeline.studies.optimisers import study_of
from demoalign.pipeline.studies.worlds import needs_golden

DIALS = (0.0, 1.0)
KINDS: dict[str, dict[str, Any]] = {
    "airl": {"divergence": "airl"},
    "gail": {"divergence": "gail"},
    "fairl": {"divergence": "fairl"},
    "alpha 0.5": {"divergence": "alpha", "alpha": 0.5},
}
LEVELS = ("trajectory", "token")
STABILISERS: dict[str, dict[str, Any]] = {
    "starts from the base": {"discriminator": {"start": "initial"}},
    "no label smoothing": {"discriminator": {"label_smoothing": 0.0}},
    "no target accuracy": {"discriminator": {"target_accuracy": None}},
    "no replay": {"discriminator": {"replay": 0.0}},
    "no warm-up": {"discriminator": {"warmup": 0}},
    "gradient penalty 0.1": {"discriminator": {"gradient_penalty": 0.1}},
    "spectral norm": {"discriminator": {"spectral_norm": True}},
    "discriminator 4 x faster": {"discriminator": {"learning_rate": 4e-3}},
    "logits not cut": {"logit_clip": 50.0},
    "not whitened": {"whiten": False},
    "no KL penalty": {"beta": 0.0},
}


def study_adversarial(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """Divergences by level at `DIALS`; the runs serve the study ``rewards`` too.

    Raises:
        RecipeError: there is no golden reward.
    """
    needs_golden(recipe, "adversarial")
    methods: dict[str, TrainedConfig] = {
        f"{name}, {level}": AdversarialConfig.model_validate({**kind, "level": level})
        for name, kind in KINDS.items()
        for level in LEVELS
    }
    return study_of(recipe, seeds, output, DIALS, methods)


def study_stabilisers(recipe: Recipe, seeds: int, output: Path) -> dict[str, Any]:
    """What keeps adversarial training stable, one setting changed at a time, at dial 0.

    Raises:
        RecipeError: there is no golden reward.
    """
    needs_golden(recipe, "stabilisers")
    methods: dict[str, TrainedConfig] = {"airl, trajectory": AdversarialConfig(level="trajectory")}
    methods |= {
        name: AdversarialConfig.model_validate({"level": "trajectory", **changes})
        for name, changes in STABILISERS.items()
    }
    return study_of(recipe, seeds, output, DIALS[:1], methods)
