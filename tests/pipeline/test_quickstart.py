"""The shipped quickstart in miniature, on the embedded world."""

from __future__ import annotations

from pathlib import Path

from demoalign.config import DECODINGS
from tests.pipeline.runs import cli, metrics_of, results_of

MINIATURE = {
    "demonstrations.limit": 60,
    "demonstrations.test_fraction": 0.2,
    "rollouts.train_prompts": 24,
    "rollouts.max_new_tokens": 32,
    "evaluation.prompts": 6,
    "evaluation.n": 4,
    "sft.epochs": 1,
}


def test_quickstart_in_miniature(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    assert cli("init", "--recipe", "quickstart", "--output", path).status == 0
    changes = {"output": str(tmp_path / "runs"), **MINIATURE}
    flags = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    said = cli("run", path, *flags)
    assert said.status == 0, said.err
    run = tmp_path / "runs" / "quickstart"
    models = ["init-sft", "init-demo", "sft-demo", "preference", "density-ratio"]
    golden = metrics_of(run, "golden_reward")
    assert {m["selector"] for m in golden} == {
        *models,
        *("length", "mean-logprob", "sequence-logprob"),
        *DECODINGS,
        "golden",
    }
    assert {m["policy"] for m in golden} == {"initial", "sft", "demonstrations", "extrapolated"}
    assert {m["count"] for m in golden} == {6}
    assert all(m["value"] is not None for m in golden)
    value = {(m["policy"], m["selector"], m["n"]): m["value"] for m in golden}
    assert value["demonstrations", "none", 1] > value["initial", "none", 1]
    assert value["sft", "golden", 4] >= max(value["sft", name, 4] for name in models)
    assert results_of(run)["run"] == "quickstart"
    table = {line.split("  ")[0].strip() for line in said.err.splitlines()}
    policies = {"initial", "sft", "sft, greedy", "extrapolated", "demonstrations"}
    assert {*policies, "sft, top-p-0.9", *(f"by {name}" for name in models)} <= table
    assert "by top-p-0.9" not in table
    report = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in [*models, "extrapolated", "SFT, top-p-0.9"])
    assert "Which reward to trust here" in report
    (share,) = metrics_of(run, "outside_support_tokens")
    assert (share["policy"], share["selector"]) == ("sft", "density-ratio")
    assert 0 < share["value"] < 1
