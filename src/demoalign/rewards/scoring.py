"""Scores of many completions by several reward models, computing nothing twice.

Heads on the same hidden states share a forward pass, completions of one prompt share its keys and
values, equal completions share their score, and what sampling computed already is not computed
again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.demonstrations.render import render_completions, render_prompt
from demoalign.errors import EvaluationError
from demoalign.policies.last_hidden import Row, last_hidden
from demoalign.processes import gather, parts, rank
from demoalign.progress import meter
from demoalign.records import Prompt
from demoalign.rewards.losses import deviation
from demoalign.rewards.scorers import Scorer, SharedScorer

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Rewards and V of Eq. 15, both (B,)."""

Judged = tuple[Tensor, Tensor | None]


class Scoring(Protocol):
    """What is needed of a reward model."""

    @property
    def name(self) -> str:
        """Label of its scores."""
        ...

    @property
    def scorer(self) -> Scorer:
        """The network."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Of the network."""
        ...

    @property
    def ends_answers(self) -> bool:
        """Whether a finished answer is read with its end token."""
        ...


class Answer(NamedTuple):
    """A completion to be scored."""

    prompt: Prompt
    completion: str
    finished: bool

    @property
    def key(self) -> tuple[str, str, bool]:
        """Equal for equal answers to equal prompts."""
        return prompt_key(self.prompt), self.completion, self.finished


def score_together(
    models: Sequence[Scoring],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    batch_size: int = 64,
    hidden: NDArray[np.float32] | None = None,
) -> list[Scores]:
    """Scores and deviations of several models.

    Args:
        models: any; grouped by what they read.
        prompts, completions, finished, batch_size: as in `RewardModel.score`.
        hidden: (B, H) final hidden states of the completions' last tokens where they are known
            already, NaN elsewhere. Given only if all models read just these states.

    Returns:
        For each model its rewards and its V of Eq. 15, both (B,).

    Raises:
        EvaluationError: lengths differ, or a score is not finite.
    """
    flags = [True] * len(completions) if finished is None else list(finished)
    if not len(prompts) == len(completions) == len(flags):
        names = ", ".join(model.name for model in models)
        raise EvaluationError(
            f"reward {names}: needs one completion and one flag for each prompt, found "
            f"{len(prompts)}, {len(completions)} and {len(flags)}"
        )
    answers = [Answer(*each) for each in zip(prompts, completions, flags, strict=True)]
    found: dict[int, Scores] = {}
    groups: dict[object, list[int]] = {}
    for number, model in enumerate(models):
        groups.setdefault(_reads(model), []).append(number)
    if hidden is not None and (len(groups) > 1 or not models[0].scorer.reads_last_token):
        raise EvaluationError("hidden: needs models that all read the same states, found others")
    for numbers in groups.values():
        members = [models[number] for number in numbers]
        scores = _score_shares(members, answers, batch_size, hidden)
        found.update(zip(numbers, scores, strict=True))
    return [found[number] for number in range(len(models))]


def prompt_key(prompt: Prompt) -> str:
    """A text that is equal for equal prompts."""
    return json.dumps(prompt)


def _reads(model: Scoring) -> object:
    """What a model's score is a function of: equal keys can share a forward pass."""
    scorer = model.scorer
    if isinstance(scorer, SharedScorer):
        return id(scorer.backbone), scorer.adapter, model.ends_answers
    return id(model)


def _score_shares(
    models: Sequence[Scoring],
    answers: Sequence[Answer],
    batch_size: int,
    hidden: NDArray[np.float32] | None,
) -> list[Scores]:
    """As `_score_answers`, of which each process does its share if they work together.

    Equal answers are in one share, so that they are scored once.
    """
    count = parts()
    if count == 1:
        return _score_answers(models, answers, batch_size, hidden)
    number = {key: i for i, key in enumerate(dict.fromkeys(each.key for each in answers))}
    share = np.array([number[each.key] % count for each in answers], dtype=np.int64)
    mine = np.flatnonzero(share == rank())
    states = None if hidden is None else hidden[mine]
    scored = _score_answers(models, [answers[i] for i in mine.tolist()], batch_size, states)
    found = [(np.empty(len(answers)), np.ones(len(answers))) for _ in models]
    for process, each in enumerate(gather(scored)):
        for (values, deviations), (told, spread) in zip(found, each, strict=True):
            values[share == process], deviations[share == process] = told, spread
    return found


def _score_answers(
    models: Sequence[Scoring],
    answers: Sequence[Answer],
    batch_size: int,
    hidden: NDArray[np.float32] | None,
) -> list[Scores]:
    """Score answers with models that read the same; results in their order.

    Equal answers, and those that read equal, are scored once: their scores are equal to the bit.
    """
    number = {key: i for i, key in enumerate(dict.fromkeys(each.key for each in answers))}
    values, deviations = (
        np.empty((len(models), len(number))),
        np.ones((len(models), len(number))),
    )
    names = ", ".join(model.name for model in models)
    for model in models:
        model.scorer.eval()
    with meter(f"scores of {names}", len(number)) as shown, torch.inference_mode():
        for chunk, judged in _judged(models, answers, number, batch_size, hidden):
            for member, (rewards, raw) in enumerate(judged):
                values[member, chunk] = rewards.double().cpu().numpy()
                if raw is not None:
                    deviations[member, chunk] = deviation(raw).double().cpu().numpy()
            shown.advance(len(chunk))
    if not np.isfinite(values).all():
        raise EvaluationError(
            f"reward {names}: every score must be finite, found "
            f"{int((~np.isfinite(values)).sum())} of {values.size} that are not"
        )
    picks = np.array([number[each.key] for each in answers], dtype=np.int64)
    return [(values[m, picks], deviations[m, picks]) for m in range(len(models))]


def _judged(
    models: Sequence[Scoring],
    answers: Sequence[Answer],
    number: dict[tuple[str, str, bool], int],
    batch_size: int,
    hidden: NDArray[np.float32] | None,
) -> Iterator[tuple[list[int], list[Judged]]]:
    """Numbers of distinct answers, and what each model says of them."""
    scorers = [model.scorer for model in models]
    known: dict[int, int] = {}
    if hidden is not None:
        for row, answer in enumerate(answers):
            if np.isfinite(hidden[row]).all():
                known.setdefault(number[answer.key], row)
    if known and hidden is not None:
        states = torch.from_numpy(hidden[list(known.values())]).to(scorers[0].device)
        yield list(known), [each.judge(states) for each in scorers]
    waiting = {number[each.key]: each for each in answers if number[each.key] not in known}
    equal: dict[Row, list[int]] = {}  # such as answers to prompts that fill the context
    rendered = render_answers(models[0], list(waiting.values()))
    for place, sequence in zip(waiting, rendered, strict=True):
        equal.setdefault(sequence, []).append(place)
    distinct, pad = list(equal), models[0].tokenizer.pad_token_id
    for chunk, judged in _read_rows(scorers, distinct, batch_size, pad):
        copies = [equal[distinct[i]] for i in chunk]
        places = [place for place, numbers in enumerate(copies) for _ in numbers]
        yield (
            [each for numbers in copies for each in numbers],
            [(one[places], None if raw is None else raw[places]) for one, raw in judged],
        )


def _read_rows(
    scorers: Sequence[Scorer], rows: Sequence[Row], batch_size: int, pad: int
) -> Iterator[tuple[list[int], list[Judged]]]:
    """Numbers of rows and what each scorer says of them."""
    if scorers[0].reads_last_token:
        with scorers[0].reading(len(rows)) as model:
            for chunk, state in last_hidden(model, rows, batch_size):
                yield chunk, [each.judge(state) for each in scorers]
        return
    whole = [[*row.prompt, *row.completion] for row in rows]
    order = sorted(range(len(whole)), key=lambda i: len(whole[i]))
    device = scorers[0].device
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        ids, mask = pad_right([whole[i] for i in chunk], pad)
        yield chunk, [each(ids.to(device), mask.to(device)) for each in scorers]


def render_answers(model: Scoring, answers: Sequence[Answer]) -> list[Row]:
    """Token ids of prompts and completions as the model reads them."""
    read = [each._replace(finished=each.finished and model.ends_answers) for each in answers]
    return render_rows(model.tokenizer, read, model.scorer.context)


def render_rows(tokenizer: Any, answers: Sequence[Answer], context: int | None) -> list[Row]:
    """Token ids of prompts and completions; of longer ones than the context, the beginning."""
    room = context or sys.maxsize
    questions: dict[str, tuple[int, ...]] = {}
    for answer in answers:
        key = prompt_key(answer.prompt)
        if key not in questions:
            questions[key] = tuple(render_prompt(tokenizer, answer.prompt)[:room])
    completions = render_completions(
        tokenizer,
        [answer.prompt for answer in answers],
        [answer.completion for answer in answers],
        [answer.finished for answer in answers],
    )
    asked = [questions[prompt_key(answer.prompt)] for answer in answers]
    return [
        Row(question, tuple(completion[: room - len(question)]))
        for question, completion in zip(asked, completions, strict=True)
    ]


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, both (B, T), padded on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(longest) < lengths[:, None]).long()
