"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from demoalign.processes import is_main

LINE_SECONDS = 10.0

_is_shown: ContextVar[bool] = ContextVar("is_shown", default=False)
"""Whether a meter is shown already, of which this work is a part."""


class Meter:
    """Counts finished units of one piece of work."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._started = self._last_line = time.monotonic()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Report ``units`` more as finished, with a short note such as the current loss."""
        self.done += units
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            rate = self.done / max(now - self._started, 1e-9)
            left = max(0.0, (self.total - self.done) / max(rate, 1e-9))
            text = (
                f"{self.title}: {self.done}/{self.total} ({rate:.1f}/s, {left:.0f} s left) {note}"
            )
            sys.stderr.write(text.rstrip() + "\n")


class _SilentMeter(Meter):
    def advance(self, units: int = 1, note: str = "") -> None:
        self.done += units


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


class _BarMeter(Meter):
    def __init__(self, title: str, total: int, progress: Progress) -> None:
        super().__init__(title, total)
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")

    def advance(self, units: int = 1, note: str = "") -> None:
        self.done += units
        self._progress.update(self._task, advance=units, note=note)


@contextmanager
def meter(title: str, total: int) -> Iterator[Meter]:
    """Show the progress of ``total`` units while the block runs.

    Within another block it is that one's progress that is shown.
    """
    if _is_shown.get():
        yield _SilentMeter(title, total)
        return
    token = _is_shown.set(True)
    try:
        with _meter(title, total) as shown:
            yield shown
    finally:
        _is_shown.reset(token)


@contextmanager
def _meter(title: str, total: int) -> Iterator[Meter]:
    if not is_main():
        yield _SilentMeter(title, total)
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Meter(title, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _BarMeter(title, total, progress)
