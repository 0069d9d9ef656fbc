"""Best-of-N on a user's own prompts with what a run has learned."""

from __future__ import annotations

import json
from pathlib import Path

from demoalign.config import (
    EXTRAPOLATED,
    MAKING,
    BestOfNConfig,
    ExtrapolateConfig,
    Recipe,
    trained_policy,
)
from demoalign.demonstrations.fields import RowError
from demoalign.demonstrations.formats import prompt_of
from demoalign.errors import DataError, Problem, RecipeError
from demoalign.improve.best_of_n import best_of_n
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.sources import baseline_sources, improved_sources
from demoalign.policies.policy import SFT
from demoalign.records import Prompt
from demoalign.rollouts.engine import AnyPolicy
from demoalign.store import write_text


def answer_prompts(
    recipe: Recipe, prompts: Path, output: Path, n: int, selector: str | None, policy: str = SFT
) -> dict[str, int]:
    """Answer each prompt with the best of n samples of a policy: sft, improved, or a baseline.

    Returns:
        How many ``answers``, ``tokens_sampled`` for them, and how many of the completions
        speculative rejection stopped (``rejected``).

    Raises:
        RecipeError: no reward model or no policy of that name.
        DataError: a line holds no prompt.
    """
    titles = [config.title for config in recipe.reward]
    name = selector or titles[0]
    if name not in titles:
        raise RecipeError(f"--selector: must be one of {', '.join(titles)}, found {name!r}")
    others = improved_sources(recipe) + baseline_sources(recipe)
    known = [SFT, *dict.fromkeys(source.policy for source in others)]
    if policy not in known:
        raise RecipeError(
            f"--policy: must be one of {', '.join(known)}, found {policy!r}; "
            f"improve.method ({', '.join(MAKING)}), improve.distil and baselines make further ones"
        )
    questions = read_prompts(prompts)
    pipeline = Pipeline(recipe)
    for target in _needs(recipe, policy):
        pipeline.advance(target)
    config, improve = recipe.reward[titles.index(name)], recipe.improve
    sampled, judge = _policy(pipeline, policy), pipeline.models.selector(config)
    choices = best_of_n(
        sampled,
        judge,
        questions,
        n,
        seed=recipe.seed,
        rollouts=recipe.rollouts,
        rejection=improve.rejection if isinstance(improve, BestOfNConfig) else None,
    )
    lines = [
        json.dumps(
            {
                "prompt": choice.prompt,
                "completion": choice.completion,
                "policy": policy,
                "selector": name,
                "n": n,
                "score": choice.score,
                "tokens_sampled": choice.tokens,
            },
            ensure_ascii=False,
        )
        for choice in choices
    ]
    write_text(output, "".join(line + "\n" for line in lines))
    return {
        "answers": len(lines),
        "tokens_sampled": sum(choice.tokens for choice in choices),
        "rejected": sum(score is None for choice in choices for score in choice.scores),
    }


def _needs(recipe: Recipe, policy: str) -> tuple[str, ...]:
    """The last stages that must be done before a policy can be sampled, and rewards can choose."""
    improve = recipe.improve
    if policy in _baselines(recipe):  # those that a reward compares come before the rewards
        return ("reward", "baseline")
    if policy == trained_policy(improve):
        return ("policy",)
    chooses = isinstance(improve, ExtrapolateConfig) and improve.strength == "auto"
    return ("strength",) if policy == EXTRAPOLATED and chooses else ("reward",)


def _policy(pipeline: Pipeline, name: str) -> AnyPolicy:
    improve = pipeline.recipe.improve
    if name == EXTRAPOLATED and isinstance(improve, ExtrapolateConfig):
        return pipeline.models.extrapolated(improve)
    if name in _baselines(pipeline.recipe):
        return pipeline.models.baseline(name)
    if name == trained_policy(pipeline.recipe.improve):
        return pipeline.models.improved(name)
    return pipeline.models.sft()


def _baselines(recipe: Recipe) -> set[str]:
    return {each.name for each in recipe.baselines}


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from JSONL: each line a string, messages, or an object with ``prompt``.

    Raises:
        DataError: naming every line that holds no prompt.
    """
    if not path.is_file():
        raise DataError(f"--prompts {path}: no such file ({path.absolute()})")
    found: list[Prompt] = []
    problems = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
            given = value.get("prompt") if isinstance(value, dict) else value
            found.append(prompt_of({"prompt": given}))
        except RowError as error:
            problems.append(Problem(f"{path.name}:{number}", str(error)))
        except ValueError as error:
            problems.append(Problem(f"{path.name}:{number}", f"not JSON in UTF-8 ({error})"))
    if problems or not found:
        total = len(problems) + len(found)
        raise DataError(f"{path}: {len(problems)} of {total} prompts cannot be used", problems)
    return found
