"""Which stages a recipe has, in order, and what each depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demoalign.config import (
    EvaluationConfig,
    RewardConfig,
    in_order,
)
from demoalign.pipeline.baseline_stages import BaselineStages
from demoalign.pipeline.data import prepare_data, store_data
from demoalign.pipeline.evaluate import evaluation_stage
from demoalign.pipeline.improve_stages import ImproveStages
from demoalign.pipeline.measure_stages import MeasureStages
from demoalign.pipeline.mixing import mixture_stage
from demoalign.pipeline.resolve import (
    BaseText,
    base_digest,
    golden_digest,
    source_digest,
)
from demoalign.pipeline.sampling import best_of_n_stage, rollouts_stage, test_rollouts_stage
from demoalign.pipeline.stage import (
    Bound,
    Stage,
    policy_digests,
    preferences_digest,
    sampling_settings,
)
from demoalign.pipeline.training import reward_stage, sft_stage, train_samples
from demoalign.policies.policy import INITIAL
from demoalign.store import fingerprint, settings_of


@dataclass(frozen=True)
class StageBuilder(Bound):
    """Makes the stages of a recipe that is bound to a folder.

    A stage's fingerprint names the fingerprints of the stages it reads, so that a change runs
    again just what depends on it.
    """

    base: BaseText

    def build(self) -> tuple[Stage, ...]:
        """All stages in order, with their fingerprints."""
        recipe, folder, models = self.recipe, self.folder, self.models
        data = self._data_fingerprint()
        sft = fingerprint(
            stage="sft",
            data=data,
            seed=recipe.seed,
            base=base_digest(recipe.model.base),
            model=settings_of(recipe.model),
            settings=settings_of(recipe.sft),
        )
        rollouts = fingerprint(
            stage="rollouts",
            sft=sft,
            seed=recipe.seed,
            samples=[train_samples(recipe, INITIAL), train_samples(recipe)],
            settings=sampling_settings(recipe.rollouts),
        )
        tests = self._test_fingerprint(sft)
        bound = recipe, folder, models
        comparing = BaselineStages(*bound)
        baselines = comparing.stages(data, sft, rollouts, tests)
        compared = comparing.compared(baselines)
        rewards = self._reward_stages(rollouts, compared)
        improving = ImproveStages(*bound).stages(sft, rollouts, tests, rewards)
        best = fingerprint(
            stage="best-of-n",
            tests=tests,
            rewards=[rewards[config.title].fingerprint for config in recipe.reward],
            improved=[stage.fingerprint for stage in improving],
            baselines=[stage.fingerprint for stage in baselines],
        )
        measuring = MeasureStages(*bound)
        preferring = measuring.preferences(rewards)
        harness = measuring.lm_eval(sft, improving, baselines)
        evaluation = fingerprint(
            stage="evaluation",
            best=best,
            settings=_measuring_settings(recipe.evaluation),
            preferences=[stage.fingerprint for stage in preferring],
            lm_eval=[stage.fingerprint for stage in harness],
            golden=[golden_digest(golden) for golden in recipe.evaluation.goldens],
            run=recipe.name,
        )
        return (
            Stage("demonstrations", data, self._store_demonstrations),
            Stage("sft", sft, partial(sft_stage, recipe, folder, models), resumes=True),
            Stage("rollouts", rollouts, partial(rollouts_stage, recipe, folder, models), True),
            *compared.values(),
            *rewards.values(),
            *improving[:-1],
            Stage(
                "rollouts-test", tests, partial(test_rollouts_stage, recipe, folder, models), True
            ),
            *improving[-1:],
            *(stage for stage in baselines if stage not in compared.values()),
            Stage("best-of-n", best, partial(best_of_n_stage, recipe, folder, models)),
            *preferring,
            *harness,
            Stage("evaluation", evaluation, partial(evaluation_stage, recipe, folder, models)),
        )

    def _store_demonstrations(self, folder: Path) -> None:
        data = prepare_data(self.recipe, self.base)
        store_data(folder, data)

    def _data_fingerprint(self) -> str:
        recipe = self.recipe
        config = recipe.demonstrations
        return fingerprint(
            stage="demonstrations",
            seed=recipe.seed,
            settings=settings_of(config),
            source=source_digest(config.source),
            test=source_digest(config.test_source) if config.test_source else None,
            limit=self.base.prompt_limit(recipe),
            base=base_digest(recipe.model.base),
        )

    def _test_fingerprint(self, sft: str) -> str:
        recipe = self.recipe
        ignored = {"samples_per_prompt", "train_prompts"}
        settings = sampling_settings(recipe.rollouts)
        settings = {key: value for key, value in settings.items() if key not in ignored}
        return fingerprint(
            stage="rollouts-test",
            sft=sft,
            seed=recipe.seed,
            settings=settings,
            most=max(recipe.evaluation.sizes),
            prompts=recipe.evaluation.prompts,
            initial=recipe.evaluation.initial_samples,
            truncated=recipe.evaluation.truncated_samples,
        )

    def _reward_stages(self, rollouts: str, compared: dict[str, Stage]) -> dict[str, Stage]:
        """By title; a reward made of others comes after them."""
        stages: dict[str, Stage] = {}
        for config in in_order(self.recipe.reward):
            made_of = {name: stages[name].fingerprint for name in config.needs}
            for source in config.baselines:
                made_of[source] = compared[source.partition("/")[0]].fingerprint
            stages[config.title] = self._reward_stage(config, rollouts, made_of)
        return stages

    def _reward_stage(self, config: RewardConfig, rollouts: str, made_of: dict[str, str]) -> Stage:
        recipe = self.recipe
        wanted = fingerprint(
            stage="reward",
            rollouts=rollouts,
            seed=recipe.seed,
            settings=settings_of(config),
            preferences=preferences_digest(recipe, config.preferences),
            policies=policy_digests(config.positives, config.negatives),
            made_of=made_of,
        )
        stage = mixture_stage if config.model == "mixture" else reward_stage
        work = partial(stage, recipe, config, self.folder, self.models)
        return Stage(f"reward/{config.title}", wanted, work)


def _measuring_settings(config: EvaluationConfig) -> dict[str, Any]:
    """What the evaluation depends on: a run asks no judge, and preference sets have stages."""
    left_out = {"judge", "preferences", "skip_invalid", "lm_eval"}
    return {key: value for key, value in settings_of(config).items() if key not in left_out}
