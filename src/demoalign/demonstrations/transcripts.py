"""HH-RLHF transcripts as chat messages, for models that read a chat template."""

from __future__ import annotations

import re

from demoalign.records import Prompt

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    r"""A prompt as chat messages that end in a user's.

    A transcript is taken apart at each ``\n\nHuman:`` and ``\n\nAssistant:``; role words elsewhere
    are text. Turns of one speaker that follow each other are joined by a blank line, since chat
    templates want speakers to take turns, and what the assistant is to say is left out. Other
    text is one message.

    Example:
        >>> as_messages("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:")[-1]
        {'role': 'user', 'content': 'Why?'}
    """
    if not isinstance(prompt, str):
        return list(prompt)
    parts = _TURN.split("\n\n" + prompt.lstrip())
    turns = [
        {"role": _ROLES[speaker], "content": said.strip()}
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if not turns:
        return [{"role": "user", "content": prompt.strip()}]
    joined: list[dict[str, str]] = []
    for turn in turns:
        if not turn["content"]:
            continue
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1]["content"] += "\n\n" + turn["content"]
        else:
            joined.append(turn)
    return joined or [{"role": "user", "content": prompt.strip()}]
