"""From a recipe to a report, on every architecture, with LoRA and with full fine-tuning."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from demoalign.pipeline import Pipeline
from demoalign.records import Demonstration, Rollout, read_records
from demoalign.rewards.reward_model import RewardModel
from tests.conftest import ModelFolder
from tests.models import logits_of
from tests.pipeline.goldens import HERE
from tests.pipeline.runs import Project, lines_of, make_project, metrics_of, results_of

TOKENIZER_OF = {
    "gpt2": "eos_only",
    "llama": "bos",
    "gpt_neox": "eos_only",
    "gemma": "bos",
    "qwen2": "chat",
}
STAGES = {
    "demonstrations": {"train.jsonl", "test.jsonl", "rejected.jsonl"},
    "sft": set(),
    "rollouts": {"initial.jsonl", "sft.jsonl"},
    "reward/init-sft": {"heldout.json"},
    "rollouts-test": {"initial.jsonl", "sft.jsonl", "sft-greedy.jsonl"},
    "best-of-n": {"scores.jsonl", "chosen.jsonl"},
    "evaluation": {"results.json"},
}


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_run_from_recipe_to_report(
    tmp_path: Path, model_folder: ModelFolder, architecture: str, adapter: str
) -> None:
    base = model_folder(architecture, TOKENIZER_OF[architecture])
    small = make_project(tmp_path, base, chat=architecture == "qwen2", model__adapter__kind=adapter)
    outcomes = Pipeline(small.recipe()).advance()
    assert [each.stage for each in outcomes] == list(STAGES)
    assert {each.status for each in outcomes} == {"done"}
    check_folders(small.run)
    check_results(small.run)
    check_models(small.run, adapter)
    check_rollouts(small.run)
    check_report(small.run)


def check_folders(run: Path) -> None:
    for stage, files in STAGES.items():
        manifest = json.loads((run / stage / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["status"] == "done"
        assert manifest["stage"] == stage
        listed = {entry["path"]: entry["size"] for entry in manifest["files"]}
        assert files <= set(listed)
        assert listed == {
            path.relative_to(run / stage).as_posix(): path.stat().st_size
            for path in (run / stage).rglob("*")
            if path.is_file() and path.name not in ("manifest.json", "README.md")
        }
    assert {"recipe.yaml", "env.json", "run.log", "report.html"} <= {p.name for p in run.iterdir()}
    assert "prompts read once" in (run / "run.log").read_text(encoding="utf-8")
    assert not [path for path in run.rglob("*") if path.name.endswith((".partial", ".pending"))]
    assert not (run / ".lock").exists()


def check_results(run: Path) -> None:
    results = results_of(run)
    assert results["schema"] == 1
    assert results["run"] == "small"
    for metric in results["metrics"]:
        if metric["value"] is None:
            assert metric["reason"], metric
            assert metric["count"] == 0
            continue
        numbers = [metric["value"], *(metric["ci95"] or [])]
        assert all(math.isfinite(number) for number in numbers), metric
        assert metric["count"] > 0
        assert metric["unit"]
    sizes = {m["n"] for m in metrics_of(run, "golden_reward") if m["selector"] == "init-sft"}
    assert sizes == {1, 2, 4}
    tests = len(lines_of(run / "demonstrations" / "test.jsonl"))
    assert tests == 6
    assert {m["count"] for m in metrics_of(run, "golden_reward")} == {tests}


def check_models(run: Path, adapter: str) -> None:
    """Other tools load what a run stores, and see the numbers that it has used."""
    assert (run / "sft" / "adapter_config.json").is_file() == (adapter == "lora")
    tokenizer = AutoTokenizer.from_pretrained(run / "sft")
    policy = AutoModelForCausalLM.from_pretrained(run / "sft", dtype=torch.float32).eval()
    rollout = read_records(run / "rollouts" / "sft.jsonl", Rollout)[0]
    prompts = {
        r.id: r.prompt for r in read_records(run / "demonstrations/train.jsonl", Demonstration)
    }
    assert logprob(policy, tokenizer, prompts[rollout.prompt_id], rollout) == pytest.approx(
        rollout.logprob, abs=1e-3
    )
    folder = run / "reward" / "init-sft"
    classifier = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32
    ).eval()
    ours = RewardModel.load(folder, device="cpu")
    row = read_records(run / "demonstrations" / "test.jsonl", Demonstration)[0]
    ids = [*prompt_ids(tokenizer, row.prompt), *answer_ids(tokenizer, row)]
    with torch.inference_mode():
        theirs = float(classifier(input_ids=torch.tensor([ids])).logits[0, 0])
    stored = {
        (s["reward_model"], s["rollout_id"]): s["value"]
        for s in lines_of(run / "best-of-n" / "scores.jsonl")
    }
    assert theirs == pytest.approx(stored["init-sft", row.id], abs=1e-4)
    assert float(ours.score([row.prompt], [row.completion])[0]) == pytest.approx(theirs, abs=1e-4)


def prompt_ids(tokenizer: Any, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    )


def answer_ids(tokenizer: Any, row: Demonstration) -> list[int]:
    end = tokenizer.eos_token if isinstance(row.prompt, str) else "<|im_end|>"
    return list(tokenizer(row.completion + end, add_special_tokens=False)["input_ids"])


def logprob(model: Any, tokenizer: Any, prompt: Any, rollout: Rollout) -> float:
    before = prompt_ids(tokenizer, prompt)
    logits = logits_of(model, [[*before, *rollout.token_ids]])[0].log_softmax(-1)
    places = range(len(before) - 1, len(before) - 1 + len(rollout.token_ids))
    return sum(float(logits[i, t]) for i, t in zip(places, rollout.token_ids, strict=True))


def check_rollouts(run: Path) -> None:
    test = [row["id"] for row in lines_of(run / "demonstrations" / "test.jsonl")]
    rollouts = read_records(run / "rollouts-test" / "sft.jsonl", Rollout)
    assert [(r.prompt_id, r.index) for r in rollouts] == [(i, k) for i in test for k in range(4)]
    assert all(1 <= len(r.token_ids) <= 8 and (r.logprob or 0) < 0 for r in rollouts)
    assert len({tuple(r.token_ids) for r in rollouts}) > 1
    train = [row["id"] for row in lines_of(run / "demonstrations" / "train.jsonl")]
    assert [r.prompt_id for r in read_records(run / "rollouts" / "initial.jsonl", Rollout)] == train


def check_report(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "init-sft" in text
    without_namespaces = text.replace('"http://www.w3.org/2000/svg"', "").replace(
        '"http://www.w3.org/1999/xlink"', ""
    )
    assert "http:" not in without_namespaces
    assert "https:" not in without_namespaces


def test_without_a_golden_reward_golden_metrics_are_null_with_a_reason(project: Project) -> None:
    Pipeline(project.recipe({"evaluation.golden": None})).advance()
    golden = metrics_of(project.run, "golden_reward")
    assert golden
    assert {(m["value"], m["ci95"], m["count"]) for m in golden} == {(None, None, 0)}
    assert all("evaluation.golden" in m["reason"] for m in golden)
    assert all(m["value"] is not None for m in metrics_of(project.run, "proxy_reward"))
    assert not (project.run / "evaluation" / "golden.jsonl").exists()
    assert "no golden reward" in (project.run / "report.html").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("golden", ["unscored", "not_a_number"])
def test_answers_that_golden_cannot_score_are_null_and_not_zero(
    project: Project, golden: str
) -> None:
    Pipeline(project.recipe({"evaluation.golden": f"{HERE}:{golden}"})).advance("evaluation")
    metrics = metrics_of(project.run, "golden_reward")
    assert metrics
    assert all(m["value"] is None and m["reason"] for m in metrics)
    (unscored,) = metrics_of(project.run, "golden_unscored_prompts")
    assert (unscored["value"], unscored["count"]) == (6.0, 6)
