"""Many questions to one server: so many at a time, their answers handed on in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from demoalign.errors import RolloutError
from demoalign.rollouts.choices import Choice, read_choices
from demoalign.rollouts.endpoint import Endpoint
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.event_loop import event_loop
from demoalign.rollouts.random_streams import stream_key
from demoalign.rollouts.responses import Responses

AHEAD = 4
"""Questions that may be begun before the first of them is handed on, as a multiple of those that
may be under way: it bounds memory, and says how long one slow answer may hold up the others."""


@dataclass(frozen=True, slots=True)
class Question:
    """Some samples of one prompt, had with one request if the server gives them all.

    Attributes:
        spec: the prompt.
        indices: the samples wanted.
        path: ``completions`` or ``chat/completions``.
        body: the request but for ``n`` and ``seed``.
        digest: of policy, path, body and the run's seed: one for all questions about a prompt.
        held: choices that an earlier attempt got, by index.
    """

    spec: PromptSpec
    indices: tuple[int, ...]
    path: str
    body: Mapping[str, Any]
    digest: str
    held: Mapping[int, Choice]


@dataclass(frozen=True, slots=True)
class Answer:
    """A question with its choices, one for each of its indices."""

    question: Question
    choices: Sequence[Choice]


class Asking:
    """Asks the questions of one sampling.

    Attributes:
        received: completions that are there, with those of an earlier attempt.
    """

    def __init__(self, endpoint: Endpoint, responses: Responses, seed: int) -> None:
        self.received = 0
        self._endpoint = endpoint
        self._responses = responses
        self._seed = seed
        self._failure: RolloutError | None = None
        self._room = asyncio.Semaphore(endpoint.config.concurrency)
        self._window = AHEAD * endpoint.config.concurrency

    def answers(self, questions: Iterable[Question]) -> Generator[Answer]:
        """Yield the answers in the order of the questions.

        A failure of any question ends it at once, whatever else is under way.

        Raises:
            RolloutError: the server refuses one, or keeps failing.
        """
        client = self._endpoint.client()
        failed: Future[Answer] = Future()
        waiting: deque[Future[Answer]] = deque()
        with event_loop(client.aclose) as loop:
            for question in questions:
                coming = asyncio.run_coroutine_threadsafe(self._answer(client, question), loop)
                coming.add_done_callback(partial(_tell_failure, failed))
                waiting.append(coming)
                if len(waiting) == self._window:
                    yield _next(waiting.popleft(), failed)
            while waiting:
                yield _next(waiting.popleft(), failed)

    async def _answer(self, client: httpx2.AsyncClient, question: Question) -> Answer:
        """All choices of a question: those the server leaves out are asked for again."""
        found = dict(question.held)
        self.received += len(found)
        if len(found) < len(question.indices):
            async with self._room:
                while missing := [i for i in question.indices if i not in found]:
                    choices = await self._ask(client, question, missing)
                    found |= zip(missing, choices, strict=False)
        return Answer(question, [found[index] for index in question.indices])

    async def _ask(
        self, client: httpx2.AsyncClient, question: Question, missing: Sequence[int]
    ) -> list[Choice]:
        """At least one and at most all of the missing choices."""
        prompt, first = question.spec.id, missing[0]
        if self._failure is not None:
            raise self._failure  # nothing more is asked once the work is to end
        body = {
            **question.body,
            "n": len(missing),
            "seed": request_seed(self._seed, prompt, first),
        }
        read = partial(read_choices, wanted=len(missing))
        try:
            choices = await self._endpoint.ask(client, question.path, body, read)
        except RolloutError as error:
            self._failure = error
            raise
        self.received += len(choices)
        self._responses.add(prompt, missing, question.digest, choices)
        return choices


def request_seed(seed: int, prompt_id: str, first: int) -> int:
    """The seed of a request: its first rollout's stream, in the 31 bits that any server takes."""
    return stream_key(seed, prompt_id, first) >> 33


def _tell_failure(failed: Future[Answer], done: Future[Answer]) -> None:
    """Pass the first failure on (callbacks run one after the other, in the loop's thread)."""
    if not done.cancelled() and not failed.done() and (error := done.exception()) is not None:
        failed.set_exception(error)


def _next(first: Future[Answer], failed: Future[Answer]) -> Answer:
    wait([first, failed], return_when=FIRST_COMPLETED)
    return (first if first.done() else failed).result()
