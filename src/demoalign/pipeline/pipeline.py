"""The run: which stages there are, what each depends on, and which have to run."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from demoalign.config import (
    MAKING,
    Recipe,
    dump_recipe,
)
from demoalign.errors import RecipeError
from demoalign.pipeline.environment import environment
from demoalign.pipeline.memory import give_back
from demoalign.pipeline.messages import passed_on
from demoalign.pipeline.models import Models
from demoalign.pipeline.resolve import (
    BaseText,
    check_inputs,
    check_shared,
    read_base,
    resolve_lab,
)
from demoalign.pipeline.stage import Stage
from demoalign.pipeline.stages import StageBuilder
from demoalign.policies.tracking import tracked
from demoalign.processes import connect, from_main, is_main, shared, wait
from demoalign.store import Run, write_json, write_text

TARGETS = {
    "demonstrations": "demonstrations",
    "sft": "sft",
    "sample": "rollouts",
    "reward": "reward",
    "improve": "improve",
    "best-of-n": "best-of-n",
    "evaluate": "evaluation",
    "report": "report",
}
"""Command -> the last stage that it runs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage: ``done`` just now or ``current`` already; seconds of work."""

    stage: str
    status: str
    seconds: float


class Pipeline:
    """A recipe bound to its run folder."""

    def __init__(self, recipe: Recipe) -> None:
        self.asked = recipe
        self.recipe = resolve_lab(recipe)
        self.run = Run(self.recipe.folder)
        self.models = Models(self.recipe, self.run.folder)

    @cached_property
    def base(self) -> BaseText:
        """The base model's tokenizer and configuration."""
        return read_base(self.recipe.model)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order, with their fingerprints."""
        return StageBuilder(self.recipe, self.run.folder, self.models, self.base).build()

    def plan(self) -> list[tuple[str, bool]]:
        """Each stage with whether it is already done as the recipe now asks."""
        return [
            (stage.name, self.run.is_current(stage.name, stage.fingerprint))
            for stage in self.stages
        ]

    def advance(self, target: str = "report") -> list[Outcome]:
        """Run what is needed up to a stage of `TARGETS`' values; skip what is up to date.

        Raises:
            DemoalignError: a stage failed; what was finished before it is kept.
        """
        check_shared(self.recipe)
        connect()
        wanted = self._until(target)
        check_inputs(self.recipe)
        outcomes = []
        with self._held():
            for number, stage in enumerate(wanted, start=1):
                outcomes.append(self._do(stage, f"[{number}/{len(wanted)}] {stage.name}"))
            if target == "report" and is_main():
                from demoalign.report import write_cards, write_report

                write_report(self.run.folder)
                write_cards(self.run.folder)
        return outcomes

    def do(self, stage: Stage) -> Outcome:
        """One stage more than the recipe's own, unless it is up to date."""
        with self._held():
            return self._do(stage, stage.name)

    @property
    def report(self) -> Path:
        """Where the report is."""
        return self.run.folder / "report.html"

    def _until(self, target: str) -> list[Stage]:
        names = [stage.name for stage in self.stages]
        if target == "report":
            return list(self.stages)
        ends = [i for i, name in enumerate(names) if name.partition("/")[0] == target]
        if not ends and target == "improve":
            raise RecipeError(
                f"improve.method: {self.recipe.improve.method} makes no policy of its own; "
                f"use `demoalign best-of-n`, or set improve.method to one of {', '.join(MAKING)}"
            )
        if not ends:
            raise RecipeError(f"stage: must be one of {', '.join(TARGETS)}, found {target!r}")
        return list(self.stages[: ends[-1] + 1])

    def _do(self, stage: Stage, title: str) -> Outcome:
        if from_main(lambda: self.run.is_current(stage.name, stage.fingerprint)):
            self._log(f"{title}: up to date")
            return Outcome(stage.name, "current", 0.0)
        self._log(f"{title}: running")
        clock = time.monotonic()
        if is_main():
            self._work(stage)
        elif stage.is_shared:
            with TemporaryDirectory() as scratch, shared():
                stage.work(Path(scratch))
        wait()
        give_back()
        seconds = round(time.monotonic() - clock, 3)
        self._log(f"{title}: done in {seconds:.1f} s")
        return Outcome(stage.name, "done", seconds)

    def _work(self, stage: Stage) -> None:
        """Do a stage in its folder, sharing it with other processes if there are any."""
        name, place = f"{self.recipe.name}/{stage.name}", self.run.folder / "tracking" / stage.name
        together = shared() if stage.is_shared else nullcontext()
        with passed_on(self._log), tracked(self.recipe.tracking, name, place), together:
            self.run.do(
                stage.name, stage.fingerprint, self.recipe.seed, stage.work, keep=stage.resumes
            )

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The run's folder, held by the main process for all of them."""
        if not is_main():
            wait()
            yield
            wait()
            return
        with self.run.locked():
            self._describe()
            wait()
            yield
            wait()

    def _describe(self) -> None:
        write_text(self.run.folder / "recipe.yaml", dump_recipe(self.asked))
        write_json(self.run.folder / "env.json", environment())

    def _log(self, line: str) -> None:
        if not is_main():
            return
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with (self.run.folder / "run.log").open("a", encoding="utf-8") as stream:
            stream.write(f"{stamp} {line}\n")


def run(recipe: Recipe, target: str = "report") -> Path:
    """Run a recipe up to a stage (by default all of it) and return the run's folder."""
    pipeline = Pipeline(recipe)
    pipeline.advance(target)
    return pipeline.run.folder


def outcomes_as_json(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Outcomes as plain objects."""
    return [dataclasses.asdict(outcome) for outcome in outcomes]
