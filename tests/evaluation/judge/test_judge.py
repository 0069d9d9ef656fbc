"""A judge behind a real server: slow, busy, failing, talking nonsense, refusing, honest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demoalign.config import JudgeConfig
from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.errors import EvaluationError
from demoalign.evaluation.judge import (
    Answer,
    Asked,
    Judge,
    Pair,
    control_pairs,
    load_template,
    measure,
    measure_controls,
)
from tests.judges import answers_of
from tests.rollouts.remote import CANARY, Pauses, canaries
from tests.servers import Json, Server, closed_port, serving

TEXTS = [("Turn the key.", "No no."), ("aaa", "Unplug the lamp."), ("abc", "abd"), ("same", "same")]
PAIRS = [
    Pair(f"p{i}", f"Why {i}?", Answer(f"p{i}/sft/0", first), Answer(f"p{i}/initial/0", second))
    for i, (first, second) in enumerate(TEXTS)
]
QUESTIONS = 6
"""Two for each pair of different texts."""


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def config(server: Server | str, **changes: Any) -> JudgeConfig:
    url = server if isinstance(server, str) else server.base_url
    plain = {"base_url": url, "model": "my-judge", "concurrency": 2, "retries": 3, **changes}
    return JudgeConfig.model_validate(plain)


def judge(
    server: Server | str, stored: Path | None = None, pauses: Pauses | None = None, **changes: Any
) -> Judge:
    given = config(server, **changes)
    template = load_template(given.template, given.criterion)
    return Judge(given, template, stored, (pauses or Pauses()).backoff)


def results(asked: Asked) -> list[str]:
    return [outcome.result for outcome in asked.outcomes]


def question_of(body: Json) -> str:
    (message,) = body["messages"]
    assert message["role"] == "user"
    return str(message["content"])


# --- what is asked and what comes of it


def test_an_honest_judge_in_both_orders() -> None:
    with serving(judge="letters") as server:
        asked = judge(server).judge(PAIRS)
        bodies = server.bodies()
        paths = {request["path"] for request in server.noted()["requests"]}
    assert results(asked) == ["win", "lose", "tie", "tie"]
    assert [outcome.verdicts for outcome in asked.outcomes] == [
        ("A", "B"),
        ("B", "A"),
        ("tie", "tie"),
        None,
    ]
    assert paths == {"/v1/chat/completions"}
    placed = sorted(answers_of(question_of(body)) for body in bodies)
    assert placed == sorted(pair for a, b in TEXTS[:3] for pair in ((a, b), (b, a)))
    assert {body["model"] for body in bodies} == {"my-judge"}
    assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0.0, 256)}
    assert "which ###Response is more helpful?### Conversation: Why 0?" in "".join(
        map(question_of, bodies)
    )


def test_always_the_first_is_a_tie_and_nothing_but_flips() -> None:
    with serving(judge="first") as server:
        found = measure(judge(server).judge(PAIRS[:3]).outcomes)
    values = {name: share.value for name, share in found.items()}
    assert (values["win"], values["tie"], values["lose"]) == (0, 1, 0)
    assert (values["flip_rate"], values["first_position"]) == (1, 1)
    assert values["single_order_win_rate"] == 0.5


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("nonsense", "unparseable"),
        ("refusing", "refused"),
        ("declining", "refused"),
        ("filtered", "refused"),
    ],
)
def test_what_is_no_verdict_is_no_tie(name: str, result: str) -> None:
    with serving(judge=name) as server:
        outcomes = judge(server).judge(PAIRS[:3]).outcomes
    found = measure(outcomes)
    assert {outcome.result for outcome in outcomes} == {result}
    assert found[result].value == 1
    assert (found["win"].value, found["tie"].value, found["lose"].value) == (None, None, None)
    assert "no pair was judged" in str(found["win"].reason)


def test_controls_tell_a_judge_that_can_be_had() -> None:
    controls = control_pairs([Pair(p.prompt_id, p.prompt, p.first, p.first) for p in PAIRS], 3)
    passed = {}
    for name in ("letters", "wary", "first"):
        with serving(judge=name) as server:
            found = measure_controls(judge(server).judge(controls).outcomes)
            assert len(server.bodies()) == 3 * 4 * 2
        passed[name] = {kind: shares["passed"].value for kind, shares in found.items()}
    assert passed["letters"] == {"empty": 1, "colon": 1, "instruction": 0, "itself": 1}
    assert passed["wary"] == {"empty": 1, "colon": 1, "instruction": 1, "itself": 1}
    assert passed["first"] == {"empty": 0, "colon": 0, "instruction": 0, "itself": 1}


def test_further_parameters_and_ones_that_are_left_out() -> None:
    changes: Json = {
        "temperature": None,
        "max_tokens": None,
        "parameters": {"reasoning_effort": "low"},
    }
    with serving(judge="letters") as server:
        judge(server, **changes).judge(PAIRS[:1])
        assert {tuple(sorted(body)) for body in server.bodies()} == {
            ("messages", "model", "reasoning_effort")
        }


# --- servers that do not simply answer


def test_a_slow_server_is_waited_for_and_no_more_is_asked_at_once_than_allowed() -> None:
    with serving(judge="letters", slow=0.1) as server:
        asked = judge(server, concurrency=3).judge(PAIRS)
        assert server.noted()["peak"] <= 3
    assert results(asked) == ["win", "lose", "tie", "tie"]


def test_a_rate_limit_is_waited_out() -> None:
    busy = {"status": 429, "headers": {"Retry-After": "7"}, "message": "slow down"}
    pauses = Pauses()
    with serving({"*": [busy] * 3}, judge="letters") as server:
        asked = judge(server, pauses=pauses).judge(PAIRS)
        assert len(server.bodies()) == QUESTIONS + 3
    assert results(asked) == ["win", "lose", "tie", "tie"]
    assert asked.again == 3
    waited = [pause for pause in pauses.made if pause >= 7]
    assert len(waited) >= 3
    assert all(pause <= 8 for pause in pauses.made), "nor does any other wait longer"


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "message": "out of memory"},
        {"cut": True},
        {"raw": "garbage {"},
        {"raw": '{"choices": []}'},
        {"raw": '{"choices": [{"text": "A"}]}'},
        {"raw": '{"choices": [{"message": {"content": 7}}]}'},
        {"raw": '{"error": {"message": "overloaded"}}'},
    ],
    ids=lambda fault: str(fault)[:40],
)
def test_a_failure_that_may_pass_is_asked_again(fault: Json) -> None:
    with serving({"*": [fault] * 2}, judge="letters") as server:
        asked = judge(server).judge(PAIRS)
        assert len(server.bodies()) == QUESTIONS + 2
    assert results(asked) == ["win", "lose", "tie", "tie"]


def test_what_had_come_is_kept_when_the_server_gives_up(tmp_path: Path) -> None:
    stored = tmp_path / "responses.jsonl"
    fails = {"status": 500, "message": "out of memory"}
    with serving(judge="letters") as server:
        judge(server, stored).judge(PAIRS[:2])
        first = stored.read_bytes()
    with serving({"*": [fails] * 99}, judge="letters") as other:
        same = judge(other, stored, base_url=server.base_url)  # nobody is there any more
        with pytest.raises(EvaluationError) as caught:
            same.judge(PAIRS)
    message = str(caught.value)
    assert "0 of 2 replies had come and are stored. Run the same command again" in message
    assert "given up after 4 tries" in message
    assert "evaluation.judge.retries" in message
    assert stored.read_bytes() == first


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "temperature, max_tokens and parameters of evaluation.judge"),
        (401, "Set OPENAI_API_KEY"),
        (404, "--model (evaluation.judge.model)"),
    ],
)
def test_a_refusal_of_the_whole_ends_it_at_once(status: int, advice: str) -> None:
    fault = {"status": status, "message": "no such thing"}
    with serving({"*": [fault] * 99}, judge="letters") as server:
        with pytest.raises(EvaluationError) as caught:
            judge(server, concurrency=1).judge(PAIRS)
        assert len(server.bodies()) == 1
    assert f"status {status}: no such thing" in str(caught.value)
    assert advice in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with (
        serving(judge="letters", needs_key=True) as server,
        pytest.raises(EvaluationError) as caught,
    ):
        judge(server).judge(PAIRS)
    assert "Set OPENAI_API_KEY to a key that the server accepts; none is set." in str(caught.value)


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_a_refusal_of_one_text_spoils_that_pair_alone(code: str) -> None:
    fault = {"status": 400, "raw": {"error": {"message": "Not this one.", "code": code}}}
    with serving({"*": [fault]}, judge="letters") as server:
        asked = judge(server, concurrency=1).judge(PAIRS)
        assert len(server.bodies()) == QUESTIONS
    assert results(asked) == ["refused", "lose", "tie", "tie"]
    assert asked.outcomes[0].said[0] == "Not this one."


def test_nobody_answers() -> None:
    with pytest.raises(EvaluationError, match=r"ConnectError.*0 of 6 replies"):
        judge(f"http://127.0.0.1:{closed_port()}/v1", retries=1).judge(PAIRS)


# --- replies are paid for once


def test_stored_replies_are_not_asked_for_again(tmp_path: Path) -> None:
    stored = tmp_path / "judge" / "responses.jsonl"
    with serving(judge="letters") as server:
        first = judge(server, stored).judge(PAIRS)
        with stored.open("ab") as stream:
            stream.write(b'{"key": "ab')  # a line that a kill had cut
        again = judge(server, stored).judge(PAIRS)
        assert len(server.bodies()) == QUESTIONS
        more = Pair("p9", "Why 9?", Answer("a", "one"), Answer("b", "two"))
        judge(server, stored).judge([*PAIRS, more])
        assert len(server.bodies()) == QUESTIONS + 2
        judge(server, stored).judge([*PAIRS, more])
        assert len(server.bodies()) == QUESTIONS + 2
    assert again.outcomes == first.outcomes
    assert (first.now.replies, again.now.replies) == (QUESTIONS, 0)
    assert first.cost == again.cost == first.now


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"criterion": "harmless"},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"parameters": {"top_p": 0.5}},
    ],
    ids=str,
)
def test_whatever_could_change_a_reply_is_another_question(tmp_path: Path, change: Json) -> None:
    stored = tmp_path / "responses.jsonl"
    with serving(judge="letters") as server:
        judge(server, stored).judge(PAIRS[:1])
        judge(server, stored, **change).judge(PAIRS[:1])
        assert len(server.bodies()) == 4
        judge(server, stored, concurrency=1, timeout=9, price={"input": 1, "output": 1}).judge(
            PAIRS[:1]
        )
        assert len(server.bodies()) == 4
    with serving(judge="letters") as other:
        judge(other, stored).judge(PAIRS[:1])
        assert len(other.bodies()) == 2, "another server may have another model of that name"


def test_the_key_is_sent_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY)
    said = {"choices": [{"message": {"content": f"A {CANARY}", "refusal": CANARY}}]}
    faults: list[Json] = [{"raw": json.dumps(said)}, {"status": 500, "message": "{Authorization}"}]
    refused = {"status": 400, "message": "content_filter: {Authorization}"}
    with serving({"*": [*faults, refused]}, judge="letters") as server:
        asked = judge(server, tmp_path / "responses.jsonl").judge(PAIRS)
        assert {each["key"] for each in server.noted()["requests"]} == {f"Bearer {CANARY}"}
    assert canaries(tmp_path) == []
    assert CANARY not in repr(asked)
    assert "[key]" in repr(asked)


# --- what it costs


def test_cost_before_and_after(tmp_path: Path) -> None:
    stored = tmp_path / "responses.jsonl"
    price = {"input": 2.0, "output": 10.0}
    with serving({"*": [{"answer": {"usage": None}}]}, judge="letters") as server:
        asker = judge(server, stored, price=price, max_tokens=5)
        before = asker.estimate(PAIRS)
        assert server.bodies() == []
        after = asker.judge(PAIRS)
        sizes = [len(question_of(body)) for body in server.bodies()]
    assert (before.requests, before.stored) == (QUESTIONS, 0)
    assert before.prompt_tokens == sum(-(-size // 4) for size in sizes)
    assert before.completion_tokens == 5 * QUESTIONS
    assert before.price == pytest.approx((before.prompt_tokens * 2 + 30 * 10) / 1e6)
    assert (after.cost.replies, after.cost.without_usage) == (QUESTIONS, 1)
    assert (after.cost.prompt_tokens, after.cost.completion_tokens) == (500, 10)
    assert after.cost.price == pytest.approx((500 * 2 + 10 * 10) / 1e6)
    left = judge(server, stored, price=price, max_tokens=5).estimate(PAIRS)
    assert (left.requests, left.stored, left.price) == (0, QUESTIONS, 0)


def test_a_cost_that_is_not_known_is_not_zero() -> None:
    silent = {"answer": {"usage": {"prompt_tokens": -1}}}
    with serving({"*": [silent] * QUESTIONS}, judge="letters") as server:
        asker = judge(server, max_tokens=None)
        assert asker.estimate(PAIRS).completion_tokens is None
        cost = asker.judge(PAIRS).cost
    assert (cost.prompt_tokens, cost.completion_tokens, cost.price) == (None, None, None)
    assert cost.without_usage == QUESTIONS
