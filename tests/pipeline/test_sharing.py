"""Merged models say the same, cards tell what is stored, uploads happen only when asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from demoalign.demonstrations.render import render
from demoalign.errors import ModelError
from demoalign.pipeline.sharing import merge
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import completion_logprobs
from demoalign.policies.policy import Policy
from demoalign.records import Demonstration, read_records
from demoalign.report import write_cards
from demoalign.report.card import run_of
from demoalign.rewards.reward_model import RewardModel
from demoalign.store import CARD, digest_folder
from tests.hub import TOKEN, running_hub
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import Project, cli, refusal, results_of


def rows_of(run: Path) -> list[Demonstration]:
    return read_records(run / "demonstrations" / "test.jsonl", Demonstration)


def test_a_merged_policy_has_the_same_log_probabilities(finished: Project, tmp_path: Path) -> None:
    merge(finished.run / "sft", tmp_path / "merged")
    policy = Policy.load(finished.run / "sft", device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    rendered = [
        render(policy.backbone.tokenizer, r.prompt, r.completion) for r in rows_of(finished.run)
    ]
    rows = [Row(tuple(each.prompt_ids), tuple(each.completion_ids)) for each in rendered]
    changed = []
    for row, ours, base in zip(
        rows,
        completion_logprobs(policy, rows),
        completion_logprobs(policy.base(), rows),
        strict=True,
    ):
        ids = torch.tensor([[*row.prompt, *row.completion]])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
        theirs = logprobs.gather(-1, torch.tensor(row.completion)[:, None])[:, 0]
        assert torch.allclose(torch.as_tensor(ours.values).float(), theirs, atol=1e-5)
        changed.append(abs(ours.values - base.values).max())
    assert max(changed) > 1e-4, "an adapter that changes nothing would pass"


@pytest.mark.parametrize("place", ["init-sft/member-0", "preference"])
def test_a_merged_reward_model_gives_the_same_scores(
    finished: Project, tmp_path: Path, place: str
) -> None:
    folder = finished.run / "reward" / place
    written = merge(folder, tmp_path / "merged")
    assert written == tmp_path / "merged" / CARD
    assert 'RewardModel.load("merged")' in written.read_text(encoding="utf-8")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    rows = rows_of(finished.run)
    asked = [row.prompt for row in rows], [row.completion for row in rows]
    scores = [
        RewardModel.load(each, device="cpu").score(*asked) for each in (folder, tmp_path / "merged")
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5, abs=1e-5)
    assert len(set(scores[0])) > 1


def test_half_the_bytes_if_asked(finished: Project, tmp_path: Path) -> None:
    sizes = []
    for dtype in ("float32", "bfloat16"):
        said = cli(
            "merge", finished.run / "sft", "--output", tmp_path / dtype, "--dtype", dtype, "--json"
        )
        assert said.status == 0, said.err
        sizes.append((tmp_path / dtype / "model.safetensors").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be LORA, which adds to weights, found IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save must be a score head or nothing, f"),
    ],
)
def test_adapters_that_cannot_be_merged(
    finished: Project, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = _copy(finished.run / "sft", tmp_path, changes)
    with pytest.raises(ModelError, match=message):
        merge(folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_base_that_is_stored_quantised_is_refused(finished: Project, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(finished.plain["model"]["base"], base)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    folder = _copy(finished.run / "sft", tmp_path, {"base_model_name_or_path": str(base)})
    with pytest.raises(ModelError, match="is stored quantised"):
        merge(folder, tmp_path / "merged")


def test_weights_that_are_not_finite_are_refused(finished: Project, tmp_path: Path) -> None:
    folder = _copy(finished.run / "sft", tmp_path, {})
    tensors = load_file(folder / "adapter_model.safetensors")
    first = next(key for key in tensors if "lora_B" in key)
    tensors[first][0, 0] = float("nan")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="training has diverged"):
        merge(folder, tmp_path / "merged")


def test_whole_weights_are_not_merged(finished: Project, tmp_path: Path) -> None:
    merge(finished.run / "sft", tmp_path / "merged")
    said = refusal("merge", tmp_path / "merged", "--output", tmp_path / "again")
    assert "these are whole weights already" in said


def _copy(folder: Path, place: Path, changes: dict[str, Any]) -> Path:
    """An adapter's folder with another configuration."""
    copied = place / "copied"
    shutil.copytree(folder, copied)
    path = copied / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return copied


def test_cards_tell_what_is_stored(copy_of_run: CopyOfRun) -> None:
    run = copy_of_run().run
    cards = {path.parent.relative_to(run).as_posix(): path for path in write_cards(run)}
    assert set(cards) == {"sft", "reward/preference"}, "an ensemble's members are no model each"
    text = cards["sft"].read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "peft"
    assert front["pipeline_tag"] == "text-generation"
    assert "base_model" not in front, "a folder of this machine is no id"
    assert "| demonstrations to train on | 18 |" in text
    assert "learning_rate: 0.003" in text
    found = next(
        each
        for each in results_of(run)["metrics"]
        if (each["metric"], each["policy"], each["selector"]) == ("golden_reward", "sft", "none")
    )
    (line,) = [each for each in text.splitlines() if "| golden_reward | SFT policy |" in each]
    assert f"| {found['value']:.2f} | [{found['ci95'][0]:.2f}, {found['ci95'][1]:.2f}] |" in line
    assert "intervals are over prompts" in text
    reward = cards["reward/preference"].read_text(encoding="utf-8")
    assert yaml.safe_load(reward.split("---\n")[1])["pipeline_tag"] == "text-classification"
    assert "positives: preferred" in reward
    assert "heldout_accuracy" in reward


def test_cards_hold_no_rows_and_no_paths(copy_of_run: CopyOfRun) -> None:
    project = copy_of_run()
    rows = rows_of(project.run)
    for path in write_cards(project.run):
        text = path.read_text(encoding="utf-8")
        assert str(project.folder) not in text
        assert str(Path(project.plain["model"]["base"]).parent) not in text
        assert not any(str(row.prompt) in text or row.completion in text for row in rows)


def test_cards_hold_no_paths_of_any_depth(copy_of_run: CopyOfRun) -> None:
    """Whom an adversarial training compares stands two sections deep, in a list."""
    project = copy_of_run()
    discriminator = {"positives": "policy:/home/me/strong", "negatives": ["policy:/home/me/weak"]}
    recipe = yaml.safe_load((project.run / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["improve"] = {"method": "adversarial", "discriminator": discriminator}
    (project.run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    shutil.copytree(project.run / "sft", project.run / "policy")
    (path,) = [each for each in write_cards(project.run) if each.parent.name == "policy"]
    text = path.read_text(encoding="utf-8")
    assert "positives: strong" in text
    assert "- weak" in text
    assert "/home/me" not in text


def test_what_was_not_measured_is_said(copy_of_run: CopyOfRun) -> None:
    run = copy_of_run("evaluation").run
    (text,) = [path.read_text() for path in write_cards(run) if path.parent.name == "sft"]
    assert "Not measured: the run has stored no evaluation of this model." in text
    assert "No golden reward was measured" in text


def test_a_card_changes_no_digest(copy_of_run: CopyOfRun) -> None:
    run = copy_of_run().run
    before = digest_folder(run / "sft")
    (run / "sft" / CARD).write_text("other words", encoding="utf-8")
    assert digest_folder(run / "sft") == before


def test_which_run_a_model_is_of(finished: Project, tmp_path: Path) -> None:
    for place in ("sft", "reward/preference", "reward/init-sft/member-1"):
        assert run_of(finished.run / place) == finished.run.resolve()
    assert run_of(tmp_path) is None


def _push(*arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
    """`demoalign` as a process of its own: the hub's client reads the environment once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGG"))}
    command = [sys.executable, "-m", "demoalign", *map(str, arguments)]
    environment = {**kept, **changed}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_push_sends_a_model_and_nothing_else(finished: Project, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    with running_hub() as hub:
        said = _push(
            *("merge", finished.run / "sft", "--output", merged, "--push", "me/model", "--json"),
            HF_ENDPOINT=hub.url,
            HF_TOKEN=TOKEN,
            HF_HOME=str(tmp_path / "home"),
        )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["commit"] == f"{hub.url}/me/model/commit/1"
    assert [each.get("visibility") for each in hub.created] == ["private"]
    assert {"model.safetensors", "config.json", CARD} <= set(hub.files)
    assert hub.files["model.safetensors"] == (merged / "model.safetensors").read_bytes()
    assert not any(name.endswith((".jsonl", "manifest.json")) for name in hub.files)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert TOKEN not in said.stdout + said.stderr


def test_a_hub_that_refuses(finished: Project, tmp_path: Path) -> None:
    merge(finished.run / "sft", tmp_path / "merged")
    with running_hub(refuses=403) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
        said = _push("push", tmp_path / "merged", "me/model", **environment)
    assert said.returncode == 1
    assert "error: --push me/model: 403 Forbidden" in said.stderr
    assert TOKEN not in said.stderr


def test_what_is_not_pushed(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    merge(finished.run / "sft", tmp_path / "merged")
    assert "needs a token that may write" in refusal("push", tmp_path / "merged", "me/model")
    assert "must be OWNER/NAME, found 'model'" in refusal("push", tmp_path / "merged", "model")
    assert "a folder of this machine" in refusal("push", finished.run / "sft", "me/model")
    assert "needs a model folder" in refusal("push", finished.run, "me/model")
