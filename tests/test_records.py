"""Records on disk: what is written comes back, and damage is named with its line."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demoalign.errors import StoreError
from demoalign.records import (
    Demonstration,
    Metric,
    Preference,
    Rollout,
    Score,
    read_records,
    to_line,
    write_records,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**40), 2**40)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3)
prompts = texts | messages
plain = st.recursive(
    st.none() | st.booleans() | whole | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
demonstrations = st.builds(
    Demonstration, texts, prompts, texts, st.dictionaries(texts, plain, max_size=2)
)
preferences = st.builds(Preference, texts, prompts, texts, texts)
rollouts = st.builds(
    Rollout,
    texts,
    texts,
    whole,
    texts,
    st.lists(whole, max_size=4),
    numbers,
    st.sampled_from(["stop", "length"]),
    texts,
    whole,
)
scores = st.builds(Score, texts, texts, st.none() | numbers)
metrics = st.builds(
    Metric,
    texts,
    texts,
    texts,
    whole,
    st.none() | numbers,
    st.none() | st.tuples(numbers, numbers),
    whole,
    whole,
    texts,
    st.none() | texts,
    st.none() | texts,
)
Record = TypeVar("Record", Demonstration, Preference, Rollout, Score, Metric)

ROLLOUT = Rollout(
    "p7/sft/3",
    "p7",
    3,
    " Turn it off.",
    [12, 40, 7, 2],
    -3.21,
    "stop",
    "sft",
    0,
    [-1.5, -0.9, -0.8, -0.01],
)
METRIC = Metric("kl_bound", "sft", "none", 2, 0.19, (0.1, 0.2), 1, 0, "nats")


def check_round_trip(records: list[Record], kind: type[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "records.jsonl"
        assert write_records(path, records) == len(records)
        assert read_records(path, kind) == records
        assert [each.name for each in path.parent.iterdir()] == ["records.jsonl"]
        lines = path.read_text(encoding="utf-8").split("\n")
        assert len(lines) == len(records) + 1


@given(st.lists(demonstrations, max_size=3))
@settings(max_examples=40, deadline=None)
def test_demonstrations_come_back(records: list[Demonstration]) -> None:
    check_round_trip(records, Demonstration)


@given(st.lists(preferences, max_size=3))
@settings(max_examples=40, deadline=None)
def test_preferences_come_back(records: list[Preference]) -> None:
    check_round_trip(records, Preference)


@given(st.lists(rollouts, max_size=3))
@settings(max_examples=40, deadline=None)
def test_rollouts_come_back(records: list[Rollout]) -> None:
    check_round_trip(records, Rollout)


@given(st.lists(scores, max_size=3))
@settings(max_examples=40, deadline=None)
def test_scores_come_back(records: list[Score]) -> None:
    check_round_trip(records, Score)


@given(st.lists(metrics, max_size=3))
@settings(max_examples=40, deadline=None)
def test_metrics_come_back(records: list[Metric]) -> None:
    check_round_trip(records, Metric)


def test_the_line_is_the_documented_one() -> None:
    assert to_line(ROLLOUT) == (
        '{"id": "p7/sft/3", "prompt_id": "p7", "index": 3, "completion": " Turn it off.", '
        '"token_ids": [12, 40, 7, 2], "logprob": -3.21, "finish_reason": "stop", '
        '"policy": "sft", "seed": 0, "token_logprobs": [-1.5, -0.9, -0.8, -0.01], '
        '"sampling_logprobs": null}'
    )


def test_text_is_stored_readable_on_one_line() -> None:
    line = to_line(Preference("1", "Où ?\u2028", "ja\nnein\r\n", "猫"))
    assert "Où" in line
    assert "猫" in line
    assert "\n" not in line
    assert "\r" not in line


@pytest.mark.parametrize("name", ["seed", "logprob"])
def test_records_cannot_be_changed(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(ROLLOUT, name, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "scores.jsonl"
    write_records(path, [Score("a", "rm", 1.0)])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(path, [Score("a", "rm", 2.0), Score("b", "rm", value)])
    assert read_records(path, Score) == [Score("a", "rm", 1.0)]
    assert [each.name for each in tmp_path.iterdir()] == ["scores.jsonl"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Score]:
        yield Score("a", "rm", 1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "scores.jsonl", interrupted())
    assert list(tmp_path.iterdir()) == []


GOOD = b'{"rollout_id": "a", "reward_model": "rm", "value": 1.0}\n'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"rollout_id": "b", "rewa', "Unterminated string"),
        (b'{"rollout_id": "b", "value": 1.0}', "missing 1 required positional argument"),
        (GOOD.strip().replace(b"}", b', "extra": 1}'), "unexpected keyword argument 'extra'"),
        (b'["b", "rm", 1.0]', "must be a mapping"),
        (b"", "Expecting value"),
        (GOOD.strip().replace(b"1.0", b"NaN"), "NaN is not a number of JSON"),
        (GOOD.strip().replace(b"1.0", b"-Infinity"), "-Infinity is not a number of JSON"),
        (b'{"rollout_id": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(StoreError) as caught:
        read_records(path, Score)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: expected a Score object, found ")
    assert why in message
    assert "Delete the file's folder to have its stage run again." in message


def test_a_metric_whose_interval_is_no_pair_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    raw = dataclasses.asdict(METRIC)
    path.write_text(to_line(METRIC) + "\n" + json.dumps({**raw, "ci95": [0.1]}) + "\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: expected a Metric object"):
        read_records(path, Metric)


def test_a_missing_file_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"scores\.jsonl: cannot be read .* Run its stage again"):
        read_records(tmp_path / "scores.jsonl", Score)


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").touch()
    assert read_records(tmp_path / "scores.jsonl", Score) == []
