"""The stages that measure with what others have made: preference sets and lm-eval's tasks."""

from __future__ import annotations

from functools import partial

from demoalign.config import trained_policy
from demoalign.evaluation.lm_harness import harness_version
from demoalign.pipeline.harness import lm_eval_stage, task_folder, tasks_of
from demoalign.pipeline.preferring import FOLDER as PREFERENCES
from demoalign.pipeline.preferring import preferences_stage, sets_of, skips_invalid
from demoalign.pipeline.resolve import base_digest, source_digest
from demoalign.pipeline.stage import Bound, Stage, policy_digests
from demoalign.store import fingerprint, settings_of


class MeasureStages(Bound):
    """Those of the recipe's ``evaluation`` section."""

    def preferences(self, rewards: dict[str, Stage]) -> list[Stage]:
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

    def lm_eval(self, sft: str, improving: list[Stage], baselines: list[Stage]) -> list[Stage]:
        """One for each policy and task that the harness is asked for."""
        recipe, config = self.recipe, self.recipe.evaluation.lm_eval
        if config is None:
            return []
        made = {"initial": base_digest(recipe.model.base), "sft": sft}
        own = trained_policy(recipe.improve)
        made |= {str(own): each.fingerprint for each in improving if each.name == "policy"}
        made |= {stage.name.replace("/", ":", 1): stage.fingerprint for stage in baselines}
        ignored = {"tasks", "policies", "batch_size"}
        stages = []
        for policy, task in tasks_of(recipe):
            wanted = fingerprint(
                stage="lm-eval",
                policy=made.get(policy.partition("/iteration-")[0]) or policy_digests(policy),
                task=task,
                settings={k: v for k, v in settings_of(config).items() if k not in ignored},
                own_tasks=None if config.include is None else source_digest(config.include),
                version=harness_version(),
                seed=recipe.seed,
            )
            work = partial(lm_eval_stage, recipe, policy, task, self.folder, self.models)
            stages.append(Stage(task_folder(policy, task), wanted, work))
        return stages
