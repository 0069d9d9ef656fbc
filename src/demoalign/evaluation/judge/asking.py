"""From pairs to outcomes: ask the judge what is not stored yet, in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from demoalign.config import JudgeConfig
from demoalign.endpoints.advice import Advice
from demoalign.endpoints.backoff import Backoff
from demoalign.endpoints.chat import ChatRequest, Replies, Reply, ask_chat, unanswered
from demoalign.endpoints.cost import Cost, Estimate, cost_of, estimate_cost
from demoalign.endpoints.endpoint import Endpoint
from demoalign.errors import EvaluationError, RolloutError
from demoalign.evaluation.judge.pairs import Outcome, Pair, requests_of
from demoalign.evaluation.judge.template import Template
from demoalign.evaluation.judge.verdict import read_verdict
from demoalign.progress import meter

ADVICE = Advice(
    "evaluation.judge",
    "temperature, max_tokens and parameters of evaluation.judge say what it holds; null leaves the "
    "first two out.",
    "--model (evaluation.judge.model) is that name.",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked.

    Attributes:
        outcomes: one for each pair, in order.
        cost: of all replies that the outcomes are read from.
        now: of those that were asked for this time.
        again: requests that were made again.
    """

    outcomes: tuple[Outcome, ...]
    cost: Cost
    now: Cost
    again: int


class Judge:
    """A judge with its store of replies.

    Args:
        config: whom to ask, and how.
        template: what to ask.
        stored: the file of replies; None keeps them in memory.
        backoff: how long to wait before asking again.
    """

    def __init__(
        self,
        config: JudgeConfig,
        template: Template,
        stored: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.config = config
        self.template = template
        self._replies = Replies(stored)
        self._backoff = backoff

    def estimate(self, pairs: Iterable[Pair]) -> Estimate:
        """What judging these pairs will cost at most."""
        requests = [each for both in self._requests(pairs).values() for each in both]
        missing = unanswered(requests, self._replies, self.config.base_url)
        wanted = {each.key(self.config.base_url) for each in requests}
        return estimate_cost(missing.values(), len(wanted) - len(missing), self.config)

    def judge(self, pairs: Sequence[Pair]) -> Asked:
        """Ask about each pair in both orders, unless the replies are stored.

        Raises:
            EvaluationError: the server refuses a request, or keeps failing; the replies that came
                are stored.
        """
        asked = self._requests(pairs)
        requests = [each for both in asked.values() for each in both]
        new, again = self._ask(requests)
        outcomes = tuple(self._outcome(pair, asked[place]) for place, pair in enumerate(pairs))
        keys = {request.key(self.config.base_url) for request in requests}
        used = [reply for key in keys if (reply := self._replies.get(key)) is not None]
        price = self.config.price
        return Asked(outcomes, cost_of(used, price), cost_of(new, price), again)

    def _requests(self, pairs: Iterable[Pair]) -> Mapping[int, tuple[ChatRequest, ...]]:
        """By the pair's place."""
        return {
            place: requests_of(pair, self.template, self.config) for place, pair in enumerate(pairs)
        }

    def _ask(self, requests: Sequence[ChatRequest]) -> tuple[list[Reply], int]:
        """The new replies, and how many requests had to be made again."""
        total = len(unanswered(requests, self._replies, self.config.base_url))
        if not total:
            return [], 0
        try:
            endpoint = Endpoint(self.config, self._backoff, ADVICE)
        except RolloutError as error:
            raise EvaluationError(f"judge: {error}") from None
        new: list[Reply] = []
        try:
            with (
                closing(self._replies),
                closing(ask_chat(endpoint, requests, self._replies)) as replies,
                meter(f"judge {self.config.model}", total) as shown,
            ):
                for reply in replies:
                    new.append(reply)
                    note = f"{endpoint.retried} asked again" if endpoint.retried else ""
                    shown.advance(1, note)
        except RolloutError as error:
            left = len(unanswered(requests, self._replies, self.config.base_url))
            raise EvaluationError(
                f"judge: {error} {total - left} of {total} replies had come and are stored. Run "
                "the same command again to go on."
            ) from None
        return new, endpoint.retried

    def _outcome(self, pair: Pair, requests: Sequence[ChatRequest]) -> Outcome:
        if not requests:
            return Outcome(pair, None)
        replies = [self._replies.get(each.key(self.config.base_url)) for each in requests]
        first, second = (reply for reply in replies if reply is not None)
        criterion = self.template.criterion
        return Outcome(
            pair,
            (
                read_verdict(first.text, criterion, first.refusal),
                read_verdict(second.text, criterion, second.refusal),
            ),
            (first.refusal or first.text, second.refusal or second.text),
        )
