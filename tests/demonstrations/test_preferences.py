"""Preference pairs in every form, and what makes a pair unusable."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
from datasets import Dataset

from demoalign.demonstrations import read_preferences
from demoalign.errors import DataError
from demoalign.records import Preference, Prompt, write_records

from .files import jsonl

ASK = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be."}
HH = "\n\nHuman: Why?\n\nAssistant:"


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        ({"prompt": "Why?", "chosen": "A", "rejected": "B"}, "Why?", "A", "B"),
        ({"prompt": [ASK], "chosen": "A", "rejected": "B"}, [ASK], "A", "B"),
        (
            {"prompt": [ASK], "chosen": [said("A")], "rejected": [said("B")]},
            [ASK],
            "A",
            "B",
        ),
        ({"chosen": [ASK, said("A")], "rejected": [ASK, said("B")]}, [ASK], "A", "B"),
        (
            {
                "prompt": "Why?",
                "chosen": [SYSTEM, ASK, said("A")],
                "rejected": [SYSTEM, ASK, said("B")],
            },
            [SYSTEM, ASK],
            "A",
            "B",
        ),
        (
            {"prompt": [ASK], "chosen": [ASK, said("A")], "rejected": [ASK, said("B")]},
            [ASK],
            "A",
            "B",
        ),
        ({"chosen": f"{HH} A", "rejected": f"{HH} B"}, HH, " A", " B"),
    ],
)
def test_every_form(
    tmp_path: Path, row: object, prompt: Prompt, chosen: str, rejected: str
) -> None:
    (pair,) = read_preferences(jsonl(tmp_path / "p.jsonl", [row]))
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, chosen, rejected)
    assert len(pair.id) == 12


def test_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "chosen": "A", "rejected": "B"}]
    plain = read_preferences(jsonl(tmp_path / "p.jsonl", rows))
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    (tmp_path / "p.csv").write_text("prompt,chosen,rejected\nWhy?,A,B\n")
    Dataset.from_list(rows).to_parquet(tmp_path / "p.parquet")
    for name in ("p.jsonl.gz", "p.csv", "p.parquet"):
        assert read_preferences(tmp_path / name) == plain


def test_our_own_files_read_back_as_they_were(tmp_path: Path) -> None:
    pairs = [Preference("a", "Why?", " A", "B"), Preference("b", [ASK], "A", "B")]
    write_records(tmp_path / "p.jsonl", pairs)
    assert read_preferences(str(tmp_path / "p.jsonl")) == pairs


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "x", "chosen": "A"}, "rejected: is missing; the row has prompt, chosen"),
        ({"prompt": "x", "chosen": 3, "rejected": "B"}, "chosen: must be text, found 3"),
        (
            {"prompt": "", "chosen": "A", "rejected": "B"},
            'prompt: must not be empty or only whitespace, found ""',
        ),
        (
            {"prompt": "x", "chosen": "A", "rejected": "A"},
            'rejected: must differ from chosen, found "A" in both',
        ),
        (
            {"chosen": "A", "rejected": "B"},
            "prompt: is missing, and chosen and rejected are not transcripts that hold it "
            "('\\n\\nAssistant:'), found \"A\"",
        ),
        (
            {"chosen": f"{HH} A", "rejected": "\n\nHuman: Who?\n\nAssistant: B"},
            "rejected: must share chosen's prompt up to the last '\\n\\nAssistant:', "
            'found that they differ from character 11: "o?\\n\\nAssistant:"',
        ),
        (
            {"chosen": f"{HH} A", "rejected": "B"},
            "rejected: must be a transcript with '\\n\\nAssistant:', found \"B\"",
        ),
        (
            {"chosen": [ASK, said("A")], "rejected": [SYSTEM, ASK, said("B")]},
            "rejected: must share chosen's prompt messages, "
            'found [{"role": "system", "content": "Be."}, {"role": "user", "...',
        ),
        (
            {"chosen": [ASK, said("A")], "rejected": "B"},
            'rejected: must be a list of messages, found "B"',
        ),
        (
            {"chosen": [said("A")], "rejected": [said("B")]},
            "prompt: is missing; the row has chosen, rejected",
        ),
        (
            {"prompt": "x", "chosen": [said("A")], "rejected": [said("B")]},
            'prompt: must be a list of messages as chosen is one, found "x"',
        ),
        (
            {"prompt": "Who?", "chosen": [ASK, said("A")], "rejected": [ASK, said("B")]},
            'prompt: must agree with chosen\'s prompt messages, found "Who?"',
        ),
        (
            {"chosen": [ASK, ASK], "rejected": [ASK, said("B")]},
            "chosen: the last message must be the assistant's, "
            'found {"role": "user", "content": "Why?"}',
        ),
    ],
)
def test_bad_pairs(tmp_path: Path, row: object, what: str) -> None:
    good = {"prompt": "Why?", "chosen": "A", "rejected": "B"}
    with pytest.raises(DataError) as caught:
        read_preferences(jsonl(tmp_path / "p.jsonl", [good, row]))
    (problem,) = caught.value.problems
    assert (problem.where, problem.what) == ("p.jsonl:2", what)


def test_skipped_pairs_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {"prompt": "Why?", "chosen": "A", "rejected": "B"}
    path = jsonl(tmp_path / "p.jsonl", [good, {**good, "chosen": ""}])
    with caplog.at_level(logging.WARNING):
        assert len(read_preferences(path, skip_invalid=True)) == 1
    assert "p.jsonl: 1 rows skipped" in caplog.text


def test_other_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_preferences(jsonl(tmp_path / "p.jsonl", [{"prompt": "x", "best": "y"}]))
    assert str(caught.value) == (
        "p.jsonl: preferences need the columns chosen and rejected (and prompt, unless these "
        "hold it), found the columns prompt, best"
    )
