"""The stages on test prompts: candidates, scores and choices, evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoalign.config import Recipe
from demoalign.demonstrations.render import render_completion
from demoalign.evaluation.golden import load_golden
from demoalign.evaluation.measured import Measured, as_grid
from demoalign.evaluation.metrics import all_metrics
from demoalign.pipeline.data import distinct_prompts, read_data
from demoalign.pipeline.models import Models
from demoalign.pipeline.training import train_samples
from demoalign.records import Demonstration, Rollout, Score, read_records, write_records
from demoalign.rollouts.engine import PromptSpec, make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import read_json, write_json, write_text

Array = NDArray[np.float64]
FILES = {"candidates": "sft.jsonl", "greedy": "sft-greedy.jsonl", "initial": "initial.jsonl"}
BASELINES = ("length", "mean-logprob", "sequence-logprob")
ORACLE = "golden"


def rollouts_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Sample both policies on the training prompts: what reward models compare."""
    train, _ = read_data(run / "demonstrations")
    specs = _specs(train[: recipe.rollouts.train_prompts])
    engine, seed = make_engine(recipe.rollouts), recipe.seed
    per_prompt = recipe.rollouts.samples_per_prompt
    write_rollouts(folder / "initial.jsonl", engine, models.initial(), specs, per_prompt, seed)
    write_rollouts(folder / "sft.jsonl", engine, models.sft(), specs, train_samples(recipe), seed)


def test_rollouts_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Sample both policies on the test prompts: candidates for best-of-n, and what to beat."""
    rows = test_rows(recipe, run)
    specs, engine, seed = _specs(rows), make_engine(recipe.rollouts), recipe.seed
    count = recipe.evaluation.initial_samples
    write_rollouts(folder / FILES["initial"], engine, models.initial(), specs, count, seed)
    sft, most = models.sft(), max(recipe.evaluation.sizes)
    write_rollouts(folder / FILES["greedy"], engine, sft, specs, 1, seed, greedy=True)
    write_rollouts(folder / FILES["candidates"], engine, sft, specs, most, seed)


def test_rows(recipe: Recipe, run: Path) -> list[Demonstration]:
    """One demonstration for each distinct test prompt, as many as the recipe asks for."""
    _, test = read_data(run / "demonstrations")
    return distinct_prompts(test, recipe.evaluation.prompts)


def best_of_n_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Score everything said on the test prompts with every selector; store the choices."""
    rows = test_rows(recipe, run)
    prompts = {row.id: row.prompt for row in rows}
    sampled = _read_sampled(run)
    said = [rollout for rollouts in sampled.values() for rollout in rollouts]
    ids = [row.id for row in rows] + [rollout.id for rollout in said]
    questions = [row.prompt for row in rows] + [prompts[r.prompt_id] for r in said]
    answers = [row.completion for row in rows] + [rollout.completion for rollout in said]
    finished = [True] * len(rows) + [rollout.finish_reason == "stop" for rollout in said]
    scores: list[Score] = []
    for config in recipe.reward:
        values = models.selector(config).score(questions, answers, finished)
        models.drop_rewards()
        scores += [Score(i, config.title, float(v)) for i, v in zip(ids, values, strict=True)]
    scores += [
        Score(rollout.id, name, value)
        for rollout in sampled["candidates"]
        for name, value in _baseline_scores(rollout).items()
    ]
    write_records(folder / "scores.jsonl", scores)
    selectors = [config.title for config in recipe.reward] + list(BASELINES)
    _store_choices(folder / "chosen.jsonl", sampled["candidates"], scores, selectors)


def evaluation_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Compute the golden rewards and every metric; store results.json and the report's data."""
    models.release()
    rows = test_rows(recipe, run)
    sampled = _read_sampled(run)
    scores = _score_table(read_records(run / "best-of-n" / "scores.jsonl", Score))
    golden = _golden_scores(recipe, rows, sampled)
    measured = _measure(recipe, run, rows, sampled, scores, golden)
    metrics = all_metrics(measured, recipe.evaluation.sizes, recipe.seed)
    heldout = [
        entry
        for config in recipe.reward
        for entry in read_json(run / "reward" / config.title / "heldout.json")
    ]
    plain = [dataclasses.asdict(metric) for metric in metrics]
    results = {"schema": 1, "run": recipe.name, "metrics": plain + heldout}
    write_json(folder / "results.json", results)
    if golden is not None:
        write_records(
            folder / "golden.jsonl", [Score(i, ORACLE, value) for i, value in golden.items()]
        )
    write_json(folder / "rewards.json", _rewards_by_source(recipe, rows, sampled, scores, golden))
    write_json(folder / "samples.json", _samples(recipe, rows, sampled, scores, golden, measured))


def _specs(rows: Sequence[Demonstration]) -> list[PromptSpec]:
    return [PromptSpec(row.id, row.prompt) for row in rows]


def _read_sampled(run: Path) -> dict[str, list[Rollout]]:
    return {source: read_rollouts(run / "rollouts-test" / name) for source, name in FILES.items()}


def _baseline_scores(rollout: Rollout) -> dict[str, float]:
    tokens = len(rollout.token_ids)
    return {
        "length": float(tokens),
        "mean-logprob": rollout.logprob / tokens,
        "sequence-logprob": rollout.logprob,
    }


def _store_choices(
    path: Path, candidates: Sequence[Rollout], scores: Sequence[Score], selectors: Sequence[str]
) -> None:
    """One line for each prompt and selector: the best of all candidates."""
    import json

    table = _score_table(scores)
    by_prompt: dict[str, list[Rollout]] = {}
    for rollout in candidates:
        by_prompt.setdefault(rollout.prompt_id, []).append(rollout)
    lines = []
    for prompt_id, rollouts in by_prompt.items():
        for selector in selectors:
            best = max(rollouts, key=lambda rollout, s=selector: table[s][rollout.id])
            choice = {"prompt_id": prompt_id, "selector": selector, "n": len(rollouts)}
            line = {**choice, "rollout_id": best.id, "completion": best.completion}
            lines.append(json.dumps(line, ensure_ascii=False))
    write_text(path, "".join(line + "\n" for line in lines))


def _score_table(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.value is not None:
            table.setdefault(score.reward_model, {})[score.rollout_id] = score.value
    return table


def _golden_scores(
    recipe: Recipe, rows: Sequence[Demonstration], sampled: Mapping[str, Sequence[Rollout]]
) -> dict[str, float | None] | None:
    """Golden reward of everything said on the test prompts, by rollout or demonstration id."""
    if recipe.evaluation.golden is None:
        return None
    golden = load_golden(recipe.evaluation.golden, recipe.model.device)
    prompts = {row.id: row.prompt for row in rows}
    said = [rollout for rollouts in sampled.values() for rollout in rollouts]
    ids = [row.id for row in rows] + [rollout.id for rollout in said]
    questions = [row.prompt for row in rows] + [prompts[r.prompt_id] for r in said]
    answers = [row.completion for row in rows] + [rollout.completion for rollout in said]
    return dict(zip(ids, golden.score(questions, answers), strict=True))


def _measure(
    recipe: Recipe,
    run: Path,
    rows: Sequence[Demonstration],
    sampled: Mapping[str, Sequence[Rollout]],
    scores: Mapping[str, Mapping[str, float]],
    golden: Mapping[str, float | None] | None,
) -> Measured:
    from transformers import AutoTokenizer

    count = len(rows)
    tokenizer = AutoTokenizer.from_pretrained(str(run / "sft"))
    lengths = [len(render_completion(tokenizer, row.prompt, row.completion)) for row in rows]
    tokens = {
        source: as_grid([float(len(r.token_ids)) for r in rollouts], count)
        for source, rollouts in sampled.items()
    }
    cut = {
        source: as_grid([float(r.finish_reason == "length") for r in rollouts], count)
        for source, rollouts in sampled.items()
    }
    tokens["demonstrations"] = as_grid([float(length) for length in lengths], count)
    cut["demonstrations"] = np.zeros((count, 1))
    names = tuple(config.title for config in recipe.reward)
    candidates = sampled["candidates"]
    selectors = {
        name: as_grid([scores[name][r.id] for r in candidates], count)
        for name in (*names, *BASELINES)
    }
    grids = None
    if golden is not None:
        grids = {
            source: as_grid([golden[r.id] for r in rollouts], count)
            for source, rollouts in sampled.items()
        }
        grids["demonstrations"] = as_grid([golden[row.id] for row in rows], count)
        selectors[ORACLE] = np.nan_to_num(grids["candidates"], nan=-np.inf)
    return Measured(tuple(row.id for row in rows), selectors, names, tokens, cut, grids)


def _rewards_by_source(
    recipe: Recipe,
    rows: Sequence[Demonstration],
    sampled: Mapping[str, Sequence[Rollout]],
    scores: Mapping[str, Mapping[str, float]],
    golden: Mapping[str, float | None] | None,
) -> dict[str, Any]:
    """Scores, lengths and golden rewards of each source, for histograms and scatter plots."""
    tokens = {r.id: len(r.token_ids) for rollouts in sampled.values() for r in rollouts}
    sources = {
        "initial": [rollout.id for rollout in sampled["initial"]],
        "sft": [rollout.id for rollout in sampled["candidates"]],
        "demonstrations": [row.id for row in rows],
    }
    return {
        config.title: {
            source: {
                "values": [scores[config.title][each] for each in ids],
                "tokens": [tokens.get(each) for each in ids],
                "golden": [None if golden is None else golden[each] for each in ids],
            }
            for source, ids in sources.items()
        }
        for config in recipe.reward
    }


def _samples(
    recipe: Recipe,
    rows: Sequence[Demonstration],
    sampled: Mapping[str, Sequence[Rollout]],
    scores: Mapping[str, Mapping[str, float]],
    golden: Mapping[str, float | None] | None,
    measured: Measured,
) -> list[dict[str, Any]]:
    """Some test prompts with all that was said on them, for the report's browser."""
    most = measured.tokens["candidates"].shape[1]
    known = golden or {}
    selectors = [name for name in measured.selectors if name != ORACLE]
    found = []
    for number, row in enumerate(rows[: recipe.evaluation.browse]):
        candidates = sampled["candidates"][number * most : (number + 1) * most]
        greedy = sampled["greedy"][number]
        found.append(
            {
                "prompt_id": row.id,
                "prompt": row.prompt,
                "demonstration": row.completion,
                "demonstration_golden": known.get(row.id),
                "greedy": {"completion": greedy.completion, "golden": known.get(greedy.id)},
                "candidates": [
                    {
                        "completion": rollout.completion,
                        "tokens": len(rollout.token_ids),
                        "finish_reason": rollout.finish_reason,
                        "golden": known.get(rollout.id),
                        "scores": {name: scores[name][rollout.id] for name in selectors},
                    }
                    for rollout in candidates
                ],
                "chosen": {
                    name: int(measured.selectors[name][number].argmax()) for name in selectors
                },
            }
        )
    return found
