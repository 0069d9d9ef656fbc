"""Many questions to one server: so many at a time, their answers handed on in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

import httpx2

from demoalign.endpoints.endpoint import Endpoint
from demoalign.endpoints.event_loop import event_loop

AHEAD = 4
"""Questions that may be begun before the first of them is handed on, as a multiple of those that
may be under way: it bounds memory, and says how long one slow answer may hold up the others."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


def in_order(
    endpoint: Endpoint,
    questions: Iterable[Question],
    answer: Callable[[httpx2.AsyncClient, Question], Awaitable[Answer]],
) -> Generator[Answer]:
    """Yield the answers in the order of the questions.

    A failure of any question ends it at once, whatever else is under way.

    Args:
        endpoint: whose connections are used.
        questions: taken as they are begun.
        answer: answers one; it waits for room by itself.
    """
    window = AHEAD * endpoint.config.concurrency
    client = endpoint.client()
    failed: Future[Any] = Future()
    waiting: deque[Future[Answer]] = deque()

    async def answered(question: Question) -> Answer:
        return await answer(client, question)

    with event_loop(client.aclose) as loop:
        for question in questions:
            coming = asyncio.run_coroutine_threadsafe(answered(question), loop)
            coming.add_done_callback(partial(_tell_failure, failed))
            waiting.append(coming)
            if len(waiting) == window:
                yield _next(waiting.popleft(), failed)
        while waiting:
            yield _next(waiting.popleft(), failed)


def _tell_failure(failed: Future[Any], done: Future[Any]) -> None:
    """Pass the first failure on (callbacks run one after the other, in the loop's thread)."""
    if not done.cancelled() and not failed.done() and (error := done.exception()) is not None:
        failed.set_exception(error)


def _next(first: Future[Answer], failed: Future[Any]) -> Answer:
    wait([first, failed], return_when=FIRST_COMPLETED)
    found: Answer = (first if first.done() else failed).result()
    return found
