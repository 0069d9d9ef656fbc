"""lm-eval on the policies of a run, with tasks of our own over local files."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from demoalign.config import parse_recipe
from demoalign.errors import RecipeError
from demoalign.evaluation.lm_harness import task_metrics
from demoalign.pipeline import Pipeline
from demoalign.pipeline.harness import label_of, tasks_of
from demoalign.policies.policy import Policy
from demoalign.report import write_report
from demoalign.store import read_json
from tests.demonstrations.files import jsonl
from tests.pipeline.runs import Json, Project, cli, refusal, results_of

is_installed = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not is_installed, reason="lm-eval is an extra")

QUESTIONS: list[Json] = [
    {"question": "Why is the lamp off?", "choices": [" Turn the key on.", " x q z"], "right": 0},
    {"question": "Is key 3 on?", "choices": [" xxxx", " Yes, please."], "right": 1},
    {
        "question": "Why is router 4 off?",
        "choices": [" Turn key 4 on, please.", " No."],
        "right": 0,
    },
]
TASK = {
    "task": "keys",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{right}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
ASKED: Json = {"tasks": ["keys"], "policies": ["initial", "sft"]}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with one task over a file of its own."""
    folder = tmp_path / "tasks"
    data = jsonl(folder / "keys.jsonl", QUESTIONS)
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(data)}}}
    (folder / "keys.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return folder


@pytest.fixture
def copied(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The finished run in this test's own folder, with a cache of its own."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(finished.run, tmp_path / "runs" / "small")
    return Project(tmp_path, finished.changed({"output": str(tmp_path / "runs")}))


def logprob(policy: Policy, question: str, answer: str) -> float:
    """log pi(answer | question) as the harness defines it, straight from the logits."""
    tokenizer, causal = policy.backbone.tokenizer, policy.backbone.causal
    whole = tokenizer(question + answer)["input_ids"]
    before = len(tokenizer(question)["input_ids"])
    with policy.active(), torch.inference_mode():
        logits = causal(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return float(sum(logits[i - 1, whole[i]] for i in range(before, len(whole))))


@needs_lm_eval
def test_policies_of_a_run(copied: Project, tasks: Path) -> None:
    recipe = copied.file({"evaluation.lm_eval.include": str(tasks)})
    flags = ("--lm-eval", "keys", "--policy", "initial", "--policy", "sft", "--json")
    said = cli("evaluate", recipe, *flags)
    assert said.status == 0, said.err
    done = [each["stage"] for each in said.json["stages"] if each["status"] == "done"]
    assert done == ["lm-eval/initial-keys", "lm-eval/sft-keys", "evaluation"]
    pipeline = Pipeline(copied.recipe({"evaluation.lm_eval": ASKED | {"include": str(tasks)}}))
    for metric in said.json["lm_eval"]:
        policy = pipeline.models.policy(metric["policy"])
        right = 0
        for row in QUESTIONS:
            scores = [logprob(policy, str(row["question"]), each) for each in row["choices"]]
            right += int(scores[1] > scores[0]) == row["right"]
        assert metric["metric"] == "lm_eval/keys/acc"
        assert (metric["value"], metric["count"]) == (pytest.approx(right / 3), 3)
        assert metric["ci95"] is not None
    assert {m["policy"] for m in said.json["lm_eval"]} == {"initial", "sft"}
    assert [m for m in results_of(copied.run)["metrics"] if m["metric"].startswith("lm_eval")] == (
        said.json["lm_eval"]
    )
    again = cli("evaluate", recipe, *flags).json["stages"]
    assert {each["status"] for each in again} == {"current"}
    page = write_report(copied.run).read_text(encoding="utf-8")
    assert "keys, acc" in page
    assert 'id="benchmarks"' in page


@needs_lm_eval
def test_a_policy_folder(copied: Project, tasks: Path, tmp_path: Path) -> None:
    shutil.copytree(copied.run / "sft", tmp_path / "other policy")
    asked = {"tasks": ["keys"], "include": str(tasks)}
    asked["policies"] = ["sft", f"policy:{tmp_path / 'other policy'}"]
    Pipeline(copied.recipe({"evaluation.lm_eval": asked})).advance("evaluation")
    found = {
        metric["policy"]: metric["value"]
        for metric in results_of(copied.run)["metrics"]
        if metric["metric"] == "lm_eval/keys/acc"
    }
    assert list(found) == ["sft", "other_policy"]
    assert found["sft"] == found["other_policy"]
    stored = read_json(copied.run / "lm-eval" / "other_policy-keys" / "results.json")
    assert stored["n-samples"] == {"keys": {"original": 3, "effective": 3}}


@needs_lm_eval
def test_an_unknown_task_is_told_at_once(copied: Project, tasks: Path) -> None:
    recipe = copied.file({"evaluation.lm_eval": {"tasks": ["kyes"], "include": str(tasks)}})
    assert "'kyes' is no task of lm-eval" in refusal("evaluate", recipe)
    assert "did you mean" in refusal("evaluate", recipe)


@needs_lm_eval
def test_a_task_that_fails_says_which(copied: Project, tasks: Path) -> None:
    (tasks / "keys.jsonl").unlink()
    recipe = copied.file({"evaluation.lm_eval": {"tasks": ["keys"], "include": str(tasks)}})
    assert "lm-eval task keys: failed for sft" in refusal("evaluate", recipe)


@pytest.mark.skipif(is_installed, reason="lm-eval is installed")
def test_without_lm_eval_it_says_what_to_install(copied: Project) -> None:
    said = refusal("evaluate", copied.file(), "--lm-eval", "arc_easy")
    assert "pip install 'demoalign[lm-eval]'" in said


def test_flags_that_do_not_fit(copied: Project) -> None:
    recipe = copied.file()
    assert "belongs to --lm-eval" in refusal("evaluate", recipe, "--policy", "sft")
    said = refusal("evaluate", copied.run / "reward" / "preference", "--lm-eval", "keys")
    assert "asks policies of a recipe or a run" in said
    assert "tasks" in refusal("evaluate", recipe, "--lm-eval", " , ")


def test_policies_that_a_recipe_has(finished: Project) -> None:
    def asked(*policies: str) -> list[tuple[str, str]]:
        lm_eval = {"tasks": ["a", "b"], "policies": list(policies)}
        return tasks_of(parse_recipe(finished.changed({"evaluation.lm_eval": lm_eval})))

    assert asked("sft", "policy:x/y/") == [
        ("sft", "a"),
        ("sft", "b"),
        ("policy:x/y/", "a"),
        ("policy:x/y/", "b"),
    ]
    assert label_of("policy:x/my policy/") == "my_policy"
    assert label_of("baseline:spin/iteration-1") == "spin-iteration-1"
    with pytest.raises(RecipeError, match="distilled is trained by no section"):
        asked("distilled")
    with pytest.raises(RecipeError, match="names must differ, found 'y' twice"):
        asked("policy:x/y", "policy:z/y")
    with pytest.raises(RecipeError, match="policies"):
        asked("best")


def test_baselines_are_policies_too(finished: Project) -> None:
    """Their names are checked, and what is asked again is what was trained again."""

    def stages(epochs: int, *policies: str) -> dict[str, str]:
        recipe = finished.recipe(
            {
                "baselines": [{"method": "kto", "name": "liked", "epochs": epochs}],
                "evaluation.lm_eval": {"tasks": ["a"], "policies": list(policies)},
            }
        )
        return {stage.name: stage.fingerprint for stage in Pipeline(recipe).stages}

    once, again = (stages(epochs, "sft", "baseline:liked") for epochs in (1, 2))
    assert once["lm-eval/sft-a"] == again["lm-eval/sft-a"]
    assert once["lm-eval/liked-a"] != again["lm-eval/liked-a"]
    with pytest.raises(RecipeError, match=r"lm_eval\.policies: baseline:NAME must name one"):
        stages(1, "baseline:disliked")


def test_metrics_of_the_harness_results() -> None:
    found: dict[str, Any] = {
        "results": {
            "group": {"alias": "group", "acc,none": 0.5, "acc_stderr,none": 0.1},
            "sums": {
                "alias": " - sums",
                "exact_match,strict": 0.25,
                "exact_match_stderr,strict": "N/A",
                "ppl,none": float("nan"),
                "sample_len": 8,
            },
        },
        "n-samples": {"sums": {"original": 100, "effective": 8}},
    }
    metrics = {each.metric: each for each in task_metrics(json.loads(json.dumps(found)), "sft", 3)}
    assert list(metrics) == [
        "lm_eval/group/acc",
        "lm_eval/sums/exact_match,strict",
        "lm_eval/sums/ppl",
    ]
    assert metrics["lm_eval/group/acc"].ci95 == pytest.approx((0.304, 0.696), abs=1e-3)
    assert metrics["lm_eval/sums/exact_match,strict"].ci95 is None
    assert metrics["lm_eval/sums/exact_match,strict"].count == 8
    missing = metrics["lm_eval/sums/ppl"]
    assert (missing.value, missing.reason) == (None, "lm-eval gave no number")
