"""The stages that make a better policy, and what they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from demoalign.config import (
    AdversarialConfig,
    BestOfNConfig,
    ExtrapolateConfig,
    IrlConfig,
    Recipe,
    TrainedConfig,
    needed_rewards,
)
from demoalign.pipeline.choosing import strength_stage
from demoalign.pipeline.improving import distil_stage, improve_stage
from demoalign.pipeline.optimising import optimise_stage
from demoalign.pipeline.stage import Bound, Stage, policy_digests, sampling_settings
from demoalign.store import fingerprint, settings_of


class ImproveStages(Bound):
    """Those of the recipe's ``improve`` section."""

    def stages(
        self, sft: str, rollouts: str, tests: str, rewards: Mapping[str, Stage]
    ) -> list[Stage]:
        """The stages of the recipe's way of improving, of which the last answers the test prompts.

        Best-of-n needs none.
        """
        improve = self.recipe.improve
        if isinstance(improve, BestOfNConfig):
            return []
        if isinstance(improve, ExtrapolateConfig):
            return self._extrapolated(improve, sft, rollouts, tests)
        return self._trained(improve, rollouts, tests, rewards)

    def _trained(
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

    def _extrapolated(
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
            "rollouts": sampling_settings(recipe.rollouts),
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
        rollouts=sampling_settings(recipe.rollouts),
    )
