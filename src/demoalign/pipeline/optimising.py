"""The stage that trains the policy against a reward, or along with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from demoalign.config import AdversarialConfig, IrlConfig, Recipe, TrainedConfig
from demoalign.improve.held_out import Asking, HeldOut
from demoalign.improve.optimise import Summary, Training, optimise
from demoalign.pipeline.comparing import answers_to
from demoalign.pipeline.data import distinct_prompts, read_data
from demoalign.pipeline.fixed import settled, train_fixed
from demoalign.pipeline.iterating import irl_sources, train_irl
from demoalign.pipeline.looking import lookers_of
from demoalign.pipeline.models import Models
from demoalign.pipeline.opposing import adversarial_reward, opposed_sources, store_discriminator
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.setting import Setting
from demoalign.pipeline.sources import WHOLE
from demoalign.pipeline.training import store_policy
from demoalign.records import Demonstration, Prompt
from demoalign.rewards.comparisons import Answer
from demoalign.rollouts.engines import make_engine

LEARNER = "learner"
"""The adapter that is trained."""

Answers = Sequence[tuple[Prompt, Answer]]


def optimise_stage(
    recipe: Recipe, config: TrainedConfig, run: Path, models: Models, folder: Path
) -> None:
    """Train a copy of the SFT policy; store the best policy as a model folder, and the last."""
    models.release()
    train, _ = read_data(run / "demonstrations")
    answers = _declared(recipe, config, run, models, folder, train)
    student, reference = models.student(LEARNER), models.sft()
    engine = make_engine(recipe.rollouts.model_copy(update={**WHOLE, "min_new_tokens": 0}))
    specs, check = specs_of(distinct_prompts(train, None)), config.check
    watched = min(check.prompts, max(1, len(specs) // 4))
    setting = Setting(
        recipe,
        models,
        folder,
        Asking(student, reference, engine),
        specs[watched:],
        HeldOut(specs[:watched], check, recipe.seed, lookers_of(recipe, config, models)),
    )
    found = _train(setting, config, answers)
    store_policy(student.backbone, student.adapter, found, folder)
    models.release()


def _train(setting: Setting, config: TrainedConfig, answers: Mapping[str, Answers]) -> Summary:
    if isinstance(config, AdversarialConfig):
        return _train_adversarial(setting, config, answers)
    if isinstance(config, IrlConfig):
        return train_irl(setting, config, answers)
    return train_fixed(setting, config)


def _train_adversarial(
    setting: Setting, config: AdversarialConfig, answers: Mapping[str, Answers]
) -> Summary:
    config = settled(setting.recipe, config, False)
    backbone, sft = setting.asking.policy.backbone, setting.models.sft_folder
    reward = adversarial_reward(setting.recipe, config, backbone, answers, sft)
    seed = setting.recipe.seed
    training = Training(setting.asking, setting.prompts, setting.held_out, config, seed)
    found = optimise(training, reward, setting.folder, setting.store_last)
    store_discriminator(reward, setting.folder)
    return found


def _declared(
    recipe: Recipe,
    config: TrainedConfig,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
) -> dict[str, Answers]:
    """Answers of every source that a method compares; it may let go of all models."""
    wanted: set[str] = set()
    if isinstance(config, AdversarialConfig):
        wanted = opposed_sources(config)
    if isinstance(config, IrlConfig):
        wanted = irl_sources(config)
    return {
        source: answers_to(recipe, source, run, models, folder, train, f"answers-{number}")
        for number, source in enumerate(sorted(wanted))
    }
