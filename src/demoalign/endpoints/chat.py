"""Messages in, text out: questions to a chat model, each of which is paid for once.

Every reply is appended to a file as it comes, under a key of all that could change it. Who asks
again, after an interruption or for another purpose, takes it from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from demoalign.endpoints.appended import AppendedLines
from demoalign.endpoints.endpoint import Endpoint, UnusableError, server_message
from demoalign.endpoints.in_order import in_order
from demoalign.errors import RolloutError
from demoalign.store import utc_now

PATH = "chat/completions"
FILTERED = "content_filter"
DECLINED = "declined"
"""The reason of a reply that stands for a request which the server would not take."""

DECLINED_STATUSES = frozenset({400, 403, 413, 422, 451})
DECLINED_CODES = (
    FILTERED,
    "content_policy_violation",
    "data_inspection_failed",
    "invalid_prompt",
    "requires moderation",
    "content_management_policy",
    "context_length_exceeded",
    "string_above_max_length",
)
"""What a refusal says that is about one text alone: others may still be answered."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question.

    Attributes:
        body: of the request.
        repeat: number of this question among those with the same body, so that each is asked.
    """

    body: Mapping[str, Any]
    repeat: int = 0

    def key(self, base_url: str) -> str:
        """Digest of everything that could change the reply: server, model, settings, texts."""
        parts = [base_url.rstrip("/"), PATH, self.body, self.repeat]
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: what the model said; may be empty.
        reason: the server's finish_reason; None if it gave none.
        refusal: why there is no answer, if model or server declined to give one.
        prompt_tokens, completion_tokens: the server's ``usage``; None if it told none.
        model: which model the server says has answered; None if it told none.
        time: when it came, ISO 8601 UTC.
    """

    text: str
    reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None
    time: str | None = None


class Replies:
    """Stored replies by key; without a path they are held in memory alone."""

    def __init__(self, path: Path | None) -> None:
        self._lines = AppendedLines(path)
        self._found: dict[str, Reply] = {}
        names = [field.name for field in fields(Reply)]
        for raw in self._lines.read():
            try:
                known = {name: raw[name] for name in names if name in raw}
                self._found[raw["key"]] = Reply(**known)
            except (KeyError, TypeError):
                continue  # written by something else

    def items(self) -> tuple[tuple[str, Reply], ...]:
        """Every key with its reply, whatever was asked."""
        return tuple(self._found.items())

    def get(self, key: str) -> Reply | None:
        """The reply, if it has come."""
        return self._found.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Store a reply. When this returns, the end of the process does not lose it."""
        reply = replace(reply, time=reply.time or utc_now())
        self._lines.add([{"key": key, **asdict(reply)}])
        self._found[key] = reply

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        self._lines.close()


def unanswered(
    requests: Iterable[ChatRequest], replies: Replies, base_url: str
) -> dict[str, ChatRequest]:
    """The questions that have no reply yet, each once, by key."""
    found = {request.key(base_url): request for request in requests}
    return {key: request for key, request in found.items() if replies.get(key) is None}


def ask_chat(
    endpoint: Endpoint, requests: Sequence[ChatRequest], replies: Replies
) -> Generator[Reply]:
    """Ask what has no reply yet; yield the new replies, each stored before.

    A failure ends it at once; the replies that had come stay stored.

    Raises:
        RolloutError: the server refuses a request as such, or keeps failing.
    """
    room = asyncio.Semaphore(endpoint.config.concurrency)
    failure: list[RolloutError] = []

    async def answer(client: httpx2.AsyncClient, asked: tuple[str, ChatRequest]) -> Reply:
        key, request = asked
        async with room:
            if failure:
                raise failure[0]  # nothing more is asked once the work is to end
            try:
                reply = await ask_one(endpoint, client, request)
            except RolloutError as error:
                failure.append(error)
                raise
        replies.add(key, reply)
        return reply

    missing = unanswered(requests, replies, endpoint.config.base_url)
    with closing(in_order(endpoint, missing.items(), answer)) as found:
        yield from found


async def ask_one(endpoint: Endpoint, client: httpx2.AsyncClient, request: ChatRequest) -> Reply:
    """The reply to one question, as it may be stored.

    Raises:
        RolloutError: the server refuses the request as such, or keeps failing.
    """
    reply = await endpoint.ask(client, PATH, request.body, read_reply, read_declined)
    refusal = None if reply.refusal is None else endpoint.clean(reply.refusal)
    return replace(reply, text=endpoint.without_key(reply.text), refusal=refusal)


def read_reply(payload: Any) -> Reply:
    """The reply in the JSON of an answer.

    Raises:
        UnusableError: there is none.
    """
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        said = payload.get("error", payload) if isinstance(payload, dict) else payload
        raise UnusableError(f"an answer without a choice: {said}")
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise UnusableError(f"a choice without a message: {choices[0]}")
    refusal = message.get("refusal")
    if reason == FILTERED:
        refusal = refusal or "the server's content filter"
    usage, model = payload.get("usage"), payload.get("model")
    count = partial(_count, usage if isinstance(usage, dict) else {})
    return Reply(
        text=_stored(_text(message.get("content"))),
        reason=reason if isinstance(reason, str) else None,
        refusal=_stored(str(refusal)) if refusal else None,
        prompt_tokens=count("prompt_tokens"),
        completion_tokens=count("completion_tokens"),
        model=_stored(model) if isinstance(model, str) else None,
    )


def read_declined(response: httpx2.Response) -> Reply | None:
    """The reply that a refused request stands for, if it was refused for its text alone."""
    if response.status_code not in DECLINED_STATUSES:
        return None
    if not any(code in response.text for code in DECLINED_CODES):
        return None
    return Reply("", reason=DECLINED, refusal=_stored(server_message(response)))


def _text(content: Any) -> str:
    """A message's content, given as text or as parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise UnusableError(f"a message whose content is no text: {content!r}")
    return content


def _stored(text: str) -> str:
    """Half a surrogate pair cannot be stored."""
    return text.encode(errors="replace").decode()


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
