"""How long to wait before a server is asked again."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before asking again: exponential, with full jitter.

    Attributes:
        first: seconds that the first pause has at most; each further one twice as many.
        most: seconds that no pause exceeds, unless the server asks for it.
        asked_most: what a server's Retry-After is cut to.
        sleep: waits.
    """

    first: float = 1.0
    most: float = 60.0
    asked_most: float = 300.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def seconds(self, failures: int, asked: float | None = None) -> float:
        """The pause after the given number of failures (from 1) of one request.

        Uniform in [0, min(most, first * 2^(failures - 1))]. After a Retry-After it is that long,
        and up to ``first`` more so that not all come back at once.
        """
        if asked is not None:
            return min(asked, self.asked_most) + random.uniform(0, self.first)
        return random.uniform(0, min(self.most, self.first * 2.0 ** (failures - 1)))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After asks for, written as a number or as a date; None without one."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
