"""`demoalign collect --policy`: a model in a folder as demonstrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demoalign.demonstrations.collect.template import PAPER
from demoalign.pipeline import Pipeline
from tests.conftest import ModelFolder
from tests.demonstrations.files import jsonl
from tests.models import CONTEXT, chat
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import Json, cli, lines_of, refusal, stages_done

PROMPTS = ["Why is lamp 1 off?", "Why is lamp 2 off?", "Why is lamp 3 off?", "why " * CONTEXT]


def words(
    folder: Path, policy: Path, *flags: object, prompts: list[object] | None = None
) -> list[object]:
    source = jsonl(folder / "prompts.jsonl", prompts or PROMPTS)
    output = ["--output", folder / "rows.jsonl", "--policy", policy]
    return ["collect", "--prompts", source, *output, "--max-tokens", 16, *flags, "--json"]


def collected(*arguments: object) -> Json:
    said = cli(*arguments)
    assert said.status == 0, said.err
    return said.json


def test_a_policy_s_answers_become_demonstrations(
    tmp_path: Path, model_folder: ModelFolder
) -> None:
    policy = model_folder("llama", "bos")
    flags = ("--set", "collect.keep_cut=true", "--seed", 3)
    summary = collected(*words(tmp_path, policy, *flags))
    rows = lines_of(tmp_path / "rows.jsonl")
    sampled = {r["prompt_id"]: r for r in lines_of(tmp_path / "rows.sampled" / "rollouts.jsonl")}
    assert [row["prompt"] for row in rows] == PROMPTS[:3]
    for row in rows:
        assert row["completion"] == " " + sampled[row["id"]]["completion"].strip()
        about = row["meta"]["collected"]
        assert (about["policy"], about["template"], about["seed"]) == (str(policy), "none", 3)
        assert about["parameters"]["max_new_tokens"] == 16
        assert len(about["policy_digest"]) == 64
    assert summary["reasons"] == {"prompt too long": 1}
    (line,) = lines_of(tmp_path / "rows.rejected.jsonl")
    assert f"room for 16 new tokens in the policy's context of {CONTEXT}" in line["what"]


def test_an_interrupted_sampling_goes_on_and_a_finished_one_is_not_repeated(
    tmp_path: Path, model_folder: ModelFolder
) -> None:
    policy = model_folder("llama", "bos")
    collected(*words(tmp_path, policy))
    folder = tmp_path / "rows.sampled"
    path = folder / "rollouts.jsonl"
    whole, stamp = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    collected(*words(tmp_path, policy))
    assert path.stat().st_mtime_ns == stamp
    lines = whole.split("\n")
    path.unlink()
    wanted = (folder / "manifest.json").read_text(encoding="utf-8")
    fingerprint = wanted.split('"fingerprint": "')[1].split('"')[0]
    (folder / "manifest.json").unlink()
    (folder / ".pending").write_text(fingerprint, encoding="utf-8")
    kept = lines[0].replace('"seed"', '"policy": "marked", "seed"', 1)
    (folder / "rollouts.jsonl.partial").write_text(f"{kept}\n{lines[1][:20]}", encoding="utf-8")
    collected(*words(tmp_path, policy))
    again = path.read_text(encoding="utf-8").split("\n")
    assert again[0] == kept, "what was there is kept"
    ids = [[json.loads(line)["token_ids"] for line in each if line] for each in (again, lines)]
    assert ids[0] == ids[1]
    collected(*words(tmp_path, policy, "--seed", 1))
    assert path.read_text(encoding="utf-8") != whole


@pytest.mark.parametrize(("kind", "is_chat"), [("bos", False), ("chat", True)])
def test_a_template_is_asked_as_the_policy_s_tokenizer_wants(
    tmp_path: Path, model_folder: ModelFolder, kind: str, is_chat: bool
) -> None:
    template = tmp_path / "t.txt"
    template.write_text("Q {prompt}", encoding="utf-8")
    prompts: list[object] = [{"prompt": chat("Why?")}]
    flags = ("--template", template, "--set", "collect.keep_cut=true")
    collected(*words(tmp_path, model_folder("llama", kind), *flags, prompts=prompts))
    (row,) = lines_of(tmp_path / "rows.jsonl")
    assert row["prompt"] == chat("Why?"), "the demonstration is for the prompt as it was"
    assert row["meta"]["collected"]["template"] == str(template)
    assert PAPER.startswith("###")


def test_answers_cut_at_the_limit_are_rejected(tmp_path: Path, model_folder: ModelFolder) -> None:
    arguments = words(tmp_path, model_folder("llama", "bos"))
    arguments[arguments.index(16)] = 1
    summary = collected(*arguments)
    assert summary["rows"] + summary["missing"] == len(PROMPTS)
    sampled = lines_of(tmp_path / "rows.sampled" / "rollouts.jsonl")
    texts = [r["completion"].strip() for r in sampled if r["finish_reason"] == "length"]
    assert summary["reasons"].get("cut", 0) == len([text for text in texts if text]) > 0


def test_a_folder_that_is_no_policy(tmp_path: Path) -> None:
    assert "nowhere" in refusal(*words(tmp_path, tmp_path / "nowhere"))
    assert "--estimate" in refusal(*words(tmp_path, tmp_path / "nowhere", "--estimate"))
    text = refusal(*words(tmp_path, tmp_path / "nowhere", "--base-url", "http://localhost:1"))
    assert "found both" in text or "collect.server.model: required" in text


def test_a_collect_section_runs_no_stage_again(copy_of_run: CopyOfRun) -> None:
    copied = copy_of_run()
    section = {"prompts": "p.jsonl", "output": "o.jsonl", "policy": "somewhere"}
    again = copied.recipe({"collect": section})
    assert stages_done(Pipeline(again).advance("evaluation")) == []
