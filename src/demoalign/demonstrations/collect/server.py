"""Demonstrations from a demonstrator behind an OpenAI-compatible address."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from demoalign.config import PAPER_TEMPLATE, ChatConfig, CollectConfig
from demoalign.demonstrations.collect.answers import (
    Missing,
    Said,
    demonstration_of,
    missing,
    too_long_to_ask,
)
from demoalign.demonstrations.collect.asking import OVER, Course, ask_all
from demoalign.demonstrations.collect.prompts import Asked, Prompts, read_prompts
from demoalign.demonstrations.collect.results import REPLIES, Files, write_results
from demoalign.demonstrations.collect.template import Template, load_template
from demoalign.endpoints.backoff import Backoff
from demoalign.endpoints.chat import DECLINED, FILTERED, ChatRequest, Replies, Reply, unanswered
from demoalign.endpoints.cost import Estimate, cost_of, estimate_cost
from demoalign.records import Demonstration
from demoalign.store import settings_of

PRESSURE = ("concurrency", "retries", "timeout", "price")
"""Settings of a server that do not change what is asked."""

CUT_REASONS = frozenset({"length", "max_tokens"})


class Collection:
    """Prompts and whom to ask about them, checked and ready.

    Args:
        config: with a server.
        server: that server.
        backoff: how long to wait before asking again.

    Raises:
        DataError: the prompts cannot be read.
        RecipeError: the template cannot be used, or the output belongs to something else.
    """

    def __init__(
        self, config: CollectConfig, server: ChatConfig, backoff: Backoff | None = None
    ) -> None:
        self.config, self.server = config, server
        self.template = load_template(config.template or PAPER_TEMPLATE)
        self.files = Files(Path(config.output))
        self.prompts = prompts_of(config)
        self._refused = {
            asked.id: why
            for asked in self.prompts.asked
            if (why := too_long_to_ask(asked, config)) is not None
        }
        self._requests = {
            asked.id: request_of(asked, self.template, server)
            for asked in self.prompts.asked
            if asked.id not in self._refused
        }
        self._backoff = backoff

    def estimate(self) -> Estimate:
        """What it will cost at most; asks and writes nothing."""
        replies = Replies(self.files.beside(REPLIES))
        wanted = list(self._requests.values())
        left = unanswered(wanted, replies, self.server.base_url)
        return estimate_cost(left.values(), len(wanted) - len(left), self.server)

    def collect(self) -> dict[str, Any]:
        """Ask what has no reply yet, write everything, and return the summary.

        However it ends, the files hold all that has come. ``stopped`` says why not everything was
        asked, and is None if it was.

        Raises:
            StoreError: another process works on this output.
            RolloutError: the key cannot be sent.
        """
        self.files.check()
        with self.files.held():
            replies = Replies(self.files.beside(REPLIES))
            course = ask_all(
                self.server,
                list(self._requests.values()),
                replies,
                self.config.max_cost,
                self._backoff,
            )
            outcomes = [self._outcome(asked, replies, course) for asked in self.prompts.asked]
            return write_results(self.files, self.prompts, outcomes, self._about(replies, course))

    def _outcome(self, asked: Asked, replies: Replies, course: Course) -> Demonstration | Missing:
        if asked.id in self._refused:
            return self._refused[asked.id]
        key = self._requests[asked.id].key(self.server.base_url)
        reply = replies.get(key)
        if reply is None:
            if key in course.failed:
                return missing(asked, "no answer", course.failed[key])
            why = course.stopped or "the work ended before"
            return missing(asked, "not asked", why)
        said = Said(
            reply.text,
            reply.reason in CUT_REASONS,
            reply.refusal,
            reply.reason in (DECLINED, FILTERED),
            self._provenance(reply),
        )
        return demonstration_of(asked, said, self.template, self.config)

    def _provenance(self, reply: Reply) -> dict[str, Any]:
        return {
            "model": self.server.model,
            "answered_by": reply.model,
            "base_url": self.server.base_url,
            "template": self.template.name,
            "template_digest": self.template.digest,
            "parameters": parameters_of(self.server),
            "time": reply.time,
            "finish_reason": reply.reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }

    def _about(self, replies: Replies, course: Course) -> dict[str, Any]:
        used = [
            reply
            for request in self._requests.values()
            if (reply := replies.get(request.key(self.server.base_url))) is not None
            and reply.reason != DECLINED
        ]
        new = [reply for reply in course.new if reply.reason != DECLINED]
        price = self.server.price
        settings = {k: v for k, v in settings_of(self.server).items() if k not in PRESSURE}
        return {
            "demonstrator": settings,
            "template": {
                "name": self.template.name,
                "digest": self.template.digest,
                "text": self.template.text,
            },
            "cost": dataclasses.asdict(cost_of(used, price)),
            "now": {**dataclasses.asdict(cost_of(new, price)), "asked_again": course.again},
            "max_cost": self.config.max_cost,
            "capped": course.stopped == OVER,
            "stopped": course.stopped,
        }


def request_of(asked: Asked, template: Template, server: ChatConfig) -> ChatRequest:
    """The question about one prompt."""
    return ChatRequest(server.body(template.ask(asked.prompt)))


def parameters_of(server: ChatConfig) -> dict[str, Any]:
    """What of the request's settings could change the answer."""
    given = {"temperature": server.temperature, "max_tokens": server.max_tokens}
    return {k: v for k, v in given.items() if v is not None} | dict(server.parameters)


def prompts_of(config: CollectConfig) -> Prompts:
    """The prompts that a collection names."""
    return read_prompts(
        config.prompts, split=config.split, limit=config.limit, skip_invalid=config.skip_invalid
    )
