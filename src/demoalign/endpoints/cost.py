"""What asking a chat model will cost at most, and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from demoalign.config import ChatConfig, PriceConfig
from demoalign.endpoints.chat import ChatRequest, Reply

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English; other languages have more tokens."""

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Before anything is asked.

    Attributes:
        requests: that will be made.
        stored: that need not be made, their replies are there.
        prompt_tokens: of those to be made, by four characters a token.
        completion_tokens: at most; None without ``max_tokens``.
        price: at most, in the currency of the prices; None where it is not known.
    """

    requests: int
    stored: int
    prompt_tokens: int
    completion_tokens: int | None
    price: float | None

    def line(self, what: str) -> str:
        """What is about to be asked for which purpose, in one line."""
        most = (
            "no limit of written tokens"
            if self.completion_tokens is None
            else f"at most {self.completion_tokens:,} written"
        )
        price = "" if self.price is None else f", at most {self.price:.2f} at the prices given"
        return (
            f"{what}: {self.requests} requests to make, {self.stored} replies stored; about "
            f"{self.prompt_tokens:,} tokens read ({CHARACTERS_PER_TOKEN} characters each), "
            f"{most}{price}"
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Afterwards, by the server's own count.

    Attributes:
        replies: that were counted.
        without_usage: those of them for which the server told no tokens; they are not in the rest.
        prompt_tokens, completion_tokens: None if it told none at all.
        price: of the tokens told; None where it is not known.
    """

    replies: int
    without_usage: int
    prompt_tokens: int | None
    completion_tokens: int | None
    price: float | None


def estimate_cost(missing: Iterable[ChatRequest], stored: int, config: ChatConfig) -> Estimate:
    """What asking these questions will cost at most."""
    sizes = [
        sum(len(message["content"]) for message in request.body["messages"]) for request in missing
    ]
    prompt = sum(math.ceil(size / CHARACTERS_PER_TOKEN) for size in sizes)
    completion = None if config.max_tokens is None else len(sizes) * config.max_tokens
    price = None if completion is None else price_of(config.price, prompt, completion)
    return Estimate(len(sizes), stored, prompt, completion, price)


def cost_of(replies: Iterable[Reply], price: PriceConfig | None) -> Cost:
    """What these replies have cost."""
    found = list(replies)
    told = [
        (reply.prompt_tokens, reply.completion_tokens)
        for reply in found
        if reply.prompt_tokens is not None and reply.completion_tokens is not None
    ]
    without = len(found) - len(told)
    if found and not told:
        return Cost(len(found), without, None, None, None)
    prompt, completion = (sum(tokens) for tokens in zip(*told, strict=True)) if told else (0, 0)
    return Cost(len(found), without, prompt, completion, price_of(price, prompt, completion))


def price_of(price: PriceConfig | None, prompt: int, completion: int) -> float | None:
    """What so many tokens cost; None where it is not known."""
    if price is None:
        return None
    return (prompt * price.input + completion * price.output) / MILLION
