"""Best-of-N on a user's own prompts with what a run has learned."""

from __future__ import annotations

import json
from pathlib import Path

from demoalign.config import BestOfNConfig, Recipe
from demoalign.demonstrations.fields import RowError
from demoalign.demonstrations.formats import prompt_of
from demoalign.errors import DataError, Problem, RecipeError
from demoalign.improve.best_of_n import best_of_n
from demoalign.pipeline.pipeline import Pipeline
from demoalign.records import Prompt
from demoalign.store import write_text


def answer_prompts(
    recipe: Recipe, prompts: Path, output: Path, n: int, selector: str | None
) -> dict[str, int]:
    """Answer each prompt with the best of n samples of the SFT policy.

    Returns:
        How many ``answers``, ``tokens_sampled`` for them, and how many of the completions
        speculative rejection stopped (``rejected``).

    Raises:
        RecipeError: no reward model of that name.
        DataError: a line holds no prompt.
    """
    titles = [config.title for config in recipe.reward]
    name = selector or titles[0]
    if name not in titles:
        raise RecipeError(f"--selector: must be one of {', '.join(titles)}, found {name!r}")
    questions = read_prompts(prompts)
    pipeline = Pipeline(recipe)
    pipeline.advance("reward")
    config, improve = recipe.reward[titles.index(name)], recipe.improve
    policy, judge = pipeline.models.sft(), pipeline.models.selector(config)
    choices = best_of_n(
        policy,
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
