"""The records that pass between stages, and their form on disk (one JSON object a line).

All are frozen. A missing number is ``None`` and never 0. Example of a stored rollout::

    {"id": "p7/sft/3", "prompt_id": "p7", "index": 3, "completion": " Turn it off.",
     "token_ids": [12, 40, 7, 2], "logprob": -3.21, "finish_reason": "stop",
     "policy": "sft", "seed": 0, "token_logprobs": [-1.5, -0.9, -0.8, -0.01],
     "sampling_logprobs": null}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from demoalign.errors import StoreError

Message = Mapping[str, str]
Prompt = str | list[dict[str, str]]
"""A prompt is plain text, or chat messages ``[{"role": ..., "content": ...}, ...]``."""

FinishReason = Literal["stop", "length", "rejected"]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt with one good answer.

    Attributes:
        id: unique within a data set and stable between runs.
        prompt: text or chat messages.
        completion: the answer's text, without any end-of-sequence marker.
        meta: anything else the source's row carried.
    """

    id: str
    prompt: Prompt
    completion: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a preferred and a dispreferred answer."""

    id: str
    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion sampled from a policy.

    Attributes:
        id: ``prompt_id/policy/index``; index ``greedy`` for deterministic decoding.
        prompt_id: the demonstration whose prompt was answered.
        index: number of the sample for this prompt, from 0; -1 for greedy.
        completion: the text, without the end-of-sequence token.
        token_ids: sampled ids; the last one is the end-of-sequence token if the policy ended.
        logprob: sum over ``token_ids`` of log-probability (nats) under the policy itself,
            at temperature 1 and without truncation, whatever was used to sample; None if the
            engine was not told it.
        finish_reason: ``stop`` (the policy ended, or a stop string came), ``length`` (cut at
            max_new_tokens) or ``rejected`` (cut by speculative rejection).
        policy: name of the policy (``initial``, ``sft``, ...).
        seed: the run's seed.
        token_logprobs: the terms of ``logprob``, one for each of ``token_ids``.
        sampling_logprobs: the same under the distribution that was sampled from, after
            temperature, truncation and min_new_tokens; None where that is the policy itself,
            for greedy decoding, and where the engine was not told them (``vllm``, ``openai``).
    """

    id: str
    prompt_id: str
    index: int
    completion: str
    token_ids: list[int]
    logprob: float | None
    finish_reason: FinishReason
    policy: str
    seed: int
    token_logprobs: list[float] | None = None
    sampling_logprobs: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One reward of one rollout (or demonstration); ``value`` is None if unscored."""

    rollout_id: str
    reward_model: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number of ``results.json``.

    Attributes:
        metric: what was measured, such as ``golden_reward``.
        policy: whose completions.
        selector: ``none`` for plain samples, ``greedy`` for deterministic decoding, else the
            reward model or baseline that chose among ``n``.
        n: completions per prompt that the selector chose from.
        value: the number, or None with ``reason``.
        ci95: 95 % interval, or None.
        count: units averaged over (prompts, or pairs).
        seed: the run's seed.
        unit: what ``value`` is in.
        against: for paired comparisons, ``policy/selector/n`` of the other side.
        reason: why ``value`` is None.
    """

    metric: str
    policy: str
    selector: str
    n: int
    value: float | None
    ci95: tuple[float, float] | None
    count: int
    seed: int
    unit: str
    against: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Make the interval a tuple, also when it was read from JSON as a list."""
        if self.ci95 is not None:
            low, high = self.ci95
            object.__setattr__(self, "ci95", (low, high))


Record = TypeVar("Record", Demonstration, Preference, Rollout, Score, Metric)


def to_line(record: Demonstration | Preference | Rollout | Score | Metric) -> str:
    """One line of JSON (UTF-8, no newline) that holds the record."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records to ``path``, one JSON object a line, whole or not at all; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(to_line(record) + "\n")
                count += 1
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read a file that `write_records` wrote.

    Raises:
        StoreError: the file cannot be read, or a line is not a JSON object with exactly the
            record's fields, or holds a NaN.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run its stage again.") from error
    if not lines[-1]:
        lines.pop()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(kind(**json.loads(line.decode(), parse_constant=_refuse_constant)))
        except (ValueError, TypeError) as error:
            shown = line.decode(errors="replace")[:80]
            raise StoreError(
                f"{path}:{number}: expected a {kind.__name__} object, found {shown!r} "
                f"({error}). Delete the file's folder to have its stage run again."
            ) from error
    return records


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
