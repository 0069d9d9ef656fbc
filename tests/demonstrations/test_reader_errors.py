"""Everything that can be wrong with a file or a row, and exactly what is said about it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from demoalign.demonstrations import read_demonstrations
from demoalign.errors import DataError

from .files import GOOD, error_of, only_problem, problem_of


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_an_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert error_of(tmp_path / name) == f"{name}: has no rows; at least one is needed"


def test_a_header_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,completion\n")
    assert error_of(tmp_path / "d.csv") == "d.csv: has no rows; at least one is needed"


@pytest.mark.parametrize("name", ["no.jsonl", "no.csv", "./no", "/no/where", "a/b/c", "no.parquet"])
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(name) == f"{name}: no such file (tried {tmp_path / name})"


def test_an_ending_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text(GOOD)
    assert error_of(tmp_path / "d.txt").startswith("d.txt: a data file must end in .jsonl, .json")


def test_a_count_comes_first_and_then_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n[1, 2]\nnull\n{GOOD}\n")
    assert error_of(path).splitlines() == [
        "d.jsonl: 2 of 4 rows cannot be used; "
        "fix them or pass --skip-invalid to go on without them",
        "  d.jsonl:2: a row must be an object, found [1, 2]",
        "  d.jsonl:3: a row must be an object, found null",
    ]


@pytest.mark.parametrize("skip", [False, True])
def test_only_bad_rows(tmp_path: Path, skip: bool) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("1\n2\n")
    with pytest.raises(DataError, match=r"d\.jsonl: none of 2 rows can be used"):
        read_demonstrations(path, skip_invalid=skip)


def test_a_truncated_last_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(GOOD + '\n{"prompt": "Wh')
    assert only_problem(path, "d.jsonl:2") == (
        "must be valid JSON; the file ends in the middle of this line: "
        'Unterminated string at column 12, found {"prompt": "Wh'
    )


def test_broken_json_in_the_middle_does_not_stop_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f'{GOOD}\n{{"prompt": }}\n{GOOD}\n')
    assert only_problem(path, "d.jsonl:2") == (
        'must be valid JSON: Expecting value at column 12, found {"prompt": }'
    )


def test_two_objects_on_a_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f'{GOOD}\n{GOOD}{{"a": 1}}\n')
    assert only_problem(path, "d.jsonl:2") == (
        'must be one JSON object and no more, found after it {"a": 1}'
    )


def test_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f'{GOOD}\n{{"prompt": "a", "prompt": "b", "completion": "c"}}\n')
    assert only_problem(path, "d.jsonl:2") == "prompt: a key may stand once, found it twice"


def test_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n{'[' * 100_000}\n")
    assert only_problem(path, "d.jsonl:2").startswith("must be valid JSON: nested too deeply")


def test_nested_too_deep_to_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    deep = f"{'[' * 900}{']' * 900}"
    path.write_text(f'{GOOD}\n{{"prompt": "a", "completion": "b", "c": {deep}}}\n')
    assert only_problem(path, "d.jsonl:2") == "a row must not be nested hundreds of levels deep"


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"prompt": "\xc3\xa9 caf\xe9", "completion": "x"}\n')
    assert only_problem(path, "d.jsonl:2") == (
        "must be UTF-8, found byte 0xe9 at byte offset 18 of the row"
    )


def test_utf16(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(GOOD, encoding="utf-16")
    assert error_of(path) == "d.jsonl: must be UTF-8, found UTF-16; save it as UTF-8"


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-9])
    assert error_of(path).startswith("d.jsonl.gz: cannot be read: Compressed file ended before")
    path.write_bytes(b"plain")
    assert error_of(path).startswith("d.jsonl.gz: cannot be read: Not a gzipped file")


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert error_of(path).startswith("d.parquet: cannot be read as parquet after row 0: ")


def test_json_array_problems_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(f'[\n{GOOD},\n{GOOD}, {{"x": 1}},\n{GOOD}]')
    assert only_problem(path, "d.json:3") == "prompt: is missing; the row has x"


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (
            f'[{GOOD},\n{{"prompt": "a',
            "d.json:2",
            'must be valid JSON: Unterminated string at column 12, found {"prompt": "a; '
            "what follows was not read",
        ),
        (
            f"[{GOOD},\n1 2]",
            "d.json:2",
            "must be valid JSON: expected ',' or ']' after the object, found 1 2]; "
            "what follows was not read",
        ),
        (f"[{GOOD}]\n[]", "d.json:1", "nothing may follow the array, found []"),
    ],
)
def test_a_broken_json_array(tmp_path: Path, content: str, where: str, what: str) -> None:
    (tmp_path / "d.json").write_text(content)
    assert only_problem(tmp_path / "d.json", where) == what


def test_bad_bytes_in_a_json_array(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(b"[" + GOOD.encode() + b',\n{"prompt": "\xff", "completion": "x"}]')
    assert only_problem(path, "d.json:2") == (
        "must be UTF-8, found byte 0xff at byte offset 12 of the row"
    )


def test_json_that_is_one_object_over_several_lines(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{\n"data": []}')
    assert error_of(tmp_path / "d.json") == (
        "d.json: must be one array of objects, or one object a line, found {"
    )


def test_csv_with_a_wrong_number_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,completion\n"Why,\nthen?",So.\nonly one\n')
    assert only_problem(path, "d.csv:4") == "must have 2 fields, as the header has, found 1"


def test_csv_with_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,completion\nWhy?,So.\n"How?,So\nWho?,I.\n')
    assert only_problem(path, "d.csv:3") == (
        'must be valid CSV: unexpected end of data (up to line 4), found "How?,So\\nWho?,I.'
    )


def test_csv_with_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b"prompt,completion\nWhy?,So.\ncaf\xe9,x\n")
    assert only_problem(path, "d.csv:3") == (
        "must be UTF-8, found byte 0xe9 at byte offset 3 of the row"
    )
    path.write_bytes(b"caf\xe9,completion\nWhy?,So.\n")
    assert error_of(path) == (
        "d.csv:1: the header must be UTF-8, found byte 0xe9 at byte offset 3 of the row"
    )


def test_csv_with_an_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,completion\nWhy?,So.\nHow?,\n")
    assert only_problem(path, "d.csv:3") == "completion: must be text, found null"


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,completion,prompt\na,b,c\n")
    assert error_of(path) == (
        "d.csv: every column needs its own name, found more than one called prompt"
    )


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({}, "prompt: is missing; the row has no columns"),
        ({"prompt": "x", "b": 1}, "completion: is missing; the row has prompt, b"),
        ({"prompt": 3, "completion": "x"}, "prompt: must be text or a list of messages, found 3"),
        ({"prompt": None, "completion": "x"}, "prompt: must be text, found null"),
        (
            {"prompt": "", "completion": "x"},
            'prompt: must not be empty or only whitespace, found ""',
        ),
        (
            {"prompt": " \n", "completion": "x"},
            'prompt: must not be empty or only whitespace, found " \\n"',
        ),
        ({"prompt": "x", "completion": 1.5}, "completion: must be text, found 1.5"),
        ({"prompt": "x", "completion": {"a": 1}}, 'completion: must be text, found {"a": 1}'),
        (
            {"prompt": "x", "completion": "\t"},
            'completion: must not be empty or only whitespace, found "\\t"',
        ),
        (
            {"prompt": [], "completion": "x"},
            "prompt: must be a list of messages, found []",
        ),
        (
            {"prompt": ["a"], "completion": "x"},
            "prompt[0]: must be an object with 'role' and 'content', found \"a\"",
        ),
        (
            {"prompt": [{"role": "user", "content": 5}], "completion": "x"},
            "prompt[0].content: must be text, found 5",
        ),
        (
            {"prompt": "x", "completion": [{"role": "assistant", "content": "y"}]},
            'prompt: must be a list of messages where the completion is one, found "x"',
        ),
        (
            {"prompt": {"deep": "z" * 100}, "completion": "x"},
            'prompt: must be text or a list of messages, found {"deep": "' + "z" * 47 + "...",
        ),
    ],
)
def test_a_bad_prompt_or_completion(tmp_path: Path, row: object, what: str) -> None:
    assert problem_of(tmp_path, row, "prompt-completion") == what


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f'{GOOD}\n{{"prompt": "a", "completion": "b\\ud83d"}}\n')
    assert only_problem(path, "d.jsonl:2") == (
        "completion: must be valid Unicode, found a lone surrogate \\ud83d at character 1"
    )
