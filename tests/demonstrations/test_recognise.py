"""Which format a file is in, and what is said when that is not clear."""

from __future__ import annotations

from pathlib import Path

from demoalign.demonstrations import read_demonstrations

from .files import error_of, jsonl


def test_a_format_that_nobody_knows() -> None:
    assert error_of("d.jsonl", format="alpcaa") == (
        "format: must be one of prompt-completion, messages, alpaca, sharegpt, hh-rlhf, auto, "
        "found 'alpcaa'; did you mean 'alpaca'?"
    )


def test_columns_of_no_format(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"question": "a", "answer": "b", "n": 1}])
    assert error_of(path).splitlines() == [
        "d.jsonl: no format has the columns found: question, answer, n",
        "The formats and their columns:",
        "  prompt-completion  prompt, completion",
        "  messages           messages",
        "  alpaca             instruction, output (and input)",
        "  sharegpt           conversations (and system)",
        "  hh-rlhf            text or chosen, with '\\n\\nAssistant:' in it",
        "Say which columns to read, for example map: {prompt: question, completion: answer}",
    ]


def test_columns_of_two_formats(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"prompt": "a", "completion": "b", "messages": []}])
    assert error_of(path) == (
        "d.jsonl: the columns prompt, completion, messages fit the formats prompt-completion and "
        "messages; choose one, for example format: prompt-completion"
    )
    assert read_demonstrations(path, format="prompt-completion").format == "prompt-completion"


def test_a_format_whose_columns_are_not_there(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"q": "a", "a": "b"}])
    assert error_of(path, format="alpaca").splitlines() == [
        "d.jsonl: format alpaca needs the columns instruction, output (and input); "
        "found the columns q, a",
        "Say which columns to read, for example "
        "map: {prompt: YOUR_PROMPT_COLUMN, completion: YOUR_ANSWER_COLUMN}",
    ]


def test_a_map_to_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"question": "a", "answer": "b"}])
    assert error_of(path, columns={"prompt": "questions", "completion": "answer"}) == (
        "d.jsonl: map: 'prompt' is to be read from a column 'questions', "
        "found the columns question, answer; did you mean 'question'?"
    )


def test_a_map_of_a_column_that_no_format_has(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"question": "a"}])
    assert error_of(path, format="prompt-completion", columns={"promt": "question"}) == (
        "map: a key must be one of completion, id, prompt, found 'promt'; did you mean 'prompt'?"
    )


def test_a_map_of_one_column_to_two(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"a": "a"}])
    assert error_of(path, columns={"prompt": "a", "completion": "a"}) == (
        "map: column 'a' may stand for one of ours, not two"
    )


def test_a_problem_in_a_mapped_column_names_the_users_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"q": "a", "a": "b"}, {"q": "a", "a": ""}])
    assert error_of(path, columns={"prompt": "q", "completion": "a"}).splitlines()[1] == (
        "  d.jsonl:2: completion (your column 'a'): "
        'must not be empty or only whitespace, found ""'
    )
