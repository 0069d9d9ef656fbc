"""Tracking: off by default, numbers only, an error where the tool is missing.

None of the tools is a dependency. A package of the test stands in for W&B and trackio, which have
one interface, and notes what it is told.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demoalign.improve.optimise import optimise
from demoalign.policies.tracking import TOOLS, track, tracked
from tests.conftest import ModelFolder
from tests.improve.trainings import config_of, disturbed, reward, training_of
from tests.pipeline.runs import Json, Project, cli, lines_of, make_project, refusal

STAND_IN = """
import json
class Settings:
    def __init__(self, **given):
        self.given = given
def note(**said):
    with open({path!r}, "a") as stream:
        stream.write(json.dumps(said, default=lambda each: each.given) + "\\n")
def init(**given):
    note(init=given)
def log(values):
    note(log=values)
def finish():
    note(finish=True)
"""

Stand = Callable[[str], Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Make a package of that name importable; returns the file of what it is told."""
    importlib.import_module("trl.trainer.utils")  # it notes once and for all what is installed
    made: list[str] = []

    def make(name: str) -> Path:
        made.append(name)
        said = tmp_path / f"{name}.jsonl"
        package = tmp_path / "packages"
        package.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(STAND_IN.replace("{path!r}", repr(str(said))))
        monkeypatch.syspath_prepend(str(package))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return said

    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def project(tmp_path: Path, model_folder: ModelFolder) -> Project:
    return make_project(tmp_path, model_folder("llama", "bos"), sft__epochs=4, sft__checkpoints=0)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_is_missing(project: Project, tool: str) -> None:
    if importlib.util.find_spec(tool) is not None:
        pytest.skip(f"{tool} is installed")
    said = refusal("run", project.file({"tracking": tool}))
    assert f"tracking: {tool} needs the package {tool}, which is not installed" in said
    assert not project.run.exists(), "told before anything is done"


def test_an_unknown_tool(project: Project) -> None:
    assert "tracking: Input should be 'none', 'tensorboard'" in refusal(
        "run", project.file({"tracking": "mlflow"})
    )


@pytest.mark.parametrize("tool", ["wandb", "trackio"])
def test_numbers_and_nothing_else_are_sent(project: Project, stand_in: Stand, tool: str) -> None:
    told = stand_in(tool)
    said = cli("sft", project.file({"tracking": tool}))
    assert said.status == 0, said.err
    first, *rest = lines_of(told)
    assert first["init"]["project"] == "demoalign"
    assert first["init"]["name"] == "small/sft"
    logs: list[Json] = [each["log"] for each in rest if "log" in each]
    assert any("SFT/loss" in each for each in logs)
    assert all(isinstance(value, int | float) for each in logs for value in each.values())
    assert rest[-1] == {"finish": True}
    text = json.dumps(logs)
    assert "router" not in text, "no prompt"
    assert str(project.folder) not in text


def test_off_by_default_and_no_reason_to_run_again(project: Project, stand_in: Stand) -> None:
    told = stand_in("trackio")
    assert cli("sft", project.file()).status == 0
    assert not told.exists()
    again = cli("sft", project.file({"tracking": "trackio"}), "--json").json
    assert {each["status"] for each in again["stages"]} == {"current"}
    assert not told.exists(), "a stage without training opens nothing"


def test_what_is_no_number_is_left_out(tmp_path: Path, stand_in: Stand) -> None:
    told = stand_in("trackio")
    with tracked("trackio", "run", tmp_path):
        track("SFT", {"loss": 1.5, "text": "a prompt", "grad_norm": float("nan"), "step": 3}, 7)
    track("SFT", {"loss": 2.0}, 8)
    assert [each.get("log") for each in lines_of(told)] == [
        None,
        {"SFT/loss": 1.5, "step": 7},
        None,
    ]


def test_rounds_and_checks_of_a_training(
    tmp_path: Path, stand_in: Stand, model_folder: ModelFolder
) -> None:
    told = stand_in("trackio")
    training = training_of(disturbed(model_folder("llama", "eos_only")), config_of(rounds=2))
    with tracked("trackio", "run", tmp_path):
        optimise(training, reward(), tmp_path / "policy", lambda: None)
    logs: list[Json] = [each["log"] for each in lines_of(told) if "log" in each]
    assert [each["step"] for each in logs if "rloo/reward" in each] == [1, 2]
    assert [each["step"] for each in logs if "rloo check/kl" in each] == [0, 2]
