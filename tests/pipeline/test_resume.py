"""Interrupted anywhere and run again, a run ends as one that was never interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from demoalign.pipeline import TARGETS, Pipeline
from demoalign.policies.policy import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, TransformersEngine
from demoalign.rollouts.write import read_rollouts
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import TIMED, Project, cli, digests, stages_done

STAGES = [
    "demonstrations",
    "sft",
    "rollouts",
    "reward/init-sft",
    "reward/preference",
    "rollouts-test",
    "best-of-n",
    "evaluation",
]
MANY = {"rollouts.samples_per_prompt": 12}


class InterruptionError(Exception):
    """What stands for a power cut."""


def fail_once(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, when: Callable[..., bool]
) -> None:
    """Make a function raise the first time that it is called with what ``when`` accepts."""
    home = sys.modules[f"demoalign.pipeline.{module}"]
    original = getattr(home, name)
    left = [1]

    def failing(*arguments: Any, **options: Any) -> Any:
        if left and when(*arguments):
            left.pop()
            raise InterruptionError
        return original(*arguments, **options)

    monkeypatch.setattr(home, name, failing)


def test_stopped_after_every_stage(same_project: Project, finished: Project) -> None:
    done = []
    for target in [*(each for each in TARGETS.values() if each != "improve"), "report"]:
        if target == "best-of-n":
            pipeline = Pipeline(same_project.recipe())
            done.append(stages_done(pipeline.advance("rollouts-test")))
        pipeline = Pipeline(same_project.recipe())
        done.append(stages_done(pipeline.advance(target)))
    first, rewards, last = STAGES[:3], STAGES[3:5], STAGES[5:]
    assert done == [*([stage] for stage in first), rewards, *([stage] for stage in last), [], []]
    assert digests(same_project.run, skip=TIMED) == digests(finished.run, skip=TIMED)


def test_full_fine_tuning_stopped_after_every_stage(project: Project) -> None:
    whole, parts = (
        project.recipe({"model.adapter.kind": "none", "output": str(project.folder / place)})
        for place in ("whole", "parts")
    )
    Pipeline(whole).advance("evaluation")
    for stage in ("sft", "rollouts", "reward", "rollouts-test", "best-of-n", "evaluation"):
        Pipeline(parts).advance(stage)
    assert digests(parts.folder, skip=TIMED) == digests(whole.folder, skip=TIMED)


@pytest.mark.parametrize(
    ("stage", "module", "name", "when"),
    [
        ("sft", "training", "write_json", lambda path, _: path.parent.name == "sft"),
        ("rollouts", "sampling", "write_rollouts", lambda path, *_: path.name == "sft.jsonl"),
        ("reward/init-sft", "training", "store_heldout", lambda *_: True),
        ("reward/preference", "comparing", "label_pairs", lambda *_: True),
        (
            "rollouts-test",
            "sampling",
            "write_rollouts",
            lambda path, *_: path.name == "sft-greedy.jsonl",
        ),
        ("best-of-n", "sampling", "write_records", lambda *_: True),
        ("evaluation", "evaluate", "write_json", lambda *_: True),
    ],
)
def test_stopped_inside_a_stage(
    copy_of_run: CopyOfRun,
    finished: Project,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    module: str,
    name: str,
    when: Callable[..., bool],
) -> None:
    copied = copy_of_run(stage)
    fail_once(monkeypatch, module, name, when)
    pipeline = Pipeline(copied.recipe())
    with pytest.raises(InterruptionError):
        pipeline.advance("evaluation")
    assert not (copied.run / ".lock").exists()
    assert dict(pipeline.plan()) == {each: each != stage for each in STAGES}
    again = pipeline if module == "sampling" else Pipeline(copied.recipe())
    assert stages_done(again.advance("evaluation")) == [stage]
    assert digests(copied.run, skip=TIMED) == digests(finished.run, skip=TIMED)


def test_sft_goes_on_from_its_last_checkpoint(
    copy_of_run: CopyOfRun, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = copy_of_run("sft")
    fail_once(monkeypatch, "training", "write_json", lambda path, _: path.name == "training.json")
    with pytest.raises(InterruptionError):
        Pipeline(copied.recipe()).advance("sft")
    kept = sorted(path.name for path in (copied.run / "sft").glob("checkpoints/checkpoint-*"))
    assert kept == ["checkpoint-2", "checkpoint-3"]
    for name in kept[1:]:  # killed while it wrote the last one
        (copied.run / "sft" / "checkpoints" / name / "complete.json").unlink()
    Pipeline(copied.recipe()).advance("sft")
    assert digests(copied.run / "sft", skip=TIMED) == digests(finished.run / "sft", skip=TIMED)
    assert not (copied.run / "sft" / "checkpoints").exists()


def test_killed_while_sampling(
    same_project: Project, copy_of_run: CopyOfRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL leaves a lock, half a file and no manifest; the next run takes up from there."""
    more = {
        "rollouts.train_prompts": 12,
        "rollouts.samples_per_prompt": 12,
        "rollouts.batch_size": 2,
    }
    copied = copy_of_run("rollouts")
    path = copied.file(more)
    process = subprocess.Popen(
        [sys.executable, "-m", "demoalign", "sample", str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    partial = copied.run / "rollouts" / "initial.jsonl.partial"
    for _ in wait_until(lambda: partial.is_file() and partial.stat().st_size > 8_000):
        assert process.poll() is None, "ended before it could be killed"
    process.kill()
    process.wait()
    assert partial.is_file()
    assert (copied.run / ".lock").is_file()
    asked = watch_sampling(monkeypatch)
    said = cli("sample", path, "--json")
    assert said.status == 0, said.err
    assert asked[0] < 12, "prompts that had been answered are not answered again"
    whole = same_project.recipe({**more})
    Pipeline(whole).advance("rollouts")
    for name in ("initial.jsonl", "sft.jsonl"):
        resumed, uninterrupted = (
            read_rollouts(run / "rollouts" / name) for run in (copied.run, whole.folder)
        )
        assert [(r.id, r.token_ids) for r in resumed] == [
            (r.id, r.token_ids) for r in uninterrupted
        ]
        sums = [[r.logprob for r in rollouts] for rollouts in (resumed, uninterrupted)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-4)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        yield
        time.sleep(0.01)


def watch_sampling(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts the engine is asked to answer, call by call."""
    asked: list[int] = []
    original = TransformersEngine.sample

    def watched(
        self: TransformersEngine,
        policy: Policy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        asked.append(len(prompts))
        return original(self, policy, prompts, n, seed, greedy)

    monkeypatch.setattr(TransformersEngine, "sample", watched)
    return asked


def test_an_interruption_says_how_to_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Pipeline, target: str = "report") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "advance", interrupted)
    said = cli("run", project.file())
    assert said.status == 130
    assert "run the same command again" in said.err


def test_settings_changed_while_interrupted_start_the_stage_afresh(
    copy_of_run: CopyOfRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rollouts at one temperature are not completed at another."""
    copied = copy_of_run("rollouts")
    fail_once(monkeypatch, "sampling", "write_rollouts", lambda path, *_: path.name == "sft.jsonl")
    with pytest.raises(InterruptionError):
        Pipeline(copied.recipe()).advance("rollouts")
    before = (copied.run / "rollouts" / "initial.jsonl").read_bytes()
    Pipeline(copied.recipe({"rollouts.temperature": 5.0})).advance("rollouts")
    assert (copied.run / "rollouts" / "initial.jsonl").read_bytes() != before
