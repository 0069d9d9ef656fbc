"""Asking a demonstrator behind an OpenAI-compatible address, each prompt paid for once.

Every reply is stored as it comes. A prompt that the server alone would not take is settled too;
one that it keeps failing on is left for another attempt, and many of those in a row end the work.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import httpx2

from demoalign.config import ChatConfig
from demoalign.endpoints.advice import Advice
from demoalign.endpoints.backoff import Backoff
from demoalign.endpoints.budget import Budget, cost_of_reply, most_of
from demoalign.endpoints.chat import DECLINED, ChatRequest, Replies, Reply, ask_one, unanswered
from demoalign.endpoints.endpoint import Endpoint, GivenUpError, RefusedError
from demoalign.endpoints.in_order import in_order
from demoalign.errors import RolloutError
from demoalign.progress import meter

ADVICE = Advice(
    "collect.server",
    "temperature, max_tokens and parameters of collect.server say what it holds; null leaves the "
    "first two out.",
    "--model (collect.server.model) is that name.",
)
ONE_TEXT = frozenset({400, 413, 422, 451})
"""Refusals that may be about one text alone; that others are answered tells that they are."""

IN_A_ROW, IN_A_ROW_AT_FIRST = 20, 5
"""So many refusals one after the other, or failures before anything was answered, are not about
the texts."""

OVER = "the cost cap would be passed (max_cost)"
INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Course:
    """How the asking went.

    Attributes:
        new: replies that came this time.
        failed: key -> why a question that was asked has no reply; another attempt may get one.
        stopped: why not everything was asked; None if it was.
        again: requests that were made again.
    """

    new: list[Reply] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    again: int = 0


class _Asker:
    """The state of one attempt; everything happens in one event loop.

    Nothing is raised: once the work is to end no more is asked, and what is under way is waited
    for, since it is being paid for.
    """

    def __init__(
        self, endpoint: Endpoint, config: ChatConfig, replies: Replies, budget: Budget
    ) -> None:
        self.course = Course()
        self._endpoint, self._config = endpoint, config
        self._replies, self._budget = replies, budget
        self._room = asyncio.Semaphore(config.concurrency)
        self._doubtful: dict[str, Reply] = {}
        self._failures = 0
        self._answers = any(_is_paid(reply) for _, reply in replies.items())

    async def answer(self, client: httpx2.AsyncClient, asked: tuple[str, ChatRequest]) -> None:
        """Ask one question, unless the work is to end."""
        async with self._room:
            if self.course.stopped is not None:
                return
            key, request = asked
            most, cost = most_of(request, self._config), 0.0
            if not await self._budget.reserve(most):
                self.course.stopped = self.course.stopped or OVER
                return
            try:
                reply = await ask_one(self._endpoint, client, request)
                cost = cost_of_reply(reply, request, self._config) if _is_paid(reply) else 0.0
                self._came(key, reply)
            except RolloutError as error:
                self._failed(key, error)
            finally:
                await self._budget.settle(most, cost)

    def stop(self) -> None:
        """Ask no more, and say so; what is under way is waited for."""
        self.course.stopped = self.course.stopped or INTERRUPTED
        sys.stderr.write("\nwaiting for the requests under way; interrupt again not to wait\n")

    def settle_doubtful(self) -> None:
        """Store refusals of single texts, if it is known that the server answers others."""
        if self._answers:
            for key, reply in self._doubtful.items():
                self._replies.add(key, reply)
                self.course.failed.pop(key, None)
            self._doubtful.clear()

    def _came(self, key: str, reply: Reply) -> None:
        self._replies.add(key, reply)
        self.course.new.append(reply)
        self._failures = 0
        self._answers = self._answers or _is_paid(reply)
        self.settle_doubtful()

    def _failed(self, key: str, error: RolloutError) -> None:
        """Note a failure; end the work if it is not about this question alone."""
        self._failures += 1
        what = self.course.failed[key] = str(error)
        most = 1
        if isinstance(error, GivenUpError):
            most = IN_A_ROW_AT_FIRST
        elif isinstance(error, RefusedError) and error.status in ONE_TEXT:
            most = IN_A_ROW if self._answers else IN_A_ROW_AT_FIRST
            self._doubtful[key] = Reply("", reason=DECLINED, refusal=what)
        if self._failures >= most:
            self.course.stopped = self.course.stopped or what


def ask_all(
    config: ChatConfig,
    requests: Sequence[ChatRequest],
    replies: Replies,
    max_cost: float | None = None,
    backoff: Backoff | None = None,
) -> Course:
    """Ask what has no reply yet; what comes is stored at once.

    Args:
        config: whom to ask.
        requests: all questions.
        replies: the store.
        max_cost: of all replies in the store and those to come.
        backoff: how long to wait before asking again.

    Returns:
        How it went; a server that refuses all or keeps failing is told as ``stopped``.

    Raises:
        RolloutError: the key cannot be sent.
    """
    missing = unanswered(requests, replies, config.base_url)
    if not missing:
        return Course()
    endpoint = Endpoint(config, backoff, ADVICE)
    budget = Budget(max_cost, spent_on(requests, replies, config))
    asker = _Asker(endpoint, config, replies, budget)
    with (
        closing(replies),
        closing(in_order(endpoint, missing.items(), asker.answer)) as answers,
        first_interrupt(asker.stop),
        meter(f"collect from {config.model}", len(missing)) as shown,
    ):
        for _ in answers:
            shown.advance(1, f"{endpoint.retried} asked again" if endpoint.retried else "")
        if asker.course.stopped is None:
            asker.settle_doubtful()
    asker.course.again = endpoint.retried
    return asker.course


@contextmanager
def first_interrupt(tell: Callable[[], None]) -> Iterator[None]:
    """While the block runs, the first Ctrl-C calls ``tell``; the next is what it always was."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        tell()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def spent_on(requests: Sequence[ChatRequest], replies: Replies, config: ChatConfig) -> float:
    """What all stored replies have cost, also those to questions that are not asked any more."""
    asked: Mapping[str, ChatRequest] = {each.key(config.base_url): each for each in requests}
    return sum(
        cost_of_reply(reply, asked.get(key), config)
        for key, reply in replies.items()
        if _is_paid(reply)
    )


def _is_paid(reply: Reply) -> bool:
    """Whether a model has answered; what a server would not take is not paid for."""
    return reply.reason != DECLINED
