"""Speculative rejection: what survives is what full sampling gives, token for token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import decode_completion, render_prompt
from demoalign.errors import RolloutError
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, TransformersEngine, transformers_engine
from demoalign.rollouts.rejection import Partial, Rejection, survivors
from tests.conftest import ModelFolder
from tests.models import load_backbone
from tests.rollouts.local import SPECS, initial, sample, with_adapter

N = 11
Taste = Callable[[Sequence[int]], float]


def even(ids: Sequence[int]) -> float:
    """A score with ties."""
    return sum(token % 3 for token in ids)


class Judge:
    """Scores token ids, and keeps what it was given."""

    def __init__(self, taste: Taste = even) -> None:
        self.taste = taste
        self.seen: list[list[Partial]] = []

    def __call__(self, partials: Sequence[Partial]) -> NDArray[np.float64]:
        self.seen.append(list(partials))
        return np.array([self.taste(each.token_ids) for each in partials], dtype=np.float64)


def rejected(
    policy: Policy, rejection: Rejection, n: int = N, keeps_hidden: bool = False, **settings: Any
) -> list[Rollout]:
    config = RolloutsConfig(**{"max_new_tokens": 12, **settings})
    engine = TransformersEngine(config, rejection)
    if keeps_hidden:
        return [each.rollout for each in engine.sample_hidden(policy, SPECS, n, 0)]
    return list(engine.sample(policy, SPECS, n, 0))


def by_hand(full: Sequence[Rollout], rejection: Rejection, taste: Taste) -> dict[str, list[int]]:
    """Tokens of every rollout, and those of the rejected up to where they were stopped."""
    found = {rollout.id: rollout.token_ids for rollout in full}
    for prompt in dict.fromkeys(rollout.prompt_id for rollout in full):
        mine = [rollout for rollout in full if rollout.prompt_id == prompt]
        for start in range(0, len(mine), rejection.cohort):
            live = mine[start : start + rejection.cohort]
            for tokens in rejection.checkpoints:
                live = [r for r in live if len(r.token_ids) > tokens]
                live.sort(key=lambda r: (-taste(r.token_ids[:tokens]), r.index))
                best = math.ceil(rejection.keep * len(live))
                found.update({r.id: r.token_ids[:tokens] for r in live[best:]})
                live = live[:best]
    return found


def check(full: Sequence[Rollout], found: Sequence[Rollout], wanted: dict[str, list[int]]) -> int:
    """How many were rejected."""
    assert [r.id for r in found] == [r.id for r in full]
    assert {r.id: r.token_ids for r in found} == wanted
    stopped = 0
    for one, other in zip(found, full, strict=True):
        size = len(one.token_ids)
        if size < len(other.token_ids):
            assert one.finish_reason == "rejected"
            stopped += 1
        else:
            assert (one.completion, one.finish_reason) == (other.completion, other.finish_reason)
        assert other.token_logprobs is not None
        assert one.token_logprobs == pytest.approx(other.token_logprobs[:size], abs=1e-4)
    return stopped


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("cohort", [4, N, 20])
@pytest.mark.parametrize("keeps_hidden", [False, True])
def test_survivors_are_those_of_the_full_run(
    model_folder: ModelFolder, keep: float, cohort: int, keeps_hidden: bool
) -> None:
    policy = initial(model_folder("llama", "bos"))
    full = sample(policy, n=N, batch_size=64)
    rejection = Rejection((2, 5, 6), keep, cohort, Judge())
    wanted = by_hand(full, rejection, even)
    for batch_size in (3, 64):
        found = rejected(policy, rejection, batch_size=batch_size, keeps_hidden=keeps_hidden)
        assert check(full, found, wanted) > 5
    assert any(r.finish_reason == "stop" and len(r.token_ids) <= 2 for r in found)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    policy = initial(model_folder("llama", "bos"))
    full = sample(policy, n=N)
    rejection = Rejection((1, 4), 0.5, 5, Judge())
    monkeypatch.setattr(transformers_engine, "_workers", lambda _device: workers)
    found = rejected(policy, rejection, batch_size=12)
    assert check(full, found, by_hand(full, rejection, even)) > 10


@pytest.mark.parametrize("checkpoints", [(1,), (11,), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 40)])
@pytest.mark.parametrize("keeps_hidden", [False, True])
def test_checkpoints_anywhere(
    model_folder: ModelFolder, checkpoints: tuple[int, ...], keeps_hidden: bool
) -> None:
    """Also where all rows have just ended, and behind the last token."""
    policy = initial(model_folder("llama", "bos"))
    full = sample(policy, n=N)
    for cohort in (1, 3):
        rejection = Rejection(checkpoints, 0.6, cohort, Judge())
        found = rejected(policy, rejection, keeps_hidden=keeps_hidden, batch_size=20)
        stopped = check(full, found, by_hand(full, rejection, even))
        assert (stopped > 0) == (cohort > 1)


def test_with_stop_strings_and_truncation(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    settings: dict[str, Any] = {
        "stop": ("e", "o"),
        "temperature": 0.9,
        "top_k": 40,
        "min_new_tokens": 2,
    }
    full = sample(policy, n=N, **settings)
    rejection = Rejection((3, 6), 0.5, 6, Judge())
    assert check(full, rejected(policy, rejection, **settings), by_hand(full, rejection, even)) > 5


def test_an_architecture_that_cannot_share(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("bloom", "bos"))
    full = sample(policy, n=6)
    rejection = Rejection((3, 6), 0.5, 6, Judge())
    found = rejected(policy, rejection, 6, batch_size=10)
    assert check(full, found, by_hand(full, rejection, even)) > 5


@pytest.mark.parametrize("keeps_hidden", [False, True])
def test_the_judge_is_given_what_was_sampled(model_folder: ModelFolder, keeps_hidden: bool) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned = with_adapter(backbone)
    full = sample(tuned, n=N)
    judge = Judge()
    found = rejected(tuned, Rejection((2, 5), 0.5, N, judge), keeps_hidden=keeps_hidden)
    assert {len(each.token_ids) for batch in judge.seen for each in batch} == {2, 5}
    assert len(judge.seen) == 2 * len(SPECS)
    prompts = {spec.prompt: spec.id for spec in SPECS if isinstance(spec.prompt, str)}
    for batch in judge.seen:
        assert len({str(each.prompt) for each in batch}) == 1  # a cohort is of one prompt
        for each in batch:
            assert isinstance(each.prompt, str)
            size = len(each.token_ids)
            mine = [r for r in full if r.prompt_id == prompts[each.prompt]]
            assert list(each.token_ids) in [r.token_ids[:size] for r in mine]
            ids = list(each.token_ids)
            assert each.text == decode_completion(backbone.tokenizer, each.prompt, ids)
            whole = render_prompt(backbone.tokenizer, each.prompt) + ids
            row = torch.tensor([whole], device=backbone.device)
            with torch.inference_mode(), tuned.active():
                states = backbone.trunk(input_ids=row).last_hidden_state
            np.testing.assert_allclose(each.hidden, states[0, -1].cpu().numpy(), atol=2e-4)
    stopped = sum(rollout.finish_reason == "rejected" for rollout in found)
    assert stopped == sum(len(batch) - math.ceil(len(batch) / 2) for batch in judge.seen)


def test_the_judge_may_use_another_policy(model_folder: ModelFolder) -> None:
    """It is called while neither adapter nor attention of the sampling are active."""
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned, bare = with_adapter(backbone), Policy("initial", backbone)
    wanted = sample(bare, SPECS[:1], n=2)

    def judge(partials: Sequence[Partial]) -> NDArray[np.float64]:
        assert [r.token_ids for r in sample(bare, SPECS[:1], n=2)] == [r.token_ids for r in wanted]
        return np.array([even(each.token_ids) for each in partials], dtype=np.float64)

    full, rejection = sample(tuned, n=6), Rejection((2,), 0.5, 6, judge)
    check(full, rejected(tuned, rejection, 6), by_hand(full, rejection, even))


def test_the_first_index_may_be_any(model_folder: ModelFolder) -> None:
    """At the beginning of a cohort; the others are judged as in the full run."""
    policy = initial(model_folder("llama", "bos"))
    rejection = Rejection((2, 5), 0.5, 4, Judge())
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12), rejection)
    whole = list(engine.sample(policy, SPECS, N, 0))
    rest = [PromptSpec(spec.id, spec.prompt, 4) for spec in SPECS]
    found = list(engine.sample(policy, rest, N, 0))
    assert [(r.id, r.token_ids) for r in found] == [
        (r.id, r.token_ids) for r in whole if r.index >= 4
    ]


# By hand


@pytest.mark.parametrize(
    ("keep", "count", "left"),
    [
        (0.5, 4, 2),
        (0.5, 5, 3),
        (0.25, 1, 1),
        (1.0, 7, 7),
        (0.01, 3, 1),
        (0.07, 100, 7),
        (0.55, 20, 11),
        (0.5, 0, 0),
    ],
)
def test_how_many_survive(keep: float, count: int, left: int) -> None:
    """0.07 * 100 and 0.55 * 20 are a little more than 7 and 11 in floating point."""
    scores = list(range(count))
    assert survivors(scores, scores, keep) == [i >= count - left for i in range(count)]


def test_ties_go_to_the_smaller_index() -> None:
    assert survivors([1.0, 2.0, 1.0, 1.0], [7, 5, 3, 4], 0.5) == [False, True, True, False]
    assert survivors([-1.0, -3.0, -2.0], [0, 1, 2], 0.4) == [True, False, True]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RolloutError, match="found 1 of 3 that are not"):
        survivors([0.5, float("nan"), 1.0], [0, 1, 2], 0.5)
