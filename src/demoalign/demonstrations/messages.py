"""Chat messages: check them, bring them to ``{"role", "content"}``, take the answer off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demoalign.demonstrations.fields import RowError, checked_text, found, is_missing

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
"""What roles are called where a conversation is written as text, as in HH-RLHF."""

MAY_BE_BLANK = frozenset({"system", "tool"})


def messages(field: str, value: object, *, sharegpt: bool = False) -> list[dict[str, str]]:
    """``value`` as a list of ``{"role": ..., "content": ...}``; other keys are left out.

    Args:
        field: what to call the value in an error.
        value: a list of objects with ``role`` and ``content``.
        sharegpt: the objects have ``from`` and ``value`` instead.

    Raises:
        RowError: it is not such a list, a role is unknown, or a content is not usable text.
    """
    if not isinstance(value, list | tuple) or not value:
        shown = "null" if is_missing(value) else found(value)
        raise RowError(field, f"must be a list of messages, found {shown}")
    return [_message(f"{field}[{i}]", item, sharegpt) for i, item in enumerate(value)]


def _message(field: str, item: object, sharegpt: bool) -> dict[str, str]:
    role_key, content_key = ("from", "value") if sharegpt else ("role", "content")
    if not isinstance(item, Mapping) or role_key not in item or content_key not in item:
        raise RowError(
            field, f"must be an object with '{role_key}' and '{content_key}', found {found(item)}"
        )
    roles = SHAREGPT_ROLES if sharegpt else {role: role for role in ROLES}
    role = roles.get(item[role_key]) if isinstance(item[role_key], str) else None
    if role is None:
        raise RowError(
            f"{field}.{role_key}",
            f"must be one of {', '.join(roles)}, found {found(item[role_key])}",
        )
    if item.get("tool_calls"):
        raise RowError(
            f"{field}.tool_calls",
            f"a demonstration holds text only, found {found(item['tool_calls'])}",
        )
    content = _joined_parts(item[content_key])
    return {
        "role": role,
        "content": checked_text(
            f"{field}.{content_key}", content, may_be_blank=role in MAY_BE_BLANK
        ),
    }


def _joined_parts(content: object) -> object:
    """Text given as ``[{"type": "text", "text": ...}, ...]`` in one piece; else unchanged."""
    if not isinstance(content, list | tuple) or not content:
        return content
    texts: list[str] = []
    for part in content:
        is_text = isinstance(part, Mapping) and part.get("type") == "text"
        if not is_text or not isinstance(part.get("text"), str):
            return content
        texts.append(part["text"])
    return "".join(texts)


def split_answer(
    field: str, conversation: list[dict[str, str]]
) -> tuple[list[dict[str, str]], str]:
    """The messages before the last one, and the last one's text, which an assistant must say.

    Raises:
        RowError: the last message is not the assistant's, or nothing stands before it.
    """
    last = conversation[-1]
    if last["role"] != "assistant":
        raise RowError(field, f"the last message must be the assistant's, found {found(last)}")
    if len(conversation) == 1:
        raise RowError(
            field, f"a prompt must come before the answer, found only {found(last['content'])}"
        )
    check_prompt(field, conversation[:-1])
    return conversation[:-1], last["content"]


def check_prompt(field: str, prompt: list[dict[str, str]]) -> None:
    """Raise `RowError` unless the prompt ends where an assistant is to speak."""
    if prompt[-1]["role"] not in {"user", "tool"}:
        raise RowError(
            field, f"the prompt's last message must be the user's, found {found(prompt[-1])}"
        )


def answer(field: str, value: object) -> str:
    """The text of an answer given as a list of one assistant message.

    Raises:
        RowError: there are more messages, or the one is not the assistant's.
    """
    given = messages(field, value)
    if len(given) != 1 or given[0]["role"] != "assistant":
        raise RowError(
            field, f"must be text or a list of one assistant message, found {found(value)}"
        )
    return given[0]["content"]


def speaker(role: str) -> str:
    """What a role is called in a conversation that is written as text."""
    return SPEAKERS.get(role, role.title())


def transcript(prompt: Sequence[Mapping[str, str]]) -> str:
    """Messages as an HH-RLHF transcript that ends where the assistant is to speak."""
    turns = [f"\n\n{speaker(turn['role'])}: {turn['content']}" for turn in prompt]
    return "".join(turns) + "\n\nAssistant:"
