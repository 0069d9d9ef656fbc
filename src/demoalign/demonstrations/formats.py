"""The formats that demonstrations come in, and one row of each as prompt, completion and meta.

=================  ==========================  ==================================================
format             columns                     completion
=================  ==========================  ==================================================
prompt-completion  prompt, completion          text, or a list of one assistant message
messages           messages                    the last message
alpaca             instruction, (input,)       the output
                   output
sharegpt           conversations, (system)     the last turn of gpt
hh-rlhf            text or chosen              what follows the last ``\\n\\nAssistant:``
=================  ==========================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demoalign.demonstrations import messages as chat
from demoalign.demonstrations.fields import RowError, cell, found, is_missing, plain, text
from demoalign.demonstrations.hh_rlhf import (
    PAIR,
    is_transcript,
    pair_note,
    split_transcript,
    transcript_field,
)
from demoalign.records import Prompt

Cells = Mapping[str, object]

ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a demonstration down.

    Attributes:
        name: as a recipe spells it.
        columns: those a row must have, in words.
        uses: every column that it reads; the others are kept as meta.
        fits: whether a row's columns look like this format's.
        convert: a row's prompt and completion; raises `RowError`.
        note: what is to be kept as meta of what the other columns say.
    """

    name: str
    columns: str
    uses: tuple[str, ...]
    fits: Callable[[Cells], bool]
    convert: Callable[[Cells], tuple[Prompt, str]]
    note: Callable[[Cells], dict[str, Any]] = lambda _row: {}


def convert(row: Cells, form: Format) -> tuple[Prompt, str, dict[str, Any]]:
    """One row as (prompt, completion, meta).

    ``meta`` holds the row's other columns. A column ``meta`` that is itself an object is unpacked,
    so that the files this package writes read back as they were.

    Raises:
        RowError: the row breaks a rule of its format.
    """
    prompt, completion = form.convert(row)
    others = {key: value for key, value in row.items() if key not in form.uses}
    inner = others.pop("meta", None)
    if isinstance(inner, Mapping):
        others = {**inner, **others}
    elif inner is not None:
        others["meta"] = inner
    return prompt, completion, plain(others) | form.note(row)


def prompt_completion(row: Cells) -> tuple[Prompt, str]:
    """TRL's ``prompt`` and ``completion``: both text, or both chat messages."""
    prompt = prompt_of(row)
    answer = row.get("completion")
    if not isinstance(answer, list | tuple):
        return prompt, text(row, "completion")
    if isinstance(prompt, str):
        raise RowError(
            "prompt",
            f"must be a list of messages where the completion is one, found {found(prompt)}",
        )
    return prompt, chat.answer("completion", answer)


def prompt_of(row: Cells) -> Prompt:
    """The prompt in ``row["prompt"]``: text that is not blank, or messages ending in a user's.

    Raises:
        RowError: it is neither.
    """
    value = row.get("prompt")
    if not isinstance(value, list | tuple):
        if is_missing(value) or isinstance(value, str):
            return text(row, "prompt")
        raise RowError("prompt", f"must be text or a list of messages, found {found(value)}")
    given = chat.messages("prompt", value)
    chat.check_prompt("prompt", given)
    return given


def _messages(row: Cells) -> tuple[Prompt, str]:
    return chat.split_answer("messages", chat.messages("messages", cell(row, "messages")))


def _alpaca(row: Cells) -> tuple[Prompt, str]:
    instruction = text(row, "instruction")
    context = row.get("input")
    given = "" if is_missing(context) else text(row, "input", may_be_blank=True)
    wording = ALPACA_INPUT if given.strip() else ALPACA
    return wording.format(instruction=instruction, input=given), text(row, "output")


def _sharegpt(row: Cells) -> tuple[Prompt, str]:
    turns = cell(row, "conversations")
    if _is_list_of(turns, "role"):
        raise RowError(
            "conversations",
            f"must hold 'from' and 'value', found {found(turns)}; "
            "for 'role' and 'content' use format messages with map {messages: conversations}",
        )
    conversation = chat.messages("conversations", turns, sharegpt=True)
    system = row.get("system")
    if not is_missing(system) and conversation[0]["role"] != "system":
        given = text(row, "system", may_be_blank=True)
        if given.strip():
            conversation = [{"role": "system", "content": given}, *conversation]
    return chat.split_answer("conversations", conversation)


def _is_list_of(value: object, key: str) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and isinstance(value[0], Mapping)
        and key in value[0]
    )


def _hh_rlhf(row: Cells) -> tuple[Prompt, str]:
    field = transcript_field(row)
    return split_transcript(field, text(row, field))


FORMATS = {
    form.name: form
    for form in (
        Format(
            "prompt-completion",
            "prompt, completion",
            ("prompt", "completion"),
            lambda row: "prompt" in row and "completion" in row,
            prompt_completion,
        ),
        Format(
            "messages",
            "messages",
            ("messages",),
            lambda row: "messages" in row,
            _messages,
        ),
        Format(
            "alpaca",
            "instruction, output (and input)",
            ("instruction", "input", "output"),
            lambda row: "instruction" in row and "output" in row,
            _alpaca,
        ),
        Format(
            "sharegpt",
            "conversations (and system)",
            ("conversations", "system"),
            lambda row: "conversations" in row,
            _sharegpt,
        ),
        Format(
            "hh-rlhf",
            "text or chosen, with '\\n\\nAssistant:' in it",
            ("text", *PAIR),
            lambda row: is_transcript(row.get("text")) or is_transcript(row.get("chosen")),
            _hh_rlhf,
            pair_note,
        ),
    )
}
