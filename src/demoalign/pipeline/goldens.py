"""Golden rewards of what was said on the test prompts, whole and cut to one length.

One golden reward is loaded at a time. A completion is scored again after cutting only if it is
longer than the length, so that the length-controlled evaluation costs at most as much again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demoalign.config import Recipe
from demoalign.demonstrations.render import decode_completion, render_completion
from demoalign.evaluation.golden import GoldenReward, load_golden
from demoalign.pipeline.memory import give_back
from demoalign.records import Demonstration, Prompt, Rollout, Score, read_records, write_records

ORACLE = "golden"
CUT = "_cut"

Golden = Mapping[str, float | None]
"""Golden reward by id of a rollout or demonstration, None where it was not scored."""

Goldens = Mapping[str, Golden]
"""The same by suffix of the metrics' names: "", ``:NAME``, ``_cut`` and ``_cut:NAME``."""


def suffixes(recipe: Recipe) -> dict[str, str]:
    """Suffix of every golden reward's metrics by its name; the main one's is empty."""
    titles = [golden.title for golden in recipe.evaluation.goldens]
    return {title: f":{title}" if number else "" for number, title in enumerate(titles)}


def main_golden(recipe: Recipe) -> GoldenReward:
    """The main golden reward of a recipe that has one."""
    golden = recipe.evaluation.main_golden
    assert golden is not None
    return load_golden(golden.source, recipe.model.device, golden.chat)


def completion_lengths(run: Path, rows: Sequence[Demonstration]) -> list[int]:
    """Tokens of each demonstration, its end included."""
    tokenizer = tokenizer_of(run)
    return [len(render_completion(tokenizer, row.prompt, row.completion)) for row in rows]


def tokenizer_of(run: Path) -> Any:
    """The tokenizer of a run's policies."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(run / "sft"))


def length_limit(recipe: Recipe, lengths: Sequence[int]) -> int | None:
    """Tokens after which completions are cut, the end token counted; None for no cutting.

    Args:
        recipe: its ``evaluation.length``.
        lengths: of the demonstrations on the test prompts.
    """
    wanted = recipe.evaluation.length
    if wanted is None or not recipe.evaluation.goldens or not lengths:
        return None
    return math.ceil(sum(lengths) / len(lengths)) if isinstance(wanted, str) else wanted


def score_goldens(
    recipe: Recipe,
    run: Path,
    rows: Sequence[Demonstration],
    sampled: Mapping[str, Sequence[Rollout]],
) -> dict[str, dict[str, float | None]]:
    """Every golden reward of everything said on the test prompts, by suffix and id."""
    if not recipe.evaluation.goldens:
        return {}
    prompts = {row.id: row.prompt for row in rows}
    said = [rollout for rollouts in sampled.values() for rollout in rollouts]
    ids = [row.id for row in rows] + [rollout.id for rollout in said]
    questions = [row.prompt for row in rows] + [prompts[r.prompt_id] for r in said]
    answers = [row.completion for row in rows] + [rollout.completion for rollout in said]
    limit = length_limit(recipe, completion_lengths(run, rows))
    shorter = {} if limit is None else cut_answers(tokenizer_of(run), rows, said, limit)
    cut = [
        (question, shorter[i]) for i, question in zip(ids, questions, strict=True) if i in shorter
    ]
    found: dict[str, dict[str, float | None]] = {}
    for config, suffix in zip(recipe.evaluation.goldens, suffixes(recipe).values(), strict=True):
        golden = load_golden(config.source, recipe.model.device, config.chat)
        whole = dict(zip(ids, golden.score(questions, answers), strict=True))
        found[suffix] = whole
        if limit is not None:
            again = golden.score([each for each, _ in cut], [text for _, text in cut])
            found[CUT + suffix] = {**whole, **dict(zip(shorter, again, strict=True))}
        del golden
        give_back()
    return found


def cut_answers(
    tokenizer: Any, rows: Sequence[Demonstration], said: Sequence[Rollout], limit: int
) -> dict[str, str]:
    """The first ``limit`` tokens, as text, of those completions that have more; by id, in order."""
    prompts = {row.id: row.prompt for row in rows}
    tokens: list[tuple[str, Prompt, list[int]]] = [
        (row.id, row.prompt, render_completion(tokenizer, row.prompt, row.completion))
        for row in rows
    ]
    tokens += [(rollout.id, prompts[rollout.prompt_id], rollout.token_ids) for rollout in said]
    return {
        i: decode_completion(tokenizer, prompt, list(ids[:limit]))
        for i, prompt, ids in tokens
        if len(ids) > limit
    }


def store_goldens(path: Path, goldens: Goldens) -> None:
    """Write golden rewards as scores of ``golden``, ``golden:NAME``, ``golden_cut``, ..."""
    scores = [
        Score(i, ORACLE + suffix, value)
        for suffix, golden in goldens.items()
        for i, value in golden.items()
    ]
    write_records(path, scores)


def read_goldens(path: Path) -> dict[str, dict[str, float | None]]:
    """What `store_goldens` wrote; nothing if there is no such file."""
    found: dict[str, dict[str, float | None]] = {}
    for score in read_records(path, Score) if path.is_file() else []:
        suffix = score.reward_model.removeprefix(ORACLE)
        found.setdefault(suffix, {})[score.rollout_id] = score.value
    return found
