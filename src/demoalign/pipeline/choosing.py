"""The stage that chooses how far to extrapolate, where the recipe leaves it open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from demoalign.config import ExtrapolateConfig, RatioConfig, Recipe
from demoalign.improve.strength import STRENGTHS, Tried, choose_strength
from demoalign.pipeline.data import distinct_prompts, read_data
from demoalign.pipeline.improving import log_ratios_to
from demoalign.pipeline.models import Models
from demoalign.pipeline.sampling import specs_of
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rollouts.engines import make_engine
from demoalign.store import write_json

PROMPTS, SAMPLES = 64, 2
"""Training prompts that are answered, and how often, at each strength."""


def strength_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Answer some training prompts at each strength; store what was seen and what was chosen."""
    improve = recipe.improve
    assert isinstance(improve, ExtrapolateConfig)
    train, _ = read_data(run / "demonstrations")
    rows = distinct_prompts(train, PROMPTS)
    prompts = {row.id: row.prompt for row in rows}
    give = models.policy
    proxy = DensityRatio(
        "proxy", lambda: give(improve.positives), lambda: give(improve.negatives), RatioConfig()
    )
    engine, tried = make_engine(recipe.rollouts), []
    for strength in STRENGTHS:
        config = improve.model_copy(update={"strength": strength})
        policy = models.extrapolated(config)
        said = list(engine.sample(policy, specs_of(rows), SAMPLES, recipe.seed))
        scores = proxy.score(
            [prompts[each.prompt_id] for each in said],
            [each.completion for each in said],
            [each.finish_reason == "stop" for each in said],
        )
        kl = float(np.mean(log_ratios_to(models.sft(), prompts, said)))
        cut = float(np.mean([each.finish_reason == "length" for each in said]))
        tokens = float(np.mean([len(each.token_ids) for each in said]))
        tried.append(Tried(strength, float(scores.mean()), kl, cut, tokens))
    chosen = choose_strength(tried)
    table = [dataclasses.asdict(each) for each in tried]
    write_json(folder / "chosen.json", {"strength": chosen.strength, "tried": table})
    models.release()
