"""The stages of policies that are trained to be compared with."""

from __future__ import annotations

from functools import partial

from demoalign.config import BaselineConfig
from demoalign.pipeline.baselines import baseline_rollouts_stage, baseline_stage
from demoalign.pipeline.resolve import base_digest
from demoalign.pipeline.stage import (
    Bound,
    Stage,
    policy_digests,
    preferences_digest,
    sampling_settings,
)
from demoalign.store import fingerprint, settings_of


class BaselineStages(Bound):
    """Those of the recipe's ``baselines`` section."""

    def stages(self, data: str, sft: str, rollouts: str, tests: str) -> list[Stage]:
        """Two stages for each baseline: its training, and its answers to the test prompts."""
        stages = []
        for config in self.recipe.baselines:
            reads = rollouts if config.reads_rollouts else data
            trained = self._fingerprint(config, reads, sft)
            answered = fingerprint(
                stage="baseline-rollouts", policy=trained, samples=config.samples, tests=tests
            )
            given = self.recipe, config, self.folder, self.models
            training, answering = (
                partial(work, *given) for work in (baseline_stage, baseline_rollouts_stage)
            )
            stages += [
                Stage(f"baseline/{config.name}", trained, training, resumes=True),
                Stage(f"baseline-rollouts/{config.name}", answered, answering, resumes=True),
            ]
        return stages

    def compared(self, baselines: list[Stage]) -> dict[str, Stage]:
        """The trainings of baselines that rewards compare, by name; they come before rewards."""
        names = {
            source.partition("/")[0] for each in self.recipe.reward for source in each.baselines
        }
        trainings = {stage.name.removeprefix("baseline/"): stage for stage in baselines}
        return {name: trainings[name] for name in sorted(names)}

    def _fingerprint(self, config: BaselineConfig, reads: str, sft: str) -> str:
        recipe = self.recipe
        elsewhere = policy_digests(*config.sources)
        settings = dict(settings_of(config))
        settings.pop("samples")
        return fingerprint(
            stage="baseline",
            settings=settings,
            seed=recipe.seed,
            reads=reads,
            starts=sft if "sft" in config.policies else base_digest(recipe.model.base),
            model=settings_of(recipe.model),
            preferences=preferences_digest(recipe, config.preferences),
            policies=elsewhere,
            rollouts=sampling_settings(recipe.rollouts) if elsewhere else None,
        )
