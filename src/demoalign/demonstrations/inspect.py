"""What is in a data set, before anything is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from demoalign.demonstrations.split import prompt_key
from demoalign.errors import Problem
from demoalign.records import Demonstration, Prompt

CountTokens = Callable[[Demonstration], tuple[int, int]]
"""A demonstration's lengths (tokens of the prompt, tokens of the completion)."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Quantiles of a length, interpolated linearly between neighbours."""

    minimum: float
    median: float
    p95: float
    p99: float
    maximum: float


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What `inspect` found. A length or a count that was not asked for is None.

    Attributes:
        rows: demonstrations.
        distinct_prompts: how many different prompts they have.
        exact_duplicates: rows whose prompt and completion stood in an earlier row.
        conflicting_prompts: prompts with more than one completion.
        chat: rows whose prompt is chat messages.
        text: rows whose prompt is plain text.
        prompt_characters: lengths of the prompts, in characters.
        completion_characters: lengths of the completions, in characters.
        prompt_tokens: lengths of the prompts, in tokens.
        completion_tokens: lengths of the completions, in tokens.
        prompts_too_long: rows whose prompt has more than ``max_prompt_tokens``.
        completions_too_long: rows whose completion has more than ``max_completion_tokens``,
            and so would be cut.
    """

    rows: int
    distinct_prompts: int
    exact_duplicates: int
    conflicting_prompts: int
    chat: int
    text: int
    prompt_characters: Lengths | None
    completion_characters: Lengths | None
    prompt_tokens: Lengths | None = None
    completion_tokens: Lengths | None = None
    prompts_too_long: int | None = None
    completions_too_long: int | None = None


def inspect(
    demonstrations: Iterable[Demonstration],
    count_tokens: CountTokens | None = None,
    *,
    max_prompt_tokens: int | None = None,
    max_completion_tokens: int | None = None,
) -> DataSummary:
    """Summarise demonstrations: repetitions, kinds and lengths.

    Args:
        demonstrations: any number.
        count_tokens: a demonstration's (prompt, completion) lengths; without it no tokens.
        max_prompt_tokens: with ``count_tokens``, count the prompts that are longer.
        max_completion_tokens: with ``count_tokens``, count the completions that are longer.
    """
    rows = list(demonstrations)
    completions: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        completions[prompt_key(row.prompt)][row.completion] += 1
    chat = sum(not isinstance(row.prompt, str) for row in rows)
    tokens = [count_tokens(row) for row in rows] if count_tokens else []
    prompt_tokens = [prompt for prompt, _ in tokens]
    completion_tokens = [completion for _, completion in tokens]
    return DataSummary(
        rows=len(rows),
        distinct_prompts=len(completions),
        exact_duplicates=len(rows) - sum(len(each) for each in completions.values()),
        conflicting_prompts=sum(len(each) > 1 for each in completions.values()),
        chat=chat,
        text=len(rows) - chat,
        prompt_characters=lengths_of([characters_of(row.prompt) for row in rows]),
        completion_characters=lengths_of([len(row.completion) for row in rows]),
        prompt_tokens=lengths_of(prompt_tokens),
        completion_tokens=lengths_of(completion_tokens),
        prompts_too_long=_longer(prompt_tokens, max_prompt_tokens) if count_tokens else None,
        completions_too_long=(
            _longer(completion_tokens, max_completion_tokens) if count_tokens else None
        ),
    )


def too_long(
    demonstrations: Iterable[Demonstration], count_tokens: CountTokens, max_prompt_tokens: int
) -> list[Problem]:
    """A problem for each demonstration whose prompt is too long; ``where`` is its id."""
    problems = []
    for row in demonstrations:
        length, _ = count_tokens(row)
        if length > max_prompt_tokens:
            problems.append(
                Problem(
                    row.id,
                    f"prompt: at most {max_prompt_tokens} tokens (max_prompt_tokens), "
                    f"found {length}",
                )
            )
    return problems


def characters_of(prompt: Prompt) -> int:
    """Length of a prompt's text; of chat messages, of their contents together."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(message["content"]) for message in prompt)


def _longer(lengths: Sequence[int], limit: int | None) -> int | None:
    return None if limit is None else sum(length > limit for length in lengths)


def lengths_of(values: Sequence[int]) -> Lengths | None:
    """Quantiles of lengths; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return Lengths(*(_quantile(ordered, q) for q in (0.0, 0.5, 0.95, 0.99, 1.0)))


def _quantile(ordered: Sequence[int], q: float) -> float:
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
