"""What deeper modules log, in a run's own log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _PassOn(logging.Handler):
    """Hands each message to a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())


@contextmanager
def passed_on(write: Callable[[str], None]) -> Iterator[None]:
    """Hand every message of this package's loggers to ``write`` while the block runs."""
    logger, handler = logging.getLogger("demoalign"), _PassOn(write)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
