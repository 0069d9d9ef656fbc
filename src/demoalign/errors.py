"""Every error that demoalign raises on purpose.

DemoalignError
├── RecipeError      a recipe's key or value breaks a rule
├── DataError        rows of a data file break a rule (carries them)
├── ModelError       a model folder or id cannot be used as asked
├── StoreError       a run folder cannot be read or written
├── TrainingError    training diverged or cannot start
├── RolloutError     an engine cannot sample: a server or an engine outside fails
└── EvaluationError  a golden reward or a metric cannot be computed

A message names the field, the rule and the value found, and says what to do.
The command line prints the message alone; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DemoalignError(Exception):
    """Base of all errors whose message is meant for the user."""


class RecipeError(DemoalignError):
    """A recipe has an unknown key, a value outside its rule, or keys that contradict."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that cannot be used.

    Attributes:
        where: ``file:line`` (line counted from 1), or ``name:row`` where a file has no lines.
        what: the field, the rule and the value found.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class DataError(DemoalignError):
    """Data that cannot be used; ``problems`` holds every bad row that was found."""

    shown = 10

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        lines = [message, *(f"  {problem}" for problem in self.problems[: self.shown])]
        if len(self.problems) > self.shown:
            lines.append(f"  ... and {len(self.problems) - self.shown} more")
        super().__init__("\n".join(lines))


class ModelError(DemoalignError):
    """A model or tokenizer cannot be loaded or used as asked."""


class StoreError(DemoalignError):
    """A run folder is damaged, locked or not writable."""


class TrainingError(DemoalignError):
    """Training cannot start, or stopped because its numbers are no longer finite."""


class RolloutError(DemoalignError):
    """A rollout engine, or the server behind it, does not give what was asked for."""


class EvaluationError(DemoalignError):
    """A golden reward or a metric cannot be computed."""
