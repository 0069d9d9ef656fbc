r"""HH-RLHF as it really is: what each trap becomes, and that no text is read as another's turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoalign.demonstrations import (
    Rejected,
    read_demonstrations,
    read_preferences,
    stream_demonstrations,
)
from demoalign.demonstrations.fields import RowError
from demoalign.demonstrations.formats import FORMATS, convert
from demoalign.demonstrations.hh_rlhf import ASSISTANT, HUMAN, NOTE, pair_note
from demoalign.demonstrations.preferences import pair_of
from demoalign.errors import DataError
from demoalign.records import Demonstration
from tests.demonstrations.files import jsonl
from tests.demonstrations.hh_rows import NOTED, REJECTED, TRAPS, kinds, write_gz

ROWS = list(kinds(4000, seed=1))
HH = FORMATS["hh-rlhf"]

PARTS = ["Human:", "Assistant:", "\n", "\n\n", " ", "a", "b.", "Human", "\n\nHuman ", "\r\n", "é"]


def harmless(text: str) -> bool:
    """Whether no paragraph of it begins as a turn does."""
    return HUMAN not in f"\n\n{text}" and ASSISTANT not in f"\n\n{text}"


texts = st.lists(st.sampled_from(PARTS), max_size=8).map("".join).filter(harmless)
said = texts.filter(lambda text: bool(text.strip()) and not text.endswith("\n"))
turns = st.lists(st.tuples(texts, texts), max_size=3)


def transcript(earlier: Sequence[tuple[str, str]], question: str) -> str:
    before = "".join(f"{HUMAN} {asked}{ASSISTANT} {told}" for asked, told in earlier)
    return f"{before}{HUMAN} {question}{ASSISTANT}"


def test_there_is_a_row_of_each_kind() -> None:
    found = Counter(kind for kind, _ in ROWS)
    assert set(found) == {"", *TRAPS}


@pytest.mark.parametrize("compressed", [False, True])
def test_each_trap_becomes_what_it_should(tmp_path: Path, compressed: bool) -> None:
    rows = [row for _, row in ROWS]
    if compressed:
        path = write_gz(tmp_path / "hh.jsonl.gz", rows)
    else:
        path = jsonl(tmp_path / "hh.jsonl", rows)
    read = read_demonstrations(path, skip_invalid=True)
    assert read.format == "hh-rlhf"
    bad = {int(each.where.rpartition(":")[2]) for each in read.rejected}
    expected = {number for number, (kind, _) in enumerate(ROWS, 1) if kind in REJECTED}
    assert bad == expected
    good = [(kind, row) for kind, row in ROWS if kind not in REJECTED]
    for (kind, row), made in zip(good, read.rows, strict=True):
        assert isinstance(made.prompt, str)
        assert made.prompt + made.completion == row["chosen"], kind
        assert made.prompt.endswith(ASSISTANT)
        assert (NOTE in made.meta) == (kind in NOTED), kind
        assert "rejected" not in made.meta, "the other answer is no part of a demonstration"


def test_as_preferences_what_is_no_pair_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "hh.jsonl", (row for _, row in ROWS))
    with pytest.raises(DataError) as caught:
        read_preferences(path)
    bad = {int(each.where.rpartition(":")[2]) for each in caught.value.problems}
    unusable = {*REJECTED, *NOTED, "rejected says nothing"}
    assert bad == {number for number, (kind, _) in enumerate(ROWS, 1) if kind in unusable}
    differ = [each.what for each in caught.value.problems if "share chosen's prompt" in each.what]
    assert len(differ) == sum(kind == "another prompt" for kind, _ in ROWS)
    kept = read_preferences(path, skip_invalid=True)
    assert len(kept) == len(ROWS) - len(bad)


def test_a_stream_has_what_reading_has(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "hh.jsonl", (row for _, row in ROWS))
    read = read_demonstrations(path, skip_invalid=True)
    stream = stream_demonstrations(path)
    found = list(stream.rows)
    made = [each for each in found if isinstance(each, Demonstration)]
    assert [each for each in found if isinstance(each, Rejected)] == list(read.rejected)
    assert [(m.prompt, m.completion, m.meta) for m in made] == [
        (r.prompt, r.completion, r.meta) for r in read.rows
    ]
    first = {row.id: row for row in read.rows if "-" not in row.id}
    assert all(first[m.id].prompt == m.prompt for m in made)


@given(turns, said, said)
def test_the_last_assistant_splits_whatever_the_texts_say(
    earlier: list[tuple[str, str]], question: str, answer: str
) -> None:
    prompt = transcript(earlier, question)
    found, completion, meta = convert({"chosen": f"{prompt} {answer}"}, HH)
    assert (found, completion, meta) == (prompt, f" {answer}", {})


@given(turns, said, said, turns, said, said)
def test_a_pair_is_noted_just_if_its_prompts_or_not_its_answers_differ(
    one: list[tuple[str, str]], asked: str, good: str,
    other: list[tuple[str, str]], again: str, bad: str,
) -> None:  # fmt: skip
    first, second = transcript(one, asked), transcript(other, again)
    row = {"chosen": f"{first} {good}", "rejected": f"{second} {bad}"}
    note = pair_note(row).get(NOTE)
    if first != second:
        at = int(note.rpartition(" ")[2]) if note else -1
        assert first[:at] == second[:at]
        assert first[at : at + 1] != second[at : at + 1]
        with pytest.raises(RowError, match="must share chosen's prompt"):
            pair_of(row)
    elif good == bad:
        assert note == "both answers are the same"
    else:
        assert note is None
        assert pair_of(row).prompt == first


def test_an_answer_with_a_turn_in_it_shows_in_the_pair() -> None:
    """Nobody can tell from the one transcript, but the other says where the prompt ends."""
    prompt = transcript([], "Write a play.")
    row = {"chosen": f"{prompt} Act one.{ASSISTANT} Hello.", "rejected": f"{prompt} No."}
    assert pair_note(row)[NOTE].startswith("the prompts differ from character")
    assert pair_note({**row, "rejected": "no transcript"})[NOTE] == "rejected is no transcript"
