"""Files, folders and the hub; ids; what is kept and what is rejected."""

from __future__ import annotations

import gzip
import importlib
import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from demoalign.demonstrations import Demonstrations, read_demonstrations, write_rejected
from demoalign.demonstrations.sources import hub_rows
from demoalign.errors import DataError
from demoalign.records import Demonstration, write_records

from .files import GOOD, jsonl

ROWS = [
    {"prompt": "Why?", "completion": " Because.", "source": "a"},
    {"prompt": "How, then?", "completion": "So: é\nand “so”.", "source": "b"},
]
EXPECTED = [("Why?", " Because."), ("How, then?", "So: é\nand “so”.")]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # The reader's own files hold no lone surrogates: nothing on disk can.
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)
words = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda each: bool(each.strip()))
conversation = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "assistant"]), "content": words}),
    max_size=3,
).map(lambda before: [*before, {"role": "user", "content": "And?"}])
demonstrations = st.builds(
    Demonstration,
    id=words,
    prompt=words | conversation,
    completion=words,
    meta=st.dictionaries(st.text(st.characters(codec="utf-8")), anything, max_size=3),
)


def pairs(read: Demonstrations) -> list[tuple[object, str]]:
    return [(row.prompt, row.completion) for row in read]


@settings(deadline=None)
@given(rows=st.lists(demonstrations, min_size=1, max_size=6, unique_by=lambda row: row.id))
def test_our_own_files_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Demonstration]
) -> None:
    path = tmp_path_factory.mktemp("round") / "train.jsonl"
    write_records(path, rows)
    assert list(read_demonstrations(path)) == rows


pieces = st.sampled_from(
    [GOOD.encode(), b"prompt,completion", b'"', b",", b"\n", b"[", b"]", b"\xff"]
)


@settings(max_examples=300, deadline=None)
@given(
    content=st.lists(pieces | st.binary(max_size=4), max_size=12).map(b"".join),
    name=st.sampled_from(["d.jsonl", "d.json", "d.csv"]),
)
def test_any_bytes_give_demonstrations_or_an_explanation(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        read = read_demonstrations(path, skip_invalid=True)
    except DataError:
        return
    assert len(read) > 0
    assert list(read) == list(read_demonstrations(path, skip_invalid=True))
    write_records(path.with_name("out.jsonl"), read)
    assert write_rejected(path.with_name("rejected.jsonl"), read) == len(read.problems)


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.json.gz", "d.parquet"])
def test_every_kind_of_file_gives_the_same_demonstrations(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        Dataset.from_list(ROWS).to_parquet(path)
    else:
        whole = json.dumps(ROWS, indent=1) if ".json." in name + "." else ""
        content = whole or "".join(json.dumps(row) + "\n" for row in ROWS)
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    read = read_demonstrations(str(path))
    assert pairs(read) == EXPECTED
    assert [row.meta for row in read] == [{"source": "a"}, {"source": "b"}]
    assert read.rows == read_demonstrations(jsonl(tmp_path / "same.jsonl", ROWS)).rows


def test_csv_keeps_commas_line_breaks_and_takes_an_empty_cell_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(
        "\ufeffinstruction,input,output,,tag\r\n"
        '"One, two",,"a\r\nb",0,x\r\n'
        "\r\n"
        "Add,2 and 2,four,1,\r\n".encode()
    )
    read = read_demonstrations(path)
    assert read.format == "alpaca"
    assert [row.completion for row in read] == ["a\r\nb", "four"]
    assert "### Input" not in str(read[0].prompt)
    assert "### Input:\n2 and 2\n" in str(read[1].prompt)
    assert [row.meta for row in read] == [{"tag": "x"}, {"tag": None}]


def test_a_csv_cell_may_be_longer_than_the_standard_limit(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"prompt,completion\nWhy?,{'x' * 200_000}\n")
    assert len(read_demonstrations(path)[0].completion) == 200_000


def test_parquet_lists_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    Dataset.from_list([{"messages": turns, "n": 1.5}, {"messages": None, "n": None}]).to_parquet(
        path
    )
    with pytest.raises(DataError, match=r"d\.parquet:row 2: messages: must be a list of messages"):
        read_demonstrations(path)
    (row,) = read_demonstrations(path, skip_invalid=True)
    assert row.prompt == [{"role": "user", "content": "Hi"}]
    assert row.completion == "Hello"
    assert row.meta == {"n": 1.5}


def test_bom_crlf_blank_lines_and_a_missing_last_newline_are_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n  \n\n{GOOD}".encode())
    assert pairs(read_demonstrations(path)) == [("Why?", " Because.")] * 2


def test_one_object_a_line_under_the_name_json(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    assert len(read_demonstrations(path)) == 2


def test_ids_depend_on_content_and_not_on_position(tmp_path: Path) -> None:
    forward = read_demonstrations(jsonl(tmp_path / "a.jsonl", ROWS))
    backward = read_demonstrations(jsonl(tmp_path / "b.jsonl", ROWS[::-1]))
    assert [row.id for row in forward] == [row.id for row in backward][::-1]
    assert all(len(row.id) == 12 and int(row.id, 16) >= 0 for row in forward)


def test_exact_duplicates_get_a_number(tmp_path: Path) -> None:
    ids = [row.id for row in read_demonstrations(jsonl(tmp_path / "a.jsonl", [ROWS[0]] * 3))]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]


def test_own_ids_are_kept_where_they_are_unique(tmp_path: Path) -> None:
    own = ["x", 7, "twice", "twice", None, True, " "]
    rows = [{**ROWS[0], "completion": f"{n}", "id": mine} for n, mine in enumerate(own)]
    read = read_demonstrations(jsonl(tmp_path / "a.jsonl", rows))
    ids = [row.id for row in read]
    assert ids[:2] == ["x", "7"]
    assert len(set(ids)) == 7
    assert all(len(each) == 12 for each in ids[2:])
    assert [row.meta.get("id") for row in read] == [None, None, "twice", "twice", None, True, " "]


def test_an_own_id_that_looks_like_a_content_id_stays_unique(tmp_path: Path) -> None:
    (first,) = read_demonstrations(jsonl(tmp_path / "a.jsonl", [ROWS[0]]))
    rows = [ROWS[0], {**ROWS[1], "id": first.id}]
    ids = [row.id for row in read_demonstrations(jsonl(tmp_path / "b.jsonl", rows))]
    assert ids == [f"{first.id}-2", first.id]


def test_meta_holds_only_what_json_can(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "p": NaN, "q": [1e999], "r": "\\ud800"}\n')
    assert read_demonstrations(path)[0].meta == {"p": None, "q": [None], "r": "?"}


def test_limit_stops_after_so_many_usable_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"prompt": "", "completion": "x"}, *ROWS])
    read = read_demonstrations(path, limit=1, skip_invalid=True)
    assert pairs(read) == EXPECTED[:1]
    assert len(read.problems) == 1
    with pytest.raises(DataError, match="limit: must be at least 1, found 0"):
        read_demonstrations(path, limit=0)


def test_skipped_rows_can_be_written_down(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    bad = {"prompt": "é", "completion": ""}
    half = '{"prompt": "\\ud800", "completion": "x"}'
    path.write_bytes(
        f"{GOOD}\n{json.dumps(bad)}\n{half}\n".encode() + b'{"prompt": "\xff"\n' + b'{"prom'
    )
    read = read_demonstrations(path, skip_invalid=True)
    assert len(read) == 1
    assert write_rejected(tmp_path / "out" / "rejected.jsonl", read) == 4
    lines = (tmp_path / "out" / "rejected.jsonl").read_text("utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert [each["row"] for each in written] == [
        bad,
        {"prompt": "\ud800", "completion": "x"},
        '{"prompt": "\\xff"',
        '{"prom',
    ]
    assert [each["where"] for each in written] == [f"d.jsonl:{n}" for n in (2, 3, 4, 5)]
    assert [each["what"] for each in written] == [problem.what for problem in read.problems]


def test_a_folder_is_read_whole_unless_its_files_name_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    jsonl(folder / "a.jsonl", ROWS[:1])
    jsonl(folder / "data" / "b.jsonl", ROWS[1:])
    (folder / "README.md").write_text("not data")
    assert pairs(read_demonstrations(folder)) == EXPECTED
    jsonl(folder / "data" / "test-0.jsonl", ROWS[:1])
    assert pairs(read_demonstrations(folder, split="test")) == EXPECTED[:1]
    with pytest.raises(DataError, match="set: no file for split 'train', found splits test"):
        read_demonstrations(folder)


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file in this folder"):
        read_demonstrations(tmp_path)


def test_where_in_a_folder_names_the_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ROWS)
    jsonl(tmp_path / "b.jsonl", [{"prompt": "x", "completion": ""}])
    with pytest.raises(DataError, match=r"b.jsonl:1: completion: must not be empty"):
        read_demonstrations(tmp_path)


def test_a_saved_data_set(tmp_path: Path) -> None:
    saved = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])})
    saved.save_to_disk(tmp_path / "all")
    saved["test"].save_to_disk(tmp_path / "one")
    assert pairs(read_demonstrations(tmp_path / "all")) == EXPECTED
    assert pairs(read_demonstrations(tmp_path / "all", split="test")) == EXPECTED[:1]
    assert pairs(read_demonstrations(tmp_path / "one")) == EXPECTED[:1]
    with pytest.raises(DataError, match="all: no split 'dev', found splits train, test"):
        read_demonstrations(tmp_path / "all", split="dev")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="one: cannot be read as a saved data set"):
        read_demonstrations(tmp_path / "one")


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for module in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(importlib.import_module(module), "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        read_demonstrations("nobody-at-all/no-such-data")
    message = str(caught.value)
    assert message.startswith("nobody-at-all/no-such-data: no such file (tried /")
    assert "split 'train' of a data set of this name cannot be loaded from the hub" in message


def test_what_the_hubs_loader_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = importlib.import_module("datasets.config")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    jsonl(tmp_path / "set" / "train.jsonl", ROWS)
    # A folder stands in for a hub id: its rows come through the same loader.
    rows = list(hub_rows(str(tmp_path / "set"), "train"))
    assert [row.value for row in rows] == ROWS
    assert rows[1].where == f"{tmp_path / 'set'}:row 2"
    with pytest.raises(DataError, match="split 'dev' of a data set of this name cannot be loaded"):
        list(hub_rows(str(tmp_path / "set"), "dev"))


def test_a_part_and_a_split_of_a_hub_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = importlib.import_module("datasets.config")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for part in ("harmless-base", "helpful-base"):  # laid out as Anthropic/hh-rlhf
        for split in ("train", "test"):
            row = {"text": f"\n\nHuman: {part}?\n\nAssistant: {split}"}
            jsonl(tmp_path / "hh" / part / f"{split}.jsonl", [row])
    source = str(tmp_path / "hh")
    (found,) = hub_rows(f"{source}:harmless-base@test", "train")
    assert found.value == {"text": "\n\nHuman: harmless-base?\n\nAssistant: test"}
    (found,) = hub_rows(f"{source}:helpful-base", "train")
    assert found.value == {"text": "\n\nHuman: helpful-base?\n\nAssistant: train"}
    with pytest.raises(DataError, match="split 'dev' of a data set of this name cannot be loaded"):
        list(hub_rows(f"{source}:helpful-base@dev", "train"))
    with pytest.raises(DataError, match="cannot be loaded from the hub"):
        list(hub_rows(f"{source}:nowhere", "train"))


def test_many_rows(tmp_path: Path) -> None:
    rows = ({"prompt": f"Question {n}", "completion": f"Answer {n}"} for n in range(20_000))
    read = Demonstrations.read(jsonl(tmp_path / "big.jsonl", rows))
    assert len(read) == len({row.id for row in read}) == 20_000
    assert len(read.split(0.1, 0).test) == 2_000


def test_from_rows_wants_rows_and_unique_ids() -> None:
    row = Demonstration("a", "Why?", "So.")
    assert list(Demonstrations.from_rows([row])) == [row]
    with pytest.raises(DataError, match="at least one is needed, found none"):
        Demonstrations.from_rows([])
    with pytest.raises(DataError, match="every id must be unique, found 1 ids on 2 rows"):
        Demonstrations.from_rows([row, row])
