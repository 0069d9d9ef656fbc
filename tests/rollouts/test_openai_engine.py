"""Rollouts from servers that answer well and from servers that do not; all are processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render
from demoalign.errors import RecipeError, RolloutError
from demoalign.lab import BASE
from demoalign.lab import demonstrations as lab_demonstrations
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, make_engine
from demoalign.rollouts.asking import AHEAD, request_seed
from demoalign.rollouts.endpoint import KEY_VARIABLE, Backoff, retry_after
from demoalign.rollouts.openai_engine import OpenAIEngine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone, logits_of
from tests.servers import PATIENCE, ROOT, Server, closed_port, prompt_of, serving

CANARY = "sk-canary-0123456789"
SPECS = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(4)]
SERVER_ERROR = {"status": 500, "message": "out of memory"}


class Pauses:
    """Pauses that are noted and not made."""

    def __init__(self, **settings: float) -> None:
        self.made: list[float] = []
        self.backoff = Backoff(sleep=self.sleep, **settings)

    async def sleep(self, seconds: float) -> None:
        self.made.append(seconds)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def policy(tokenizer_folder: Callable[[str], Path]) -> Policy:
    return without_weights(tokenizer_folder("bos"))


def without_weights(folder: Path, name: str = "initial") -> Policy:
    """A policy of which there is nothing here but its name and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return cast(Policy, SimpleNamespace(name=name, backbone=SimpleNamespace(tokenizer=tokenizer)))


def config(server: Server | str, **changes: Any) -> RolloutsConfig:
    url = server if isinstance(server, str) else server.base_url
    endpoint = {"base_url": url, "concurrency": 2, "samples_per_request": 2, "retries": 3}
    endpoint |= {key: changes.pop(key) for key in list(changes) if key in ENDPOINT}
    plain = {"engine": "openai", "max_new_tokens": 16, "endpoint": endpoint, **changes}
    return RolloutsConfig.model_validate(plain)


ENDPOINT = {"concurrency", "samples_per_request", "retries", "timeout", "models", "logprobs"}


def engine(server: Server | str, pauses: Pauses | None = None, **changes: Any) -> OpenAIEngine:
    return OpenAIEngine(config(server, **changes), backoff=(pauses or Pauses()).backoff)


def request_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "demoalign" in each.name]


# --- number, order, content


def test_every_rollout_comes_once_and_in_order(policy: Policy) -> None:
    with serving() as server:
        found = list(engine(server).sample(policy, SPECS, 3, seed=7))
        assert [(r.prompt_id, r.index) for r in found] == [
            (spec.id, index) for spec in SPECS for index in range(3)
        ]
        assert [r.completion for r in found] == [
            f" {spec.prompt} {request_seed(7, spec.id, first)} {number}"
            for spec in SPECS
            for first, number in ((0, 0), (0, 1), (2, 0))
        ]
        assert found[4].id == "p1/initial/1"
        assert {(r.policy, r.seed, r.finish_reason) for r in found} == {("initial", 7, "stop")}
        assert sorted(server.asked()) == sorted((spec.prompt, n) for spec in SPECS for n in (2, 1))
        assert server.noted()["requests"][0]["path"] == "/v1/completions"
    assert request_threads() == []


def test_those_before_the_first_are_not_asked_for(policy: Policy) -> None:
    specs = [PromptSpec("a", "A?", first=3), PromptSpec("b", "B?", first=6), PromptSpec("c", "C?")]
    with serving() as server:
        found = list(engine(server, samples_per_request=4).sample(policy, specs, 6, seed=0))
        assert [(r.prompt_id, r.index) for r in found] == [
            *(("a", i) for i in (3, 4, 5)),
            *(("c", i) for i in range(6)),
        ]
        # blocks begin where they would have begun without the interruption
        assert sorted(server.asked()) == [("A?", 1), ("A?", 2), ("C?", 2), ("C?", 4)]


def test_nothing_to_do_asks_nothing(policy: Policy) -> None:
    done = [PromptSpec("a", "A?", first=2)]
    url = f"http://127.0.0.1:{closed_port()}/v1"
    assert list(engine(url).sample(policy, done, 2, seed=0)) == []
    assert list(engine(url).sample(policy, [], 2, seed=0)) == []


def test_seeds_differ_between_requests_and_stay_the_same(policy: Policy) -> None:
    with serving() as server:
        texts = [
            [
                r.completion
                for r in engine(server, concurrency=concurrency).sample(policy, SPECS, 4, seed)
            ]
            for seed, concurrency in ((0, 2), (0, 7), (1, 2))
        ]
        seeds = {body["seed"] for body in server.bodies()}
    assert texts[0] == texts[1] != texts[2]
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_settings_are_sent(policy: Policy) -> None:
    with serving() as server:
        plain = engine(server, models={"initial": "base-model"})
        list(plain.sample(policy, SPECS[:1], 1, seed=0))
        list(plain.sample(policy, SPECS[:1], 5, seed=0, greedy=True))
        hot: dict[str, Any] = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_new_tokens": 2,
            "stop": ["\n"],
        }
        list(engine(server, **hot).sample(policy, SPECS[:1], 1, seed=0))
        list(engine(server, logprobs=False).sample(policy, SPECS[:1], 1, seed=0))
        sampled, greedy, truncated, without = server.bodies()
    seed = request_seed(0, "p0", 0)
    common = {"prompt": "Why 0?", "max_tokens": 16, "n": 1}
    at_one = {**common, "temperature": 1.0, "top_p": 1.0, "seed": seed}
    assert sampled == {**at_one, "model": "base-model", "logprobs": 1}
    assert greedy.pop("seed") != seed
    assert greedy == {**common, "model": "base-model", "temperature": 0.0, "top_p": 1.0}
    assert truncated == {
        **common,
        "model": "initial",
        "seed": seed,
        **{"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_tokens": 2, "stop": ["\n"]},
    }
    assert without == {**at_one, "model": "initial"}


def test_chat_goes_to_chat_completions(tokenizer_folder: Callable[[str], Path]) -> None:
    specs = [PromptSpec("c", chat("Why?")), PromptSpec("t", "Why not?")]
    with serving() as server:
        templated = without_weights(tokenizer_folder("chat"))
        found = list(engine(server).sample(templated, specs, 1, seed=0))
        requests = {each["path"]: each["body"] for each in server.noted()["requests"]}
    asked = requests["/v1/chat/completions"]
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    assert asked["logprobs"] is True
    assert "prompt" not in asked
    assert requests["/v1/completions"]["prompt"] == "Why not?"
    ends = [templated.backbone.tokenizer.decode([r.token_ids[-1]]) for r in found]
    assert ends == ["<|im_end|>", "<|endoftext|>"]
    assert found[0].completion == f" Why? {asked['seed']} 0"


def test_chat_without_a_template_is_rendered_here(policy: Policy) -> None:
    with serving() as server:
        list(engine(server).sample(policy, [PromptSpec("c", chat("Why?"))], 1, seed=0))
        (asked,) = server.bodies()
    assert asked["prompt"] == "\n\nHuman: Why?\n\nAssistant:"


# --- a real model


@pytest.fixture(scope="module")
def real(model_folder: ModelFolder) -> Iterator[Server]:
    """The embedded world's model, which speaks English, and one of random weights with a chat."""
    folders = {"initial": BASE, "sft": model_folder("llama", "chat_bos")}
    with serving(folders=folders) as server:
        yield server


@pytest.mark.parametrize(("name", "least"), [("initial", 0.7), ("sft", 0.05)])
def test_a_real_models_rollouts(
    model_folder: ModelFolder, real: Server, name: str, least: float
) -> None:
    """Ids, texts and log-probabilities are what this machine computes from the same weights."""
    folder = BASE if name == "initial" else model_folder("llama", "chat_bos")
    policy = Policy(name, load_backbone(folder))
    tokenizer, causal = policy.backbone.tokenizer, policy.backbone.causal
    texts = [row.prompt for row in lab_demonstrations(3, 0.0, 0)]
    specs = [PromptSpec(f"{i}", text) for i, text in enumerate(texts)]
    if name == "sft":
        specs = [PromptSpec(f"{i}", chat(text)) for i, text in enumerate("ABC")]
    found = list(engine(real, max_new_tokens=24).sample(policy, specs, 6, seed=0))
    prompts = {spec.id: spec.prompt for spec in specs}
    told = [r for r in found if r.token_logprobs is not None]
    assert len(told) >= least * len(found)
    for each in told:
        ended = each.finish_reason == "stop"
        both = render(tokenizer, prompts[each.prompt_id], each.completion, ended)
        assert each.token_ids[:-1] == both.completion_ids[:-1]
        (logits_TV,) = logits_of(causal, [[*both.prompt_ids, *each.token_ids]])
        start = len(both.prompt_ids) - 1
        own = logits_TV.log_softmax(-1)[start:-1].gather(-1, _column(each.token_ids)).squeeze(-1)
        assert each.token_logprobs == pytest.approx(own.tolist(), abs=1e-4)
        assert each.logprob == pytest.approx(own.sum().item(), abs=1e-3)


def _column(ids: list[int]) -> torch.Tensor:
    return torch.tensor(ids)[:, None]


def test_greedy_has_no_logprob(policy: Policy) -> None:
    with serving() as server:
        found = list(engine(server).sample(policy, SPECS, 5, seed=0, greedy=True))
    assert [(r.id, r.index, r.logprob) for r in found] == [
        (f"p{i}/initial/greedy", -1, None) for i in range(4)
    ]


# --- what a choice may look like


def answered(policy: Policy, choice: dict[str, Any], **changes: Any) -> Rollout:
    """The rollout of a choice that the server gives."""
    with serving({"*": [{"choice": choice}]}) as server:
        (found,) = engine(server, **changes).sample(policy, SPECS[:1], 1, seed=0)
        assert len(server.bodies()) == 1
    return found


def split(policy: Policy, text: str) -> list[str]:
    tokenizer = policy.backbone.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.decode([token]) for token in ids]


def logprobs_of(tokens: list[str]) -> dict[str, Any]:
    return {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)}


def test_an_empty_text_is_a_completion(policy: Policy) -> None:
    found = answered(policy, {"text": ""})
    assert (found.completion, found.finish_reason) == ("", "stop")
    assert found.token_ids == [policy.backbone.tokenizer.eos_token_id]
    assert found.logprob is None


TEXT = " Turn it off."


@pytest.mark.parametrize("end", ["", "<|endoftext|>", "</s>"])
def test_logprobs_that_stand_beside_the_ids(policy: Policy, end: str) -> None:
    tokens = [*split(policy, TEXT), end]
    found = answered(policy, {"text": TEXT, "logprobs": logprobs_of(tokens)})
    assert found.token_logprobs == [-0.5] * len(found.token_ids)
    assert found.logprob == -0.5 * len(tokens)


@pytest.mark.parametrize(
    ("tokens", "reason", "logprob"),
    [
        ([*TEXT, "<|endoftext|>"], "stop", -0.5 * 14),  # other tokens, the same sequence
        ([*TEXT], "length", -0.5 * 13),
        ([*TEXT], "stop", None),  # the end token's is missing
        (["x", "y"], "length", None),  # not this text
        (["x"], "stop", None),
        ([], "stop", None),
    ],
)
def test_logprobs_of_other_tokens(
    policy: Policy, tokens: list[str], reason: str, logprob: float | None
) -> None:
    choice = {"text": TEXT, "finish_reason": reason, "logprobs": logprobs_of(tokens)}
    found = answered(policy, choice)
    assert found.token_logprobs is None
    assert found.logprob == logprob


def test_as_many_tokens_but_other_ones_do_not_stand_beside_the_ids(policy: Policy) -> None:
    """A server that leaves the end token out may come to our number by another split."""
    ours = split(policy, TEXT)
    at = next(i for i, token in enumerate(ours) if len(token) > 1)
    theirs = [*ours[:at], ours[at][:1], ours[at][1:], *ours[at + 1 :]]
    found = answered(policy, {"text": TEXT, "logprobs": logprobs_of(theirs)})
    assert len(theirs) == len(found.token_ids)
    assert (found.logprob, found.token_logprobs) == (None, None)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        {"tokens": ["a"]},
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": ["a", "b"], "token_logprobs": [-1.0]},
        {"content": [{"token": "a"}]},
        {"content": [7]},
    ],
)
def test_logprobs_that_are_not_there_are_none_and_not_0(policy: Policy, logprobs: Any) -> None:
    found = answered(policy, {"text": "a", "logprobs": logprobs})
    assert (found.logprob, found.token_logprobs) == (None, None)


@pytest.mark.parametrize(
    ("choice", "reason", "ended"),
    [
        ({"finish_reason": "stop"}, "stop", True),
        ({"finish_reason": "eos_token"}, "stop", True),
        ({"finish_reason": "stop", "stop_reason": None}, "stop", True),
        ({"finish_reason": "stop", "stop_reason": "\n"}, "stop", False),
        ({"finish_reason": "stop_sequence"}, "stop", False),
        ({"finish_reason": "length"}, "length", False),
        ({"finish_reason": "content_filter"}, "length", False),
        ({"finish_reason": None}, "stop", True),
        ({"finish_reason": None, "text": "x" * 40}, "length", False),
    ],
)
def test_finish_reasons(policy: Policy, choice: dict[str, Any], reason: str, ended: bool) -> None:
    found = answered(policy, {"text": TEXT, **choice})
    assert found.finish_reason == reason
    assert (found.token_ids[-1] == policy.backbone.tokenizer.eos_token_id) == ended


def test_a_content_filter_is_reported(policy: Policy, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = split(policy, TEXT)
    choice = {"finish_reason": "content_filter", "text": TEXT, "logprobs": logprobs_of(tokens)}
    found = answered(policy, choice)
    assert found.logprob is None
    assert "content filter cut 1 of 1 completions" in capsys.readouterr().err


def test_a_reason_that_is_no_end_is_asked_again(policy: Policy) -> None:
    aborted = {"choice": {"finish_reason": "abort"}}
    with serving({"Why 0?": [aborted]}) as server:
        found = list(engine(server).sample(policy, SPECS[:1], 2, seed=0))
        assert len(server.bodies()) == 2
    assert len(found) == 2
    with (
        serving({"Why 0?": [aborted] * 4}) as server,
        pytest.raises(RolloutError, match=r"none that can be used.*'abort'"),
    ):
        list(engine(server).sample(policy, SPECS[:1], 2, seed=0))


def test_half_a_surrogate_pair_can_be_stored(policy: Policy, tmp_path: Path) -> None:
    with serving({"*": [{"choice": {"text": "a\ud800b"}}]}) as server:
        write_rollouts(tmp_path / "r.jsonl", engine(server), policy, SPECS[:1], 1, 0)
    assert read_rollouts(tmp_path / "r.jsonl")[0].completion == "a?b"


# --- servers that fail


@pytest.mark.parametrize(
    "fault",
    [
        SERVER_ERROR,
        {"status": 503, "headers": {"Retry-After": "0"}},
        {"status": 429},
        {"status": 408},
        {"cut": True},
        {"raw": "garbage {"},
        {"raw": "[" * 5_000},
        {"raw": '{"choices": null}'},
        {"raw": '{"choices": [null]}'},
        {"raw": '{"choices": [{"text": 7}]}'},
        {"raw": '{"error": {"message": "overloaded"}}'},
        {"raw": "\xff"},
        {"choices": 0},
    ],
    ids=lambda fault: str(fault)[:40],
)
def test_a_failure_that_may_pass_is_asked_again(policy: Policy, fault: dict[str, Any]) -> None:
    pauses = Pauses()
    with serving({"Why 1?": [fault, fault]}) as server:
        found = list(engine(server, pauses).sample(policy, SPECS, 2, seed=0))
        asked = server.asked()
    assert [r.completion for r in found] == [
        f" {spec.prompt} {request_seed(0, spec.id, 0)} {i}" for spec in SPECS for i in range(2)
    ]
    assert sorted(asked) == sorted([(spec.prompt, 2) for spec in SPECS] + [("Why 1?", 2)] * 2)
    assert len(pauses.made) == 2


def test_a_request_that_hangs_is_made_again(policy: Policy) -> None:
    with serving({"Why 0?": [{"hang": True}]}) as server:
        # whatever else is slow on this machine may be asked again too
        found = list(engine(server, timeout=0.5, retries=50).sample(policy, SPECS[:1], 1, seed=0))
        assert len(server.bodies()) >= 2
        assert len(found) == 1


def test_fewer_choices_than_asked(policy: Policy) -> None:
    """The missing ones alone are asked for; a server that gives one at a time is no failure."""
    with serving({"Why 0?": [{"choices": 3}, {"choices": 1}, {"choices": 1}]}) as server:
        pauses = Pauses()
        six = engine(server, pauses, samples_per_request=6, retries=0)
        found = list(six.sample(policy, SPECS[:1], 6, seed=0))
        assert server.asked() == [("Why 0?", 6), ("Why 0?", 3), ("Why 0?", 2), ("Why 0?", 1)]
    starts = [(0, 0), (0, 1), (0, 2), (3, 0), (4, 0), (5, 0)]
    assert [r.completion for r in found] == [
        f" Why 0? {request_seed(0, 'p0', first)} {number}" for first, number in starts
    ]
    assert pauses.made == []


def test_more_choices_than_asked_are_left_out(policy: Policy) -> None:
    with serving({"*": [{"choices": 9}]}) as server:
        found = list(engine(server).sample(policy, SPECS[:1], 2, seed=0))
    assert [r.index for r in found] == [0, 1]


def test_a_budget_that_is_used_up(policy: Policy) -> None:
    with serving({"Why 2?": [SERVER_ERROR] * 9}) as server:
        one = engine(server, concurrency=1)
        rollouts = one.sample(policy, SPECS, 2, seed=0)
        with pytest.raises(RolloutError) as caught:
            list(rollouts)
        assert server.asked().count(("Why 2?", 2)) == 4
    message = str(caught.value)
    assert f"POST {server.base_url}/completions (model 'initial')" in message
    assert "given up after 4 tries" in message
    assert "status 500: out of memory" in message
    assert "4 of 8 completions had come" in message
    assert request_threads() == []


def test_nobody_answers(policy: Policy) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(RolloutError, match=r"ConnectError.*0 of 4 completions.*Check|Check that"):
        list(engine(url, retries=1).sample(policy, SPECS, 1, seed=0))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "rollouts.endpoint.logprobs: false"),
        (401, "Set OPENAI_API_KEY"),
        (403, "Set OPENAI_API_KEY"),
        (404, "rollouts.endpoint.models"),
        (413, "Check rollouts.endpoint"),
        (422, "rollouts.endpoint.logprobs: false"),
        (307, "rollouts.endpoint.base_url"),
    ],
)
def test_a_refusal_ends_it_at_once(policy: Policy, status: int, advice: str) -> None:
    fault = {"status": status, "message": "we do not do this."}
    with serving({"*": [fault] * 99}) as server:
        pauses = Pauses()
        with pytest.raises(RolloutError) as caught:
            list(engine(server, pauses, concurrency=1).sample(policy, SPECS, 2, seed=0))
        assert pauses.made == []
        assert len(server.bodies()) == 1
    message = str(caught.value)
    assert f"POST {server.base_url}/completions (model 'initial'): status {status}: " in message
    assert status == 307 or "we do not do this. " in message
    assert advice in message
    assert request_threads() == []


def test_a_refusal_does_not_wait_for_those_before_it(policy: Policy) -> None:
    with (
        serving({"Why 0?": [{"hang": True}], "Why 1?": [{"status": 400}]}) as server,
        pytest.raises(RolloutError, match="status 400"),
    ):
        list(engine(server, timeout=PATIENCE).sample(policy, SPECS, 2, seed=0))


def test_an_exhausted_quota_is_a_refusal(policy: Policy) -> None:
    quota = {"status": 429, "raw": {"error": {"message": "No", "code": "insufficient_quota"}}}
    with serving({"*": [quota] * 9}) as server, pytest.raises(RolloutError, match="status 429: No"):
        list(engine(server, concurrency=1).sample(policy, SPECS, 2, seed=0))


# --- pauses


def test_pauses_grow_and_are_bounded(policy: Policy) -> None:
    pauses = Pauses(first=2.0, most=10.0)
    with serving({"Why 0?": [SERVER_ERROR] * 6}) as server:
        list(engine(server, pauses, retries=6).sample(policy, SPECS[:1], 1, seed=0))
    assert len(pauses.made) == 6
    bounds = [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert all(0 <= made <= most for made, most in zip(pauses.made, bounds, strict=True))


@given(st.integers(1, 100), st.none() | st.floats(0, 1e6))
def test_a_pause_is_within_its_bounds(failures: int, asked: float | None) -> None:
    found = Backoff().seconds(failures, asked)
    if asked is None:
        assert 0 <= found <= min(60.0, 2.0 ** (failures - 1))
    else:
        assert min(asked, 300.0) <= found <= min(asked, 300.0) + 1.0


def test_the_jitter_is_full() -> None:
    pauses = [Backoff().seconds(3) for _ in range(200)]
    assert min(pauses) < 1
    assert max(pauses) > 3


def test_the_server_says_how_long(policy: Policy) -> None:
    busy = [{"status": 429, "headers": {"Retry-After": text}} for text in ("7", "99999", "soon")]
    pauses = Pauses()
    with serving({"Why 0?": busy}) as server:
        list(engine(server, pauses).sample(policy, SPECS[:1], 1, seed=0))
    said, cut, unreadable = pauses.made
    assert 7 <= said <= 8
    assert 300 <= cut <= 301
    assert unreadable <= 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        (" 12 ", 12),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2015 09:29:00 +0200", 60),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("Wed, 99 Oct 2015", None),
    ],
)
def test_forms_of_retry_after(text: str, seconds: float | None) -> None:
    now = datetime(2015, 10, 21, 7, 28, 0, tzinfo=UTC)
    assert retry_after({"retry-after": text}, now) == seconds


# --- how many at a time, how far ahead


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_at_a_time_as_the_recipe_says(policy: Policy, concurrency: int) -> None:
    """The server answers nobody before so many are there, and counts how many ever were."""
    specs = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(12)]
    with serving(together=concurrency) as server:
        found = list(engine(server, concurrency=concurrency).sample(policy, specs, 3, seed=0))
        assert server.noted()["peak"] == concurrency
    assert len(found) == 36


def test_how_far_it_runs_ahead(policy: Policy) -> None:
    specs = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(40)]
    with serving({"Why 0?": [{"hang": True}]}) as server:
        rollouts = engine(server).sample(policy, specs, 2, seed=0)
        found: list[Rollout] = []
        reader = threading.Thread(target=lambda: found.extend(rollouts))
        reader.start()
        wait_until(lambda: len(server.bodies()) == AHEAD * 2)
        assert found == []
        server.release()
        reader.join(PATIENCE)
        assert len(found) == 80
        assert {prompt for prompt, _ in server.asked()[: AHEAD * 2]} == {
            f"Why {i}?" for i in range(AHEAD * 2)
        }


def test_closed_early_it_leaves_nothing_behind(policy: Policy) -> None:
    with serving({"Why 1?": [{"hang": True}]}) as server:
        rollouts = cast(Any, engine(server, timeout=PATIENCE).sample(policy, SPECS, 2, seed=0))
        assert next(rollouts).id == "p0/initial/0"
        assert len(request_threads()) == 1
        before = len(threading.enumerate())
        rollouts.close()
        assert request_threads() == []
        assert len(threading.enumerate()) < before


def test_it_works_within_an_event_loop(policy: Policy) -> None:
    """As in a notebook."""
    import asyncio

    async def cell(server: Server) -> list[Rollout]:
        return list(engine(server).sample(policy, SPECS, 1, seed=0))

    with serving() as server:
        assert len(asyncio.run(cell(server))) == 4


# --- killed and started again


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


SAMPLE = """
import sys
from pathlib import Path
from demoalign.rollouts.openai_engine import OpenAIEngine
from demoalign.rollouts.write import write_rollouts
from tests.rollouts.test_openai_engine import SPECS, config, without_weights
url, folder, tokenizer = sys.argv[1:]
engine = OpenAIEngine(config(url), Path(folder, "responses.jsonl"))
write_rollouts(Path(folder, "r.jsonl"), engine, without_weights(Path(tokenizer)), SPECS, 4, 0)
"""


def sampling_process(server: Server, folder: Path, tokenizer: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SAMPLE, server.base_url, str(folder), str(tokenizer)],
        env={**os.environ, KEY_VARIABLE: CANARY},
        cwd=ROOT,
    )


@pytest.mark.parametrize("slow", [0, 2])
def test_nothing_that_was_answered_is_asked_again_after_a_kill(
    tokenizer_folder: Callable[[str], Path], tmp_path: Path, slow: int
) -> None:
    """4 prompts of 2 requests; one hangs while the rest is answered, then the process is killed."""
    tokenizer = tokenizer_folder("bos")
    answers = tmp_path / "responses.jsonl"
    with serving({f"Why {slow}?": [{"hang": True}]}) as server:
        process = sampling_process(server, tmp_path, tokenizer)
        wait_until(lambda: answers.is_file() and answers.read_bytes().count(b"\n") == 14)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with answers.open("ab") as stream:
            stream.write(b'{"prompt_id": "p')  # a line that the kill had cut
        server.release()
        assert sampling_process(server, tmp_path, tokenizer).wait() == 0
        bodies = server.bodies()
        keys = {each["key"] for each in server.noted()["requests"]}
    times = {(prompt_of(body), body["seed"]): 0 for body in bodies}
    for body in bodies:
        times[prompt_of(body), body["seed"]] += 1
    assert sorted(times.values()) == [1] * 7 + [2]  # the one that was never answered
    found = read_rollouts(tmp_path / "r.jsonl")
    assert [r.id for r in found] == [f"p{p}/initial/{i}" for p in range(4) for i in range(4)]
    assert keys == {f"Bearer {CANARY}"}
    assert canaries(tmp_path) == []


def test_answers_to_other_questions_are_not_taken(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with serving() as server:
        for changes, asked in (({}, 2), ({}, 0), ({"stop": ["x"]}, 2)):
            before = len(server.bodies())
            again = OpenAIEngine(config(server, **changes), path)
            found = list(again.sample(policy, SPECS[:1], 4, seed=0))
            assert len(server.bodies()) - before == asked
            assert [r.index for r in found] == [0, 1, 2, 3]
        # those that are stored as rollouts are not read back, the rest of a block is asked for
        later = [PromptSpec("p0", "Why 0?", first=3)]
        found = list(OpenAIEngine(config(server), path).sample(policy, later, 6, seed=0))
        assert [r.index for r in found] == [3, 4, 5]
        assert server.asked()[-1] == ("Why 0?", 2)


# --- the key


def canaries(folder: Path) -> list[Path]:
    """Files that hold the key."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if CANARY.encode() in path.read_bytes()]


def test_the_key_is_sent_and_not_repeated(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY + "\n")
    for status in (401, 500):
        fault = {"status": status, "message": "not {Authorization}"}
        with serving({"*": [fault] * 99}) as server, pytest.raises(RolloutError) as caught:
            list(engine(server).sample(policy, SPECS, 1, seed=0))
        assert "not Bearer [key]" in str(caught.value)
        chain: list[BaseException | None] = [caught.value]
        while chain[-1] is not None:
            chain.append(chain[-1].__cause__)
        assert CANARY not in repr(chain)


def test_without_a_key_a_stand_in_is_sent(policy: Policy) -> None:
    with serving() as server:
        list(engine(server).sample(policy, SPECS[:1], 1, seed=0))
        assert server.noted()["requests"][0]["key"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-ä", "sk-a\nb"])
def test_a_key_that_cannot_be_sent(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(RolloutError, match=r"OPENAI_API_KEY: must be printable ASCII") as caught:
        list(engine("http://127.0.0.1:1/v1").sample(policy, SPECS[:1], 1, seed=0))
    assert key not in str(caught.value)


# --- the recipe


def test_the_recipe_names_it() -> None:
    made = make_engine(config("http://127.0.0.1:1/v1"))
    assert isinstance(made, OpenAIEngine)
    with pytest.raises(RecipeError, match="endpoint"):
        OpenAIEngine(RolloutsConfig())


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host/v1",
        "https://secret@host/v1",
        "https://host/v1?key=secret",
        "https://host/v1#secret",
    ],
)
def test_no_secrets_in_the_address(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must have no user") as caught:
        config(url)
    assert "secret" not in str(caught.value).partition("[type")[0]


@pytest.mark.parametrize("url", ["http://:80/v1", "http://host:99999/v1", "ftp://host"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        config(url)
