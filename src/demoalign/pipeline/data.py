"""The demonstrations stage: read, refuse what does not fit, split, store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.config import Recipe
from demoalign.demonstrations import (
    Demonstrations,
    Rejected,
    inspect,
    refuse_shared_prompts,
    too_long,
    without_shared_prompts,
    write_rejected,
)
from demoalign.demonstrations.render import render_many
from demoalign.demonstrations.split import prompt_key
from demoalign.errors import DataError
from demoalign.pipeline.resolve import BaseText, load_demonstrations
from demoalign.records import Demonstration, read_records, write_records
from demoalign.store import write_json

BATCH = 256
"""Rows that are rendered at the same time, to be counted."""


class TokenCounts:
    """A function from a demonstration to its lengths (prompt tokens, completion tokens).

    Each demonstration is rendered once; those announced by `add` many at a time.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[Demonstration, int, int]] = {}

    def __call__(self, row: Demonstration) -> tuple[int, int]:
        """The lengths of one."""
        if id(row) not in self._known:
            self.add([row])
        _, prompt, completion = self._known[id(row)]
        return prompt, completion

    def add(self, rows: Sequence[Demonstration]) -> None:
        """Count many."""
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            pairs = [(row.prompt, row.completion) for row in batch]
            for row, ids in zip(batch, render_many(self._tokenizer, pairs), strict=True):
                # The row is kept, so that no other can get its identity.
                self._known[id(row)] = (row, len(ids.prompt_ids), len(ids.completion_ids))


@dataclass(frozen=True)
class Data:
    """Demonstrations ready to train and test on, with what was refused."""

    train: tuple[Demonstration, ...]
    test: tuple[Demonstration, ...]
    whole: Demonstrations
    counts: TokenCounts


def prepare_data(recipe: Recipe, base: BaseText) -> Data:
    """Read and split the recipe's demonstrations, and take of both sides what it asks for.

    Raises:
        DataError: unusable rows without skip_invalid, prompts that are too long, prompts that
            stand in both train and test, or nothing left of the families of faults asked for.
    """
    counts = TokenCounts(base.tokenizer)
    whole, train, test = _split(recipe, base, counts)
    config = recipe.demonstrations
    train = _of_families("faults", config.faults, train)
    test = _of_families("test_faults", config.test_faults, test)
    return Data(train[: config.train_limit], test, whole, counts)


def _split(
    recipe: Recipe, base: BaseText, counts: TokenCounts
) -> tuple[Demonstrations, tuple[Demonstration, ...], tuple[Demonstration, ...]]:
    """Everything, what to train on and what to test on."""
    config = recipe.demonstrations
    whole = _drop_long(load_demonstrations(config, recipe.seed), recipe, base, counts)
    if config.test_source is None:
        split = whole.split(config.test_fraction, recipe.seed)
        return whole, split.train.rows, split.test.rows
    other = config.model_copy(update={"source": config.test_source, "limit": None})
    test = _drop_long(load_demonstrations(other, recipe.seed), recipe, base, counts)
    if not config.skip_invalid:
        refuse_shared_prompts(whole.rows, test.rows)
        return whole, whole.rows, test.rows
    kept = without_shared_prompts(whole.rows, test.rows)
    return whole, whole.rows, kept


def _of_families(
    key: str, families: Sequence[str] | None, rows: tuple[Demonstration, ...]
) -> tuple[Demonstration, ...]:
    """The demonstrations whose fault is of one of these families; all if none are named."""
    if families is None:
        return rows
    from demoalign.lab.faults import family_of

    found = tuple(row for row in rows if family_of(row.meta["fault"]) in families)
    if not found:
        raise DataError(
            f"demonstrations.{key}: none of {len(rows)} demonstrations is of "
            f"{', '.join(families)}; raise demonstrations.limit"
        )
    return found


def store_data(folder: Path, data: Data) -> None:
    """Write train.jsonl, test.jsonl, rejected.jsonl and summary.json."""
    write_records(folder / "train.jsonl", data.train)
    write_records(folder / "test.jsonl", data.test)
    write_rejected(folder / "rejected.jsonl", data.whole)
    summary = inspect([*data.train, *data.test], data.counts)
    write_json(
        folder / "summary.json",
        {
            "source": data.whole.source,
            "format": data.whole.format,
            "why": data.whole.why,
            "train": len(data.train),
            "test": len(data.test),
            "rejected": len(data.whole.rejected),
            **dataclasses.asdict(summary),
        },
    )


def read_data(folder: Path) -> tuple[list[Demonstration], list[Demonstration]]:
    """The stored (train, test) demonstrations."""
    return (
        read_records(folder / "train.jsonl", Demonstration),
        read_records(folder / "test.jsonl", Demonstration),
    )


def distinct_prompts(rows: Iterable[Demonstration], limit: int | None) -> list[Demonstration]:
    """The first demonstration of each distinct prompt: intervals need independent prompts."""
    first: dict[str, Demonstration] = {}
    for row in rows:
        first.setdefault(prompt_key(row.prompt), row)
    return list(first.values())[:limit]


def _drop_long(
    whole: Demonstrations, recipe: Recipe, base: BaseText, counts: TokenCounts
) -> Demonstrations:
    limit = base.prompt_limit(recipe)
    counts.add(whole.rows)
    problems = too_long(whole.rows, counts, limit)
    if not problems:
        return whole
    if not recipe.demonstrations.skip_invalid:
        raise DataError(
            f"{whole.source}: {len(problems)} of {len(whole)} prompts are longer than {limit} "
            f"tokens (demonstrations.max_prompt_tokens {recipe.demonstrations.max_prompt_tokens}; "
            f"context {base.context} less rollouts.max_new_tokens "
            f"{recipe.rollouts.max_new_tokens}); raise the limit, or pass --skip-invalid to go on "
            "without them",
            problems,
        )
    long = {problem.where: problem.what for problem in problems}
    kept = tuple(row for row in whole.rows if row.id not in long)
    if not kept:
        raise DataError(f"{whole.source}: every prompt is longer than {limit} tokens", problems)
    gone = tuple(
        Rejected(row.id, long[row.id], dataclasses.asdict(row))
        for row in whole.rows
        if row.id in long
    )
    return dataclasses.replace(
        whole,
        rows=kept,
        problems=(*whole.problems, *problems),
        rejected=(*whole.rejected, *gone),
    )
