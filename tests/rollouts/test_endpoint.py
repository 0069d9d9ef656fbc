"""Servers that fail: what is asked again and when, what ends the work, and the key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.endpoints.backoff import Backoff, retry_after
from demoalign.errors import RolloutError
from demoalign.policies import Policy
from demoalign.rollouts.asking import request_seed
from tests.rollouts.remote import (
    CANARY,
    SPECS,
    Pauses,
    engine,
    request_threads,
)
from tests.servers import PATIENCE, closed_port, serving

SERVER_ERROR = {"status": 500, "message": "out of memory"}


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
def test_a_failure_that_may_pass_is_asked_again(served: Policy, fault: dict[str, Any]) -> None:
    pauses = Pauses()
    with serving({"Why 1?": [fault, fault]}) as server:
        found = list(engine(server, pauses).sample(served, SPECS, 2, seed=0))
        asked = server.asked()
    assert [r.completion for r in found] == [
        f" {spec.prompt} {request_seed(0, spec.id, 0)} {i}" for spec in SPECS for i in range(2)
    ]
    assert sorted(asked) == sorted([(spec.prompt, 2) for spec in SPECS] + [("Why 1?", 2)] * 2)
    assert len(pauses.made) == 2


def test_a_request_that_hangs_is_made_again(served: Policy) -> None:
    with serving({"Why 0?": [{"hang": True}]}) as server:
        # whatever else is slow on this machine may be asked again too
        found = list(engine(server, timeout=0.5, retries=50).sample(served, SPECS[:1], 1, seed=0))
        assert len(server.bodies()) >= 2
        assert len(found) == 1


def test_fewer_choices_than_asked(served: Policy) -> None:
    """The missing ones alone are asked for; a server that gives one at a time is no failure."""
    with serving({"Why 0?": [{"choices": 3}, {"choices": 1}, {"choices": 1}]}) as server:
        pauses = Pauses()
        six = engine(server, pauses, samples_per_request=6, retries=0)
        found = list(six.sample(served, SPECS[:1], 6, seed=0))
        assert server.asked() == [("Why 0?", 6), ("Why 0?", 3), ("Why 0?", 2), ("Why 0?", 1)]
    starts = [(0, 0), (0, 1), (0, 2), (3, 0), (4, 0), (5, 0)]
    assert [r.completion for r in found] == [
        f" Why 0? {request_seed(0, 'p0', first)} {number}" for first, number in starts
    ]
    assert pauses.made == []


def test_more_choices_than_asked_are_left_out(served: Policy) -> None:
    with serving({"*": [{"choices": 9}]}) as server:
        found = list(engine(server).sample(served, SPECS[:1], 2, seed=0))
    assert [r.index for r in found] == [0, 1]


def test_a_budget_that_is_used_up(served: Policy) -> None:
    with serving({"Why 2?": [SERVER_ERROR] * 9}) as server:
        one = engine(server, concurrency=1)
        rollouts = one.sample(served, SPECS, 2, seed=0)
        with pytest.raises(RolloutError) as caught:
            list(rollouts)
        assert server.asked().count(("Why 2?", 2)) == 4
    message = str(caught.value)
    assert f"POST {server.base_url}/completions (model 'initial')" in message
    assert "given up after 4 tries" in message
    assert "status 500: out of memory" in message
    assert "4 of 8 completions had come" in message
    assert request_threads() == []


def test_nobody_answers(served: Policy) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(RolloutError, match=r"ConnectError.*0 of 4 completions.*Check|Check that"):
        list(engine(url, retries=1).sample(served, SPECS, 1, seed=0))


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
def test_a_refusal_ends_it_at_once(served: Policy, status: int, advice: str) -> None:
    fault = {"status": status, "message": "we do not do this."}
    with serving({"*": [fault] * 99}) as server:
        pauses = Pauses()
        with pytest.raises(RolloutError) as caught:
            list(engine(server, pauses, concurrency=1).sample(served, SPECS, 2, seed=0))
        assert pauses.made == []
        assert len(server.bodies()) == 1
    message = str(caught.value)
    assert f"POST {server.base_url}/completions (model 'initial'): status {status}: " in message
    assert status == 307 or "we do not do this. " in message
    assert advice in message
    assert request_threads() == []


def test_a_refusal_does_not_wait_for_those_before_it(served: Policy) -> None:
    with (
        serving({"Why 0?": [{"hang": True}], "Why 1?": [{"status": 400}]}) as server,
        pytest.raises(RolloutError, match="status 400"),
    ):
        list(engine(server, timeout=PATIENCE).sample(served, SPECS, 2, seed=0))


def test_an_exhausted_quota_is_a_refusal(served: Policy) -> None:
    quota = {"status": 429, "raw": {"error": {"message": "No", "code": "insufficient_quota"}}}
    with serving({"*": [quota] * 9}) as server, pytest.raises(RolloutError, match="status 429: No"):
        list(engine(server, concurrency=1).sample(served, SPECS, 2, seed=0))


# --- pauses


def test_pauses_grow_and_are_bounded(served: Policy) -> None:
    pauses = Pauses(first=2.0, most=10.0)
    with serving({"Why 0?": [SERVER_ERROR] * 6}) as server:
        list(engine(server, pauses, retries=6).sample(served, SPECS[:1], 1, seed=0))
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


def test_the_server_says_how_long(served: Policy) -> None:
    busy = [{"status": 429, "headers": {"Retry-After": text}} for text in ("7", "99999", "soon")]
    pauses = Pauses()
    with serving({"Why 0?": busy}) as server:
        list(engine(server, pauses).sample(served, SPECS[:1], 1, seed=0))
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


# --- the key


def test_the_key_is_sent_and_not_repeated(served: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY + "\n")
    for status in (401, 500):
        fault = {"status": status, "message": "not {Authorization}"}
        with serving({"*": [fault] * 99}) as server, pytest.raises(RolloutError) as caught:
            list(engine(server).sample(served, SPECS, 1, seed=0))
        assert "not Bearer [key]" in str(caught.value)
        chain: list[BaseException | None] = [caught.value]
        while chain[-1] is not None:
            chain.append(chain[-1].__cause__)
        assert CANARY not in repr(chain)


def test_without_a_key_a_stand_in_is_sent(served: Policy) -> None:
    with serving() as server:
        list(engine(server).sample(served, SPECS[:1], 1, seed=0))
        assert server.noted()["requests"][0]["key"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-ä", "sk-a\nb"])
def test_a_key_that_cannot_be_sent(
    served: Policy, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(RolloutError, match=r"OPENAI_API_KEY: must be printable ASCII") as caught:
        list(engine("http://127.0.0.1:1/v1").sample(served, SPECS[:1], 1, seed=0))
    assert key not in str(caught.value)
