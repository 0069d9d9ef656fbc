"""One row of each format, and what makes a row of it unusable."""

from __future__ import annotations

from pathlib import Path

import pytest

from demoalign.demonstrations import read_demonstrations

from .files import jsonl, problem_of, read_row

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": ""}
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: Because."


def turn(who: str, said: object) -> dict[str, object]:
    return {"from": who, "value": said}


@pytest.mark.parametrize(
    ("row", "form", "prompt", "completion"),
    [
        ({"prompt": "Why?", "completion": " So."}, "prompt-completion", "Why?", " So."),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt-completion", [USER], "Because."),
        ({"prompt": [USER], "completion": "Because."}, "prompt-completion", [USER], "Because."),
        ({"messages": [USER, ANSWER]}, "messages", [USER], "Because."),
        (
            {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]},
            "messages",
            [SYSTEM, USER, ANSWER, USER],
            "Because.",
        ),
        (
            {"messages": [{**USER, "name": "Ann"}, {**ANSWER, "tool_calls": None}]},
            "messages",
            [USER],
            "Because.",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": t} for t in ("Wh", "y?")],
                    },
                    ANSWER,
                ]
            },
            "messages",
            [USER],
            "Because.",
        ),
        (
            {"conversations": [turn("human", "Why?"), turn("gpt", "Because.")]},
            "sharegpt",
            [USER],
            "Because.",
        ),
        (
            {"conversations": [turn("user", "Why?"), turn("assistant", "Because.")], "system": ""},
            "sharegpt",
            [USER],
            "Because.",
        ),
        (
            {"conversations": [turn("human", "Why?"), turn("gpt", "Because.")], "system": "Be."},
            "sharegpt",
            [{"role": "system", "content": "Be."}, USER],
            "Because.",
        ),
        ({"text": HH}, "hh-rlhf", HH.removesuffix(" Because."), " Because."),
        ({"chosen": HH, "rejected": "x"}, "hh-rlhf", HH.removesuffix(" Because."), " Because."),
    ],
)
def test_a_row_of_each_format(
    tmp_path: Path, row: object, form: str, prompt: object, completion: str
) -> None:
    for asked in ("auto", form):
        read = read_row(tmp_path, row, asked)
        assert (read.format, read[0].prompt, read[0].completion) == (form, prompt, completion)
        assert read.why


def test_auto_says_why(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "completion": "So."}
    assert read_row(tmp_path, row).why == "the rows have prompt, completion"
    assert read_row(tmp_path, row, "prompt-completion").why == "it was asked for"


def test_alpaca_wording(tmp_path: Path) -> None:
    row = {"instruction": "Add {x}.", "input": "", "output": "4"}
    assert read_row(tmp_path, row)[0].prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd {x}.\n\n### Response:\n"
    )
    read = read_row(tmp_path, {**row, "input": "2 and {2}"})
    assert read[0].prompt == (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {x}.\n\n### Input:\n2 and {2}\n\n### Response:\n"
    )
    assert read[0].completion == "4"
    del row["input"]
    assert "Input" not in str(read_row(tmp_path, row)[0].prompt)


def test_other_columns_are_kept_as_meta(tmp_path: Path) -> None:
    row = {"messages": [USER, ANSWER], "prompt": "Why?", "score": 3, "meta": {"a": [1]}}
    assert read_row(tmp_path, row)[0].meta == {"prompt": "Why?", "score": 3, "a": [1]}
    assert read_row(tmp_path, {**row, "meta": "text"})[0].meta["meta"] == "text"


def test_a_map_renames_and_decides(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "answer": "So.", "messages": None, "prompt": "old", "key": 5}]
    read = read_demonstrations(
        jsonl(tmp_path / "d.jsonl", rows),
        columns={"prompt": "question", "completion": "answer", "id": "key"},
    )
    assert (read[0].prompt, read[0].completion, read[0].id) == ("Why?", "So.", "5")
    assert read[0].meta == {"messages": None}


def test_a_map_may_exchange_two_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"prompt": "So.", "completion": "Why?"}])
    (row,) = read_demonstrations(path, columns={"prompt": "completion", "completion": "prompt"})
    assert (row.prompt, row.completion) == ("Why?", "So.")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            {"messages": [USER]},
            "messages: the last message must be the assistant's, "
            'found {"role": "user", "content": "Why?"}',
        ),
        (
            {"messages": [ANSWER]},
            'messages: a prompt must come before the answer, found only "Because."',
        ),
        (
            {"messages": [USER, ANSWER, ANSWER]},
            "messages: the prompt's last message must be the user's, "
            'found {"role": "assistant", "content": "Because."}',
        ),
        (
            {"messages": [USER, {"role": "bot", "content": "x"}]},
            'messages[1].role: must be one of system, user, assistant, tool, found "bot"',
        ),
        (
            {"messages": [{"role": "user", "content": " "}, ANSWER]},
            'messages[0].content: must not be empty or only whitespace, found " "',
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": ""}]},
            'messages[1].content: must not be empty or only whitespace, found ""',
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [1]}]},
            "messages[1].tool_calls: a demonstration holds text only, found [1]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
            'messages[0].content: must be text, found [{"type": "image"}]',
        ),
        ({"messages": "Why?"}, 'messages: must be a list of messages, found "Why?"'),
        (
            {"messages": [{"role": "user"}, ANSWER]},
            "messages[0]: must be an object with 'role' and 'content', found {\"role\": \"user\"}",
        ),
        ({"other": 1}, "messages: is missing; the row has other"),
    ],
)
def test_bad_messages(tmp_path: Path, row: object, what: str) -> None:
    rows = [{"messages": [USER, ANSWER]}, row]
    assert problem(tmp_path, rows, "messages") == what


def problem(tmp_path: Path, rows: list[object], form: str) -> str:
    read = read_demonstrations(jsonl(tmp_path / "d.jsonl", rows), format=form, skip_invalid=True)
    (only,) = read.problems
    assert only.where == "d.jsonl:2"
    return only.what


@pytest.mark.parametrize(
    ("completion", "what"),
    [
        (
            [ANSWER, ANSWER],
            "completion: must be text or a list of one assistant message, "
            'found [{"role": "assistant", "content": "Because."}, {"role": "...',
        ),
        (
            [USER],
            "completion: must be text or a list of one assistant message, "
            'found [{"role": "user", "content": "Why?"}]',
        ),
        ([], "completion: must be a list of messages, found []"),
    ],
)
def test_bad_completion_messages(tmp_path: Path, completion: object, what: str) -> None:
    row = {"prompt": [USER], "completion": completion}
    assert problem_of(tmp_path, row, "prompt-completion") == what


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"instruction": "a"}, "output: is missing; the row has instruction"),
        (
            {"instruction": "", "output": "b"},
            'instruction: must not be empty or only whitespace, found ""',
        ),
        ({"instruction": "a", "input": 3, "output": "b"}, "input: must be text, found 3"),
        ({"instruction": "a", "output": None}, "output: must be text, found null"),
    ],
)
def test_bad_alpaca(tmp_path: Path, row: object, what: str) -> None:
    assert problem(tmp_path, [{"instruction": "a", "output": "b"}, row], "alpaca") == what


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            {"conversations": [turn("human", "a"), turn("bard", "b")]},
            "conversations[1].from: must be one of system, human, user, gpt, assistant, tool, "
            'found "bard"',
        ),
        (
            {"conversations": [turn("human", "a")]},
            "conversations: the last message must be the assistant's, "
            'found {"role": "user", "content": "a"}',
        ),
        (
            {"conversations": [turn("human", None), turn("gpt", "b")]},
            "conversations[0].value: must be text, found null",
        ),
        (
            {"conversations": [USER, ANSWER]},
            "conversations: must hold 'from' and 'value', "
            'found [{"role": "user", "content": "Why?"}, {"role": "assistant...; '
            "for 'role' and 'content' use format messages with map {messages: conversations}",
        ),
        ({"x": 1}, "conversations: is missing; the row has x"),
    ],
)
def test_bad_sharegpt(tmp_path: Path, row: object, what: str) -> None:
    rows = [{"conversations": [turn("human", "a"), turn("gpt", "b")]}, row]
    assert problem(tmp_path, rows, "sharegpt") == what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("plain", "text: must be a transcript with '\\n\\nAssistant:', found \"plain\""),
        (
            HH + "\n\nHuman: And?",
            'text: the last turn must be the assistant\'s, found " Because.\\n\\nHuman: And?"',
        ),
        (
            "\n\nAssistant: x",
            "text: must have a turn 'Human:' with text in it, found \"\\n\\nAssistant: x\"",
        ),
        (
            "\n\nHuman: \n\nAssistant: x",
            "text: must have a turn 'Human:' with text in it, "
            'found "\\n\\nHuman: \\n\\nAssistant: x"',
        ),
        ("\n\nHuman: a\n\nAssistant: ", 'text: the last turn must not be empty, found " "'),
        (None, "text: must be text, found null"),
    ],
)
def test_bad_transcripts(tmp_path: Path, text: object, what: str) -> None:
    assert problem(tmp_path, [{"text": HH}, {"text": text}], "hh-rlhf") == what


def test_a_transcript_may_start_without_blank_lines(tmp_path: Path) -> None:
    (row,) = read_row(tmp_path, {"text": "Human: a\n\nAssistant: b"})
    assert (row.prompt, row.completion) == ("Human: a\n\nAssistant:", " b")
