"""What a server's choice may look like, and the rollout that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demoalign.errors import RolloutError
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts.write import read_rollouts, write_rollouts
from tests.rollouts.remote import (
    SPECS,
    engine,
)
from tests.servers import serving


def answered(served: Policy, choice: dict[str, Any], **changes: Any) -> Rollout:
    """The rollout of a choice that the server gives."""
    with serving({"*": [{"choice": choice}]}) as server:
        (found,) = engine(server, **changes).sample(served, SPECS[:1], 1, seed=0)
        assert len(server.bodies()) == 1
    return found


def split(served: Policy, text: str) -> list[str]:
    tokenizer = served.backbone.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.decode([token]) for token in ids]


def logprobs_of(tokens: list[str]) -> dict[str, Any]:
    return {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)}


def test_an_empty_text_is_a_completion(served: Policy) -> None:
    found = answered(served, {"text": ""})
    assert (found.completion, found.finish_reason) == ("", "stop")
    assert found.token_ids == [served.backbone.tokenizer.eos_token_id]
    assert found.logprob is None


TEXT = " Turn it off."


@pytest.mark.parametrize("end", ["", "<|endoftext|>", "</s>"])
def test_logprobs_that_stand_beside_the_ids(served: Policy, end: str) -> None:
    tokens = [*split(served, TEXT), end]
    found = answered(served, {"text": TEXT, "logprobs": logprobs_of(tokens)})
    assert found.token_logprobs == [-0.5] * len(found.token_ids)
    assert found.logprob == -0.5 * len(tokens)


@pytest.mark.parametrize(
    ("tokens", "reason", "logprob"),
    [
        ([*TEXT, "<|endoftext|>"], "stop", -0.5 * 14),  # other tokens, the same sequence
        ([*TEXT], "length", -0.5 * 13),
        (["", "\ufffd", *TEXT, "<s>", ""], "stop", -0.5 * 17),  # what text does not show
        ([*TEXT], "stop", None),  # the end token's is missing
        (["x", "y"], "length", None),  # not this text
        (["x"], "stop", None),
        ([], "stop", None),
    ],
)
def test_logprobs_of_other_tokens(
    served: Policy, tokens: list[str], reason: str, logprob: float | None
) -> None:
    choice = {"text": TEXT, "finish_reason": reason, "logprobs": logprobs_of(tokens)}
    found = answered(served, choice)
    assert found.token_logprobs is None
    assert found.logprob == logprob


def test_as_many_tokens_but_other_ones_do_not_stand_beside_the_ids(served: Policy) -> None:
    """A server that leaves the end token out may come to our number by another split."""
    ours = split(served, TEXT)
    at = next(i for i, token in enumerate(ours) if len(token) > 1)
    theirs = [*ours[:at], ours[at][:1], ours[at][1:], *ours[at + 1 :]]
    found = answered(served, {"text": TEXT, "logprobs": logprobs_of(theirs)})
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
def test_logprobs_that_are_not_there_are_none_and_not_0(served: Policy, logprobs: Any) -> None:
    found = answered(served, {"text": "a", "logprobs": logprobs})
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
def test_finish_reasons(served: Policy, choice: dict[str, Any], reason: str, ended: bool) -> None:
    found = answered(served, {"text": TEXT, **choice})
    assert found.finish_reason == reason
    assert (found.token_ids[-1] == served.backbone.tokenizer.eos_token_id) == ended


def test_a_content_filter_is_reported(served: Policy, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = split(served, TEXT)
    choice = {"finish_reason": "content_filter", "text": TEXT, "logprobs": logprobs_of(tokens)}
    found = answered(served, choice)
    assert found.logprob is None
    assert "content filter cut 1 of 1 completions" in capsys.readouterr().err


def test_a_reason_that_is_no_end_is_asked_again(served: Policy) -> None:
    aborted = {"choice": {"finish_reason": "abort"}}
    with serving({"Why 0?": [aborted]}) as server:
        found = list(engine(server).sample(served, SPECS[:1], 2, seed=0))
        assert len(server.bodies()) == 2
    assert len(found) == 2
    with (
        serving({"Why 0?": [aborted] * 4}) as server,
        pytest.raises(RolloutError, match=r"none that can be used.*'abort'"),
    ):
        list(engine(server).sample(served, SPECS[:1], 2, seed=0))


def test_half_a_surrogate_pair_can_be_stored(served: Policy, tmp_path: Path) -> None:
    with serving({"*": [{"choice": {"text": "a\ud800b"}}]}) as server:
        write_rollouts(tmp_path / "r.jsonl", engine(server), served, SPECS[:1], 1, 0)
    assert read_rollouts(tmp_path / "r.jsonl")[0].completion == "a?b"
