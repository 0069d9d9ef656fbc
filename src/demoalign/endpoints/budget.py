"""A limit on what may be spent: reserved before a request is made, settled when it is answered."""

from __future__ import annotations

import asyncio

from demoalign.config import ChatConfig
from demoalign.endpoints.chat import ChatRequest, Reply
from demoalign.endpoints.cost import price_of

MESSAGE_TOKENS = 16
"""What a server may add to each message, roles and marks, at most."""


def most_of(request: ChatRequest, config: ChatConfig) -> float:
    """What a request may cost at most: no text has more tokens than bytes.

    0 where no price or no limit of tokens is set.
    """
    messages = request.body["messages"]
    read = sum(len(m["content"].encode(errors="replace")) + MESSAGE_TOKENS for m in messages)
    return price_of(config.price, read, config.max_tokens or 0) or 0.0


def cost_of_reply(reply: Reply, request: ChatRequest | None, config: ChatConfig) -> float:
    """What a reply has cost by the server's count; as much as it may have where it told none."""
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return 0.0 if request is None else most_of(request, config)
    return price_of(config.price, reply.prompt_tokens, reply.completion_tokens) or 0.0


class Budget:
    """What may still be spent; to be used in one event loop.

    Args:
        limit: of all that is spent; None: none.
        spent: already.
    """

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self._reserved, self._open = 0.0, 0
        self._settled = asyncio.Condition()

    async def reserve(self, most: float) -> bool:
        """Put so much aside; waits for requests under way where their rest would be enough.

        Returns:
            Whether there is as much.
        """
        async with self._settled:
            await self._settled.wait_for(
                lambda: self._fits(most) or not self._open or not self._could_fit(most)
            )
            if not self._fits(most):
                return False
            self._reserved += most
            self._open += 1
            return True

    async def settle(self, most: float, cost: float) -> None:
        """Give back what was put aside, less what it has cost."""
        async with self._settled:
            self._open -= 1
            self._reserved = self._reserved - most if self._open else 0.0
            self.spent += cost
            self._settled.notify_all()

    def _fits(self, most: float) -> bool:
        return self.limit is None or self.spent + self._reserved + most <= self.limit

    def _could_fit(self, most: float) -> bool:
        return self.limit is None or self.spent + most <= self.limit
