"""The command line: help, --json, commands that stop at their stage, own prompts, merging."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from transformers import AutoModelForCausalLM

from demoalign.cli import app
from demoalign.config import load_recipe
from demoalign.demonstrations.render import render
from demoalign.policies.policy import Policy
from demoalign.policies.sft import IGNORED, training_row
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.records import Demonstration, read_records
from demoalign.version import __version__
from tests.conftest import ModelFolder
from tests.demonstrations.files import jsonl
from tests.models import chat, logits_of
from tests.pipeline.runs import (
    Json,
    Project,
    cli,
    demonstrations,
    digests,
    lines_of,
    make_project,
    metrics_of,
)

GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


@pytest.fixture
def project(tmp_path: Path, model_folder: ModelFolder) -> Project:
    return make_project(tmp_path, model_folder("llama", "bos"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> Project:
    """A run that `demoalign run` has finished; it is not changed."""
    folder = tmp_path_factory.mktemp("done")
    other = {"positives": "demonstrations", "negatives": "initial", "model": "head"}
    made = make_project(
        folder,
        model_folder("llama", "bos"),
        reward=[{"epochs": 1, "learning_rate": 0.003}, other],
    )
    said = cli("run", made.file())
    assert said.status == 0, said.err
    assert said.out == "", "stdout is for --json"
    return made


def test_version() -> None:
    said = cli("--version")
    assert (said.status, said.out) == (0, f"demoalign {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_parses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = cli(name, "--help")
    assert said.status == 0
    example = re.search(r"Example: *(demoalign .*)", said.out)
    assert example, said.out
    words = shlex.split(example[1].rstrip(" │|`"))
    assert words[:2] == ["demoalign", name]
    context = GROUP.commands[name].make_context(name, words[2:])
    assert context.params
    for option in re.findall(r"(--[a-z-]+)", said.out):
        assert option == "--help" or any(
            option in parameter.opts for parameter in GROUP.commands[name].params
        )


def test_every_command_takes_json() -> None:
    for name in COMMANDS:
        options = [option for each in GROUP.commands[name].params for option in each.opts]
        assert "--json" in options, name


def test_wrong_usage_is_status_2() -> None:
    assert cli("nonsense").status == 2
    assert cli("run").status == 2
    assert cli("best-of-n", "r.yaml", "--n", "0").status == 2
    assert cli("quickstart", "--dial", "2").status == 2


def test_init_lists_recipes_and_writes_them(project: Project) -> None:
    names = cli("init", "--list", "--json").json["recipes"]
    assert {"own-data", "quickstart"} <= set(names)
    listed = cli("init", "--list")
    assert all(name in listed.err for name in names)
    assert listed.out == ""
    for name in names:
        path = project.folder / "new" / f"{name}.yaml"
        said = cli("init", "--recipe", name, "--output", path, "--json")
        assert said.json == {"recipe": name, "path": str(path)}
        assert str(path) in said.err
        load_recipe(path)


def test_what_init_writes_can_be_validated(project: Project) -> None:
    """Only what its comments say to change, and the tiny model's tiny context."""
    path = project.folder / "recipe.yaml"
    assert cli("init", "--output", path).status == 0
    text = path.read_text(encoding="utf-8")
    text = text.replace("path/or/hub-id", str(project.plain["model"]["base"]))
    path.write_text(text.replace("demonstrations.jsonl", str(project.data)), encoding="utf-8")
    said = cli("validate", path, "--set", "rollouts.max_new_tokens=16", "--json")
    assert said.status == 0, said.err
    assert not (project.folder / "runs").exists(), "validate writes nothing"
    path.write_text(text, encoding="utf-8")
    assert cli("init", "--output", path).status == 1
    assert cli("init", "--output", path, "--force").status == 0
    assert path.read_text(encoding="utf-8") != text


def test_validate_reports_data_plan_and_cost(project: Project) -> None:
    jsonl(project.data, [*demonstrations(), demonstrations()[0]])
    found = cli("validate", project.file(), "--json").json
    summary = found["summary"]
    assert (summary["rows"], summary["distinct_prompts"]) == (25, 24)
    assert summary["exact_duplicates"] == 1
    assert any("repeat an earlier row" in warning for warning in found["warnings"])
    assert summary["completion_tokens"]["maximum"] > 8
    assert any("rollouts.max_new_tokens 8" in warning for warning in found["warnings"])
    stages = ["demonstrations", "sft", "rollouts", "reward/init-sft"]
    stages += ["rollouts-test", "best-of-n", "evaluation"]
    assert found["plan"] == [{"stage": stage, "state": "to run"} for stage in stages]
    assert set(found["seconds"]) <= set(stages)
    assert {"sft", "rollouts", "reward/init-sft"} <= set(found["seconds"])
    assert all(0 < seconds < 60 for seconds in found["seconds"].values())
    assert 10_000 < found["memory_bytes"] < 2**30
    assert not project.run.exists(), "validate writes nothing"


def test_validate_says_what_is_up_to_date(done: Project) -> None:
    before = digests(done.run)
    said = cli("validate", done.file(), "--json", "--set", "evaluation.n=2")
    states = {row["stage"]: row["state"] for row in said.json["plan"]}
    stale = [stage for stage, state in states.items() if state == "to run"]
    assert stale == ["rollouts-test", "best-of-n", "evaluation"]
    assert set(states.values()) == {"to run", "up to date"}
    assert digests(done.run) == before


@pytest.mark.parametrize(
    ("is_chat", "architecture", "tokenizer"),
    [(False, "llama", "bos"), (False, "gpt2", "eos_only"), (True, "qwen2", "chat")],
)
@pytest.mark.parametrize("max_length", [1024, 24])
def test_validate_shows_what_is_learned(
    tmp_path: Path,
    model_folder: ModelFolder,
    is_chat: bool,
    architecture: str,
    tokenizer: str,
    max_length: int,
) -> None:
    base = model_folder(architecture, tokenizer)
    small = make_project(tmp_path, base, chat=is_chat, sft__max_length=max_length)
    shown = cli("validate", small.file(), "--json").json["example"]
    assert cli("sft", small.file(), "--set", "sft.max_length=1024").status == 0
    row = read_records(small.run / "demonstrations" / "train.jsonl", Demonstration)[0]
    encoder = load_tokenizer(str(base), 10_000)
    recipe = load_recipe(small.file())
    rendered = render(encoder, row.prompt, row.completion)
    learned = training_row(rendered, recipe.sft)
    assert [token["learned"] for token in shown] == [id != IGNORED for id in learned["labels"]]
    assert [token["text"] for token in shown] == [encoder.decode([i]) for i in learned["input_ids"]]
    assert len(shown) == min(max_length, len(rendered.ids))
    assert not shown[0]["learned"]
    assert max_length == 24 or shown[-1]["learned"]


def test_stage_commands_stop_at_their_stage(project: Project) -> None:
    path = project.file()
    expected: list[tuple[str, list[str]]] = [
        ("sft", ["demonstrations", "sft"]),
        ("sample", ["rollouts"]),
        ("reward", ["reward/init-sft"]),
        ("best-of-n", ["rollouts-test", "best-of-n"]),
        ("evaluate", ["evaluation"]),
        ("run", []),
    ]
    for command, wanted in expected:
        result = cli(command, path, "--json").json
        assert result["run"] == str(project.run)
        ran = [each["stage"] for each in result["stages"] if each["status"] == "done"]
        assert ran == wanted, command
        assert (project.run / "report.html").exists() == (command == "run")
    assert result["report"] == str(project.run / "report.html")


def test_flags_override_the_recipe(project: Project) -> None:
    said = cli("sft", project.file(), "--seed", 5, "--set", "name=other", "--set", "sft.epochs=2")
    assert said.status == 0, said.err
    run = project.run.with_name("other")
    stored = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    assert (stored["seed"], stored["sft"]["epochs"]) == (5, 2)
    assert stored["sft"]["learning_rate"] == 0.003


def test_running_again_says_that_there_is_nothing_to_do(done: Project) -> None:
    said = cli("run", done.file())
    assert said.status == 0
    assert "nothing to do: all 8 stages are up to date" in said.err
    assert said.out == ""


def test_run_prints_the_table_and_where_the_report_is(done: Project) -> None:
    said = cli("run", done.file())
    assert "golden reward, mean" in said.err
    table = {line.split("  ")[0].strip(): line for line in said.err.splitlines()}
    assert {"initial", "sft", "sft, greedy", "by init-demo", "demonstrations"} <= set(table)
    best = {m["n"]: m for m in metrics_of(done.run, "golden_reward") if m["selector"] == "init-sft"}
    for n in (1, 4):
        low, high = best[n]["ci95"]
        assert f"{best[n]['value']:.2f} ± {(high - low) / 2:.2f}" in table["by init-sft"]
    assert str(done.run / "report.html") in said.err


PROMPTS = ["Why is the lamp off?", {"prompt": "Who has the key?"}, chat("Is it on?")]


def test_own_prompts_are_answered_one_line_each(done: Project, tmp_path: Path) -> None:
    prompts = jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    answers = ask(done, prompts, tmp_path / "best.jsonl")
    asked = ["Why is the lamp off?", "Who has the key?", chat("Is it on?")]
    assert [answer["prompt"] for answer in answers] == asked
    assert {(answer["selector"], answer["n"]) for answer in answers} == {("init-sft", 4)}
    assert all(isinstance(answer["completion"], str) for answer in answers)
    assert ask(done, prompts, tmp_path / "again.jsonl") == answers
    shutil.copytree(done.run, tmp_path / "small")
    hot = ("--set", f"output={tmp_path}", "--set", "rollouts.temperature=3")
    assert ask(done, prompts, tmp_path / "hot.jsonl", *hot) != answers


def test_more_candidates_never_score_lower(done: Project, tmp_path: Path) -> None:
    prompts = jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    ask_for = ("--selector", "init-demo", "--n")
    few = ask(done, prompts, tmp_path / "few.jsonl", *ask_for, 1)
    many = ask(done, prompts, tmp_path / "many.jsonl", *ask_for, 8)
    pairs = list(zip(few, many, strict=True))
    assert all(more["score"] >= one["score"] for one, more in pairs)
    assert any(more["score"] > one["score"] for one, more in pairs)
    assert {answer["selector"] for answer in many} == {"init-demo"}


def test_own_prompts_with_line_separators_inside(done: Project, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes('"Why\u2028is it?"\r\n\n{"prompt": "Who\x85?"}'.encode())
    answers = ask(done, prompts, tmp_path / "best.jsonl")
    assert [answer["prompt"] for answer in answers] == ["Why\u2028is it?", "Who\x85?"]


def ask(done: Project, prompts: Path, output: Path, *more: object) -> list[Json]:
    arguments = ("--prompts", prompts, "--output", output, *more)
    default = () if "--n" in more else ("--n", 4)
    said = cli("best-of-n", done.file(name=f"{output.stem}.yaml"), *arguments, *default, "--json")
    assert said.status == 0, said.err
    answers = lines_of(output)
    assert (said.json["answers"], said.json["path"]) == (len(answers), str(output))
    return answers


def test_report_is_written_again_from_a_run_or_its_recipe(done: Project, tmp_path: Path) -> None:
    run = shutil.copytree(done.run, tmp_path / "small")
    (run / "report.html").unlink()
    assert cli("report", run, "--json").json == {"report": str(run / "report.html")}
    first = (run / "report.html").read_text(encoding="utf-8")
    assert first == (done.run / "report.html").read_text(encoding="utf-8")
    recipe = done.file({"output": str(tmp_path)}, name="moved.yaml")
    (run / "report.html").unlink()
    assert cli("report", recipe).status == 0
    assert (run / "report.html").read_text(encoding="utf-8") == first


def test_merge_gives_a_plain_model_with_the_same_logits(done: Project, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    said = cli("merge", done.run / "sft", "--output", merged, "--json")
    card = str(merged / "README.md")
    assert said.json == {"policy": str(done.run / "sft"), "path": str(merged), "card": card}
    assert not (merged / "adapter_config.json").exists()
    rows = [[2, 40, 41, 42, 43], [50, 60]]
    (ours,) = [AutoModelForCausalLM.from_pretrained(merged).eval()]
    policy = Policy.load(done.run / "sft", device="cpu")
    with policy.active():
        wanted = logits_of(policy.backbone.causal, rows)
    bare = logits_of(policy.backbone.causal, rows)
    for found, tuned, base in zip(logits_of(ours, rows), wanted, bare, strict=True):
        assert (found - tuned).abs().max() < 1e-4
        assert (found - base).abs().max() > 1e-2
    again = cli("merge", done.run / "sft", "--output", merged)
    assert again.status == 1
    assert "new or empty folder" in again.err


def test_env_names_versions_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-123")
    said = cli("env", "--json")
    assert said.json["demoalign"] == __version__
    assert {"torch", "transformers", "trl", "peft"} <= set(said.json["packages"])
    assert all(said.json["packages"].values())
    assert said.json["cores"] >= 1
    assert "canary" not in said.out + said.err
