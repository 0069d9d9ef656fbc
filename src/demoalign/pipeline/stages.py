"""Which stages a recipe has, in order, and what each depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demoalign.config import (
    AdversarialConfig,
    BaselineConfig,
    BestOfNConfig,
    EvaluationConfig,
    ExtrapolateConfig,
    IrlConfig,
    Recipe,
    RewardConfig,
    RolloutsConfig,
    TrainedConfig,
    in_order,
    trained_policy,
)
from demoalign.evaluation.lm_harness import harness_version
from demoalign.pipeline.baselines import baseline_rollouts_stage, baseline_stage
from demoalign.pipeline.choosing import strength_stage
from demoalign.pipeline.data import prepare_data, store_data
from demoalign.pipeline.evaluate import evaluation_stage
from demoalign.pipeline.harness import lm_eval_stage, task_folder, tasks_of
from demoalign.pipeline.improving import distil_stage, improve_stage
from demoalign.pipeline.looking import needed_rewards
from demoalign.pipeline.mixing import mixture_stage
from demoalign.pipeline.models import Models
from demoalign.pipeline.optimising import optimise_stage
from demoalign.pipeline.preferring import FOLDER as PREFERENCES
from demoalign.pipeline.preferring import preferences_stage, sets_of, skips_invalid
from demoalign.pipeline.resolve import (
    BaseText,
    base_digest,
    golden_digest,
    policy_digest,
    source_digest,
)
from demoalign.pipeline.sampling import best_of_n_stage, rollouts_stage, test_rollouts_stage
from demoalign.pipeline.training import reward_stage, sft_stage, train_samples
from demoalign.policies.policy import INITIAL
from demoalign.store import fingerprint, settings_of

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


@dataclass(frozen=True)
class StageBuilder:
    """Makes the stages of a recipe that is bound to a folder.

    A stage's fingerprint names the fingerprints of the stages it reads, so that a change runs
    again just what depends on it.
    """

    recipe: Recipe
    folder: Path
    models: Models
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
            settings=_sampling_settings(recipe.rollouts),
        )
        tests = self._test_fingerprint(sft)
        baselines = self._baselines(data, sft, rollouts, tests)
        compared = self._compared(baselines)
        rewards = self._reward_stages(rollouts, compared)
        improving = self._improving(sft, rollouts, tests, rewards)
        best = fingerprint(
            stage="best-of-n",
            tests=tests,
            rewards=[rewards[config.title].fingerprint for config in recipe.reward],
            improved=[stage.fingerprint for stage in improving],
            baselines=[stage.fingerprint for stage in baselines],
        )
        preferring = self._preference_stages(rewards)
        harness = self._lm_eval_stages(sft, improving)
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
        settings = _sampling_settings(recipe.rollouts)
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

    def _improving(
        self, sft: str, rollouts: str, tests: str, rewards: Mapping[str, Stage]
    ) -> list[Stage]:
        """The stages of the recipe's way of improving, of which the last answers the test prompts.

        Best-of-n needs none.
        """
        improve = self.recipe.improve
        if isinstance(improve, BestOfNConfig):
            return []
        if isinstance(improve, ExtrapolateConfig):
            return self._extrapolating(improve, sft, rollouts, tests)
        return self._training(improve, rollouts, tests, rewards)

    def _training(
        self, improve: TrainedConfig, rollouts: str, tests: str, rewards: Mapping[str, Stage]
    ) -> list[Stage]:
        """Training the policy, and its answers."""
        recipe = self.recipe
        given = recipe, improve, self.folder, self.models
        trained = optimise_fingerprint(recipe, improve, rollouts, rewards)
        answered = fingerprint(
            stage="improve", policy=trained, samples=improve.samples, tests=tests
        )
        answering = partial(improve_stage, recipe, self.folder, self.models)
        return [
            Stage("policy", trained, partial(optimise_stage, *given), resumes=True),
            Stage("improve", answered, answering, resumes=True),
        ]

    def _extrapolating(
        self, improve: ExtrapolateConfig, sft: str, rollouts: str, tests: str
    ) -> list[Stage]:
        recipe = self.recipe
        settings = dict(settings_of(improve))
        distil = settings.pop("distil")
        given = {
            "sft": sft,
            "support": rollouts if improve.ratio.support == "auto" else None,
            "seed": recipe.seed,
            "policies": policy_digests(improve.positives, improve.negatives),
            "rollouts": _sampling_settings(recipe.rollouts),
        }
        stages = []
        used = {key: value for key, value in settings.items() if key != "samples"}
        if improve.strength == "auto":
            wanted = fingerprint(stage="strength", settings=used, data=rollouts, **given)
            work = partial(strength_stage, recipe, self.folder, self.models)
            stages.append(Stage("strength", wanted, work))
        if distil is not None:
            before = [stage.fingerprint for stage in stages]
            wanted = fingerprint(
                stage="policy", settings=used, distil=distil, before=before, **given
            )
            work = partial(distil_stage, recipe, self.folder, self.models)
            stages.append(Stage("policy", wanted, work, resumes=True))
        wanted = fingerprint(
            stage="improve",
            settings=settings,
            before=[stage.fingerprint for stage in stages],
            prompts=recipe.evaluation.prompts,
            tests=tests,
            **given,
        )
        work = partial(improve_stage, recipe, self.folder, self.models)
        return [*stages, Stage("improve", wanted, work, resumes=True)]

    def _baselines(self, data: str, sft: str, rollouts: str, tests: str) -> list[Stage]:
        """Two stages for each baseline: its training, and its answers to the test prompts."""
        stages = []
        for config in self.recipe.baselines:
            reads = rollouts if config.reads_rollouts else data
            trained = self._baseline_fingerprint(config, reads, sft)
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

    def _compared(self, baselines: list[Stage]) -> dict[str, Stage]:
        """The trainings of baselines that rewards compare, by name; they come before rewards."""
        names = {
            source.partition("/")[0] for each in self.recipe.reward for source in each.baselines
        }
        trainings = {stage.name.removeprefix("baseline/"): stage for stage in baselines}
        return {name: trainings[name] for name in sorted(names)}

    def _baseline_fingerprint(self, config: BaselineConfig, reads: str, sft: str) -> str:
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
            preferences=self._preferences_digest(config.preferences),
            policies=elsewhere,
            rollouts=_sampling_settings(recipe.rollouts) if elsewhere else None,
        )

    def _preferences_digest(self, preferences: str | None) -> str | None:
        """Digest of labelled pairs: of their file, or of the golden reward that labels them."""
        if preferences is None:
            return None
        if preferences == "golden":
            return f"golden:{golden_digest(self.recipe.evaluation.main_golden)}"
        return source_digest(preferences)

    def _preference_stages(self, rewards: dict[str, Stage]) -> list[Stage]:
        """One for each preference set."""
        recipe = self.recipe
        given = [rewards[config.title].fingerprint for config in recipe.reward]
        stages = []
        for name, source in sets_of(recipe).items():
            wanted = fingerprint(
                stage="preferences",
                name=name,
                source=source_digest(source),
                skip_invalid=skips_invalid(recipe),
                rewards=given,
            )
            work = partial(preferences_stage, recipe, source, self.folder, self.models)
            stages.append(Stage(f"{PREFERENCES}/{name}", wanted, work))
        return stages

    def _lm_eval_stages(self, sft: str, improving: list[Stage]) -> list[Stage]:
        """One for each policy and task that the harness is asked for."""
        recipe, config = self.recipe, self.recipe.evaluation.lm_eval
        if config is None:
            return []
        made = {"initial": base_digest(recipe.model.base), "sft": sft}
        own = trained_policy(recipe.improve)
        made |= {str(own): each.fingerprint for each in improving if each.name == "policy"}
        ignored = {"tasks", "policies", "batch_size"}
        stages = []
        for policy, task in tasks_of(recipe):
            wanted = fingerprint(
                stage="lm-eval",
                policy=made.get(policy) or policy_digests(policy),
                task=task,
                settings={k: v for k, v in settings_of(config).items() if k not in ignored},
                own_tasks=None if config.include is None else source_digest(config.include),
                version=harness_version(),
                seed=recipe.seed,
            )
            work = partial(lm_eval_stage, recipe, policy, task, self.folder, self.models)
            stages.append(Stage(task_folder(policy, task), wanted, work))
        return stages

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
            preferences=self._preferences_digest(config.preferences),
            policies=policy_digests(config.positives, config.negatives),
            made_of=made_of,
        )
        stage = mixture_stage if config.model == "mixture" else reward_stage
        work = partial(stage, recipe, config, self.folder, self.models)
        return Stage(f"reward/{config.title}", wanted, work)


def optimise_fingerprint(
    recipe: Recipe, config: TrainedConfig, rollouts: str, rewards: Mapping[str, Stage]
) -> str:
    """Of a policy that is trained against one of the rewards."""
    settings = dict(settings_of(config))
    settings.pop("samples")
    sources: tuple[str, ...] = ()
    if isinstance(config, AdversarialConfig):
        sources = (config.discriminator.positives, *config.discriminator.negatives)
    if isinstance(config, IrlConfig):
        sources = (config.reward.positives,)
    return fingerprint(
        stage="policy",
        settings=settings,
        seed=recipe.seed,
        starts=rollouts,
        rewards=[rewards[each.title].fingerprint for each in needed_rewards(recipe, config)],
        policies=policy_digests(*sources),
        rollouts=_sampling_settings(recipe.rollouts),
    )


def policy_digests(*sources: str) -> list[str]:
    """Digests of those sources that are policies from elsewhere."""
    return [
        policy_digest(source.removeprefix("policy:"))
        for source in sources
        if source.startswith("policy:")
    ]


def _measuring_settings(config: EvaluationConfig) -> dict[str, Any]:
    """What the evaluation depends on: a run asks no judge, and preference sets have stages."""
    left_out = {"judge", "preferences", "skip_invalid", "lm_eval"}
    return {key: value for key, value in settings_of(config).items() if key not in left_out}


def _sampling_settings(config: RolloutsConfig) -> dict[str, Any]:
    """What rollouts depend on: not how hard a server is pressed for them."""
    settings = dict(settings_of(config))
    if settings["endpoint"] is not None:
        pressure = {"concurrency", "retries", "timeout"}
        endpoint = settings["endpoint"]
        settings["endpoint"] = {key: endpoint[key] for key in endpoint if key not in pressure}
    return settings
