"""Coroutines beside ordinary code: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


@contextmanager
def event_loop(last: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in another thread while the block runs; hand it work from any thread.

    However the block is left, what still runs in the loop is cancelled, ``last`` is awaited
    there, and the thread is gone. It works within another event loop too, as in a notebook.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="demoalign-requests", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _wind_up(last: Callable[[], Awaitable[None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last()
    await asyncio.get_running_loop().shutdown_default_executor()
