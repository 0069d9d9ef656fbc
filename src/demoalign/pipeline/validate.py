"""Checking a recipe and its data without training anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demoalign.config import Recipe
from demoalign.demonstrations import DataSummary, Lengths, inspect
from demoalign.demonstrations.quality.look import DataReport
from demoalign.demonstrations.render import Rendered, render
from demoalign.demonstrations.split import prompt_key
from demoalign.evaluation.golden import load_golden
from demoalign.pipeline.data import Data, prepare_data
from demoalign.pipeline.data_report import look_at
from demoalign.pipeline.estimate import estimate_bytes, estimate_seconds, model_sizes
from demoalign.pipeline.pipeline import Pipeline
from demoalign.pipeline.preferring import read_set, sets_of
from demoalign.pipeline.resolve import BaseText, check_inputs
from demoalign.pipeline.served import check_served
from demoalign.pipeline.work import Sizes
from demoalign.records import Demonstration


@dataclass(frozen=True)
class Validation:
    """What was found.

    Attributes:
        facts: label and text.
        warnings: what may surprise, but is allowed.
        example: text of each token of one demonstration, and whether it is learned.
        plan: stage, state and estimated time.
        summary: of the data.
        memory_bytes: estimated peak.
        seconds: estimated time of each stage.
        data: the demonstrations.
        report: on those that are trained on.
    """

    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    example: tuple[tuple[str, bool], ...]
    plan: tuple[tuple[str, str, str], ...]
    summary: DataSummary
    memory_bytes: int
    seconds: dict[str, float]
    data: Data
    report: DataReport

    def as_json(self) -> dict[str, Any]:
        """Plain objects for --json."""
        return {
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
            "example": [{"text": text, "learned": learned} for text, learned in self.example],
            "plan": [{"stage": stage, "state": state} for stage, state, _ in self.plan],
            "summary": dataclasses.asdict(self.summary),
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
        }


def validate(recipe: Recipe, against: Sequence[str] = ()) -> Validation:
    """Check a recipe: model, data, lengths, sources, server, golden reward, plan and cost.

    Args:
        recipe: of the run.
        against: further evaluation sets whose prompts must not be trained on.

    Raises:
        DemoalignError: something would stop the run.
    """
    pipeline = Pipeline(recipe)
    recipe, base = pipeline.recipe, pipeline.base
    data = prepare_data(recipe, base)
    rows = [*data.train, *data.test]
    room = recipe.rollouts.max_new_tokens
    summary = inspect(rows, data.counts, max_completion_tokens=room)
    check_inputs(recipe)
    plan = pipeline.plan()
    served = check_served(recipe, dict(plan)["sft"])
    for config in recipe.evaluation.goldens:
        golden = load_golden(config.source, recipe.model.device, config.chat)
        golden.score([rows[0].prompt], [rows[0].completion])
    first = data.train[0]
    rendered = render(base.tokenizer, first.prompt, first.completion)
    sizes = _sizes(recipe, base, data, summary)
    seconds = estimate_seconds(sizes, recipe)
    memory = estimate_bytes(sizes, recipe, base.config)
    report = look_at(recipe, data, base.tokenizer.all_special_tokens, against)
    return Validation(
        facts=_facts(recipe, base, data, summary, sizes, memory),
        warnings=(*_warnings(recipe, base, data, summary), *report_warnings(report), *served),
        example=_example(base.tokenizer, rendered, recipe.sft.max_length),
        plan=tuple(
            (name, "up to date" if current else "to run", _duration(seconds.get(name, 0.0)))
            for name, current in plan
        ),
        summary=summary,
        memory_bytes=memory,
        seconds=seconds,
        data=data,
        report=report,
    )


def _sizes(recipe: Recipe, base: BaseText, data: Data, summary: DataSummary) -> Sizes:
    whole, adapter = model_sizes(base.config, recipe)
    prompt, completion = summary.prompt_tokens, summary.completion_tokens
    return Sizes(
        whole,
        adapter,
        len(data.train),
        len(data.test),
        prompt.median if prompt else 0.0,
        completion.median if completion else 0.0,
        _answers(recipe),
    )


def _answers(recipe: Recipe) -> dict[str, int]:
    """How many answers each preference set has."""
    found = {}
    for name, source in sets_of(recipe).items():
        choices = read_set(recipe, source).choices
        found[name] = sum(len(each.chosen) + len(each.rejected) for each in choices)
    return found


def _facts(
    recipe: Recipe,
    base: BaseText,
    data: Data,
    summary: DataSummary,
    sizes: Sizes,
    memory: int,
) -> tuple[tuple[str, str], ...]:
    why = f" ({data.whole.why})" if data.whole.why else ""
    trained = f"{recipe.model.adapter.kind}, {sizes.adapter_parameters:,} trained parameters"
    return (
        ("recipe", f"{recipe.name} -> {recipe.folder}"),
        ("model", f"{recipe.model.base}, {sizes.parameters:,} parameters, {trained}"),
        ("demonstrations", f"{data.whole.source}: {data.whole.format}{why}"),
        ("rows", f"{len(data.train)} train, {len(data.test)} test, {len(data.whole.rejected)} bad"),
        ("distinct prompts", f"{summary.distinct_prompts} of {summary.rows} rows"),
        ("exact duplicates", str(summary.exact_duplicates)),
        ("prompts in train and test", str(_shared_prompts(data))),
        ("prompt tokens", _lengths(summary.prompt_tokens)),
        ("completion tokens", _lengths(summary.completion_tokens)),
        ("cut by max_new_tokens", f"{summary.completions_too_long} of {summary.rows}"),
        ("context", "unlimited" if base.context is None else f"{base.context} tokens"),
        ("estimated memory", f"{memory / 2**30:.2f} GiB"),
    )


def _runs_together(row: Demonstration) -> bool:
    return (
        isinstance(row.prompt, str)
        and not row.prompt[-1:].isspace()
        and not row.completion[:1].isspace()
    )


def _shared_prompts(data: Data) -> int:
    test = {prompt_key(row.prompt) for row in data.test}
    return len(test & {prompt_key(row.prompt) for row in data.train})


def _warnings(recipe: Recipe, base: BaseText, data: Data, summary: DataSummary) -> tuple[str, ...]:
    found = []
    if data.whole.rejected:
        found.append(f"{len(data.whole.rejected)} rows cannot be used and are left out")
    if summary.exact_duplicates:
        found.append(f"{summary.exact_duplicates} rows repeat an earlier row exactly")
    if summary.completions_too_long:
        found.append(
            f"{summary.completions_too_long} completions are longer than rollouts.max_new_tokens "
            f"{recipe.rollouts.max_new_tokens}: the policy cannot say them whole"
        )
    longest = summary.prompt_tokens and summary.completion_tokens
    if longest and summary.prompt_tokens and summary.completion_tokens:
        total = summary.prompt_tokens.maximum + summary.completion_tokens.maximum
        room = min(recipe.sft.max_length, base.context or recipe.sft.max_length)
        if total > room:
            found.append(
                f"the longest row may have {total:.0f} tokens, sft.max_length and the context "
                f"leave room for {room}: cut rows do not teach where to end"
            )
    joined = [row for row in data.train if _runs_together(row)]
    if 2 * len(joined) > len(data.train):
        seam = f"{str(joined[0].prompt)[-12:]}{joined[0].completion[:12]}"
        found.append(
            f"prompt and completion run together in {len(joined)} of {len(data.train)} rows, as in "
            f"{seam!r}: begin completions, or end prompts, with a blank or a line break"
        )
    if recipe.evaluation.golden is None:
        found.append("no golden reward: the report will show only what the reward models think")
    if len(data.test) < 30:
        found.append(f"only {len(data.test)} test rows: intervals will be wide")
    return tuple(found)


NEAR_SHARE = 0.05
"""Share of near-duplicates from which on there is a warning."""


def report_warnings(report: DataReport) -> tuple[str, ...]:
    """What the data report found that may surprise."""
    found = []
    if leaks := report.count("leak"):
        found.append(f"{leaks} completions hold marks of a template, which would be learned")
    if pairs := report.count("pair"):
        found.append(f"{pairs} demonstrations come from pairs that do not share a prompt or differ")
    for overlap in report.overlaps:
        if overlap.same or overlap.near:
            found.append(
                f"{overlap.same} of {overlap.prompts} prompts of {overlap.name} are trained on "
                f"word for word, {overlap.near} nearly"
            )
    near = report.count("near-duplicate")
    if near > NEAR_SHARE * report.rows:
        found.append(f"{near} of {report.rows} rows nearly repeat an earlier one")
    return tuple(found)


def _example(tokenizer: Any, rendered: Rendered, max_length: int) -> tuple[tuple[str, bool], ...]:
    ids = rendered.ids[:max_length]
    prompt = len(rendered.prompt_ids)
    return tuple(
        (tokenizer.decode([token], skip_special_tokens=False), number >= prompt)
        for number, token in enumerate(ids)
    )


def _lengths(lengths: Lengths | None) -> str:
    if lengths is None:
        return "none"
    return (
        f"median {lengths.median:.0f}, 95 % below {lengths.p95:.0f}, longest {lengths.maximum:.0f}"
    )


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "seconds"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    if seconds < 7200:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
