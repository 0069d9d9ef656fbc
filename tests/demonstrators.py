"""How the demonstrator of `tests.servers` behaves: words in brackets in the prompt say."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MODEL = "demonstrator-2026-01-01"
COMPLETION_TOKENS = 10


def last_question(question: str) -> str:
    """What the last human turn says."""
    return question.rpartition("Human: ")[2].removesuffix("\n\nAssistant:").strip()


def answer_to(question: str) -> str:
    return f"You ask: {last_question(question)} Turn it off and on again."


def prompt_tokens(question: str) -> int:
    return len(question) // 4


SAID = {
    "[empty]": "  ",
    "[declines]": "I'm sorry, but I can't help with that.",
    "[goes on]": "Assistant: Fine.\n\nHuman: And then?\n\nAssistant: Nothing.",
    "[long]": "word " * 100,
    "[short]": "No.",
}
STATUSES = {
    "[policy]": (400, {"message": "flagged", "code": "content_policy_violation"}),
    "[odd]": (400, {"message": "no such words here"}),
    "[broken]": (500, {"message": "out of memory"}),
}


def demonstrated(body: Json) -> tuple[int, Json]:
    """Status and answer of /chat/completions."""
    question = str(body["messages"][-1]["content"])
    for mark, (status, error) in STATUSES.items():
        if mark in question:
            return status, {"error": error}
    said = next((text for mark, text in SAID.items() if mark in question), answer_to(question))
    message: Json = {"role": "assistant", "content": said}
    reason = "stop"
    if "[refuses]" in question:
        message = {"role": "assistant", "content": None, "refusal": "Not that."}
    if "[filter]" in question:
        reason = "content_filter"
    if "[cut]" in question:
        reason = "length"
    usage = {"prompt_tokens": prompt_tokens(question), "completion_tokens": COMPLETION_TOKENS}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    answer: Json = {"object": "chat.completion", "model": MODEL, "choices": [choice]}
    return 200, answer if "[untold]" in question else {**answer, "usage": usage}
