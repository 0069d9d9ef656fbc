"""What reward models compare, and which prompts they have seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from demoalign.config import BASELINE, UNTRAINED, Recipe, RewardConfig
from demoalign.demonstrations import read_preferences
from demoalign.demonstrations.split import prompt_key
from demoalign.pipeline.goldens import main_golden
from demoalign.pipeline.models import Models
from demoalign.policies.policy import INITIAL, SFT, Policy
from demoalign.records import Demonstration, Preference, Prompt
from demoalign.rewards.comparisons import (
    Answer,
    Answers,
    Comparison,
    answers_of_demonstrations,
    answers_of_rollouts,
    label_pairs,
    pair_preferences,
    pair_sources,
)
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import read_json, write_json

PROMPTS = "prompts.json"
"""Which prompts a reward model was trained on, and which were held out, by id."""


class Sources(Protocol):
    """What a recipe section declares to be compared: rewards and baselines do."""

    @property
    def positives(self) -> str:
        """Source of the better completions."""

    @property
    def negatives(self) -> str:
        """Source of the worse completions."""

    @property
    def preferences(self) -> str | None:
        """File with labelled pairs, or ``golden``."""


def store_prompts(
    folder: Path, training: Sequence[Comparison], held_out: Sequence[Comparison]
) -> None:
    """Note which prompts a reward model sees in training."""
    sides = {"training": training, "held_out": held_out}
    ids = {side: sorted({pair.prompt_id for pair in pairs}) for side, pairs in sides.items()}
    write_json(folder / PROMPTS, ids)


def seen_prompts(
    recipe: Recipe, rewards: Sequence[RewardConfig], run: Path, train: Sequence[Demonstration]
) -> set[str]:
    """Keys of the prompts that any of these rewards was trained on."""
    seen = set()
    for reward in rewards:
        if reward.model in UNTRAINED:
            continue
        rows: Sequence[Demonstration | Preference] = train
        if reward.preferences not in (None, "golden"):
            rows = _preferences(recipe, str(reward.preferences))
        prompts = {row.id: row.prompt for row in rows}
        ids = read_json(run / "reward" / reward.title / PROMPTS)["training"]
        seen |= {prompt_key(prompts[each]) for each in ids}
    return seen


def comparisons_of(
    recipe: Recipe,
    config: Sources,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
    labels: str = SFT,
) -> list[Comparison]:
    """Positives against negatives, from the sources that the recipe declares.

    Args:
        recipe, run, models: of the run.
        config: the sources.
        folder: gets the samples of policies from elsewhere.
        train: training demonstrations.
        labels: the policy of whose samples ``preferences: golden`` labels pairs.
    """
    if config.preferences is not None:
        return labelled_pairs(recipe, config.preferences, run, train, labels)
    prompts = {row.id: row.prompt for row in train}
    positives, negatives = folder / "positives.jsonl", folder / "negatives.jsonl"
    ups = answers_by_prompt(recipe, config.positives, run, models, positives, train)
    downs = answers_by_prompt(recipe, config.negatives, run, models, negatives, train)
    return pair_sources(prompts, ups, downs)


def labelled_pairs(
    recipe: Recipe, preferences: str, run: Path, train: Sequence[Demonstration], labels: str = SFT
) -> list[Comparison]:
    """Preferences from a file, or pairs of a policy's samples that the golden reward labels."""
    if preferences == "golden":
        return _golden_preferences(recipe, run, train, labels)
    return pair_preferences(_preferences(recipe, preferences))


def answers_to(
    recipe: Recipe,
    source: str,
    run: Path,
    models: Models,
    folder: Path,
    train: Sequence[Demonstration],
    side: str = "positives",
) -> list[tuple[Prompt, Answer]]:
    """Every answer of one declared source to the training prompts, with its prompt.

    The samples of a policy from elsewhere go to a file of ``folder`` that is called as the side.
    """
    path = folder / f"{side}.jsonl"
    answers = answers_by_prompt(recipe, source, run, models, path, train)
    return [(row.prompt, answer) for row in train for answer in answers.get(row.id, ())]


def _preferences(recipe: Recipe, path: str) -> Sequence[Preference]:
    return read_preferences(path, skip_invalid=recipe.demonstrations.skip_invalid)


def answers_by_prompt(
    recipe: Recipe,
    source: str,
    run: Path,
    models: Models,
    path: Path,
    train: Sequence[Demonstration],
) -> Answers:
    """The answers of one declared source; those of a policy from elsewhere are sampled to path."""
    if source == "demonstrations":
        return answers_of_demonstrations(train)
    limit = recipe.rollouts.samples_per_prompt
    if source in (INITIAL, SFT):
        rollouts = read_rollouts(run / "rollouts" / f"{source}.jsonl")
        return answers_of_rollouts(rollout for rollout in rollouts if rollout.index < limit)
    policy = _asked(recipe, source, models)
    specs = [PromptSpec(row.id, row.prompt) for row in train[: recipe.rollouts.train_prompts]]
    write_rollouts(path, make_engine(recipe.rollouts), policy, specs, limit, recipe.seed)
    return answers_of_rollouts(read_rollouts(path))


def _asked(recipe: Recipe, source: str, models: Models) -> Policy:
    """A policy whose answers the run has not sampled yet."""
    if source.startswith(BASELINE):
        return models.policy(source)
    models.release()
    return Policy.load(source.removeprefix("policy:"), "policy", recipe.model.device)


def _golden_preferences(
    recipe: Recipe, run: Path, train: Sequence[Demonstration], policy: str
) -> list[Comparison]:
    """Pairs of a policy's samples labelled by the golden reward with Bradley-Terry noise."""
    rollouts = read_rollouts(run / "rollouts" / f"{policy}.jsonl")
    answers = answers_of_rollouts(rollouts)
    prompts = {row.id: row.prompt for row in train if row.id in answers}
    firsts = {key: [each[0]] for key, each in answers.items()}
    seconds = {key: [each[1]] for key, each in answers.items()}
    pairs = pair_sources(prompts, firsts, seconds)
    golden = main_golden(recipe)
    questions = [pair.prompt for pair in pairs]
    ups = golden.score(questions, [pair.positive.completion for pair in pairs])
    downs = golden.score(questions, [pair.negative.completion for pair in pairs])
    known = [
        (pair, (up, down))
        for pair, up, down in zip(pairs, ups, downs, strict=True)
        if up is not None and down is not None
    ]
    return label_pairs([pair for pair, _ in known], [values for _, values in known], recipe.seed)
