"""Asking a server for samples of prompts, what it leaves out again."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from demoalign.endpoints.endpoint import Endpoint
from demoalign.endpoints.in_order import in_order
from demoalign.errors import RolloutError
from demoalign.rollouts.choices import Choice, read_choices
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.random_streams import stream_key
from demoalign.rollouts.responses import Responses


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

    def answers(self, questions: Iterable[Question]) -> Generator[Answer]:
        """Yield the answers in the order of the questions.

        A failure of any question ends it at once, whatever else is under way.

        Raises:
            RolloutError: the server refuses one, or keeps failing.
        """
        return in_order(self._endpoint, questions, self._answer)

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
