"""Stored files in, `RunResults` out: complete, absent, damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demoalign.errors import StoreError
from demoalign.report.read import read_run
from demoalign.report.stored import printable

from .conftest import change_json, write_json
from .world import SAMPLES


def test_a_complete_run_has_no_problems(full_run: Path) -> None:
    run = read_run(full_run)
    assert run.problems == ()
    assert run.name == "help-desk"
    assert [stage.name for stage in run.stages][:3] == ["demonstrations", "sft", "rollouts"]
    assert len(run.stages) == 12
    assert run.stages[0].seconds == 2.5
    assert len(run.samples) == 20
    assert len(run.samples[0].candidates) == SAMPLES
    assert [m.n for m in run.curve("golden_reward", "init-sft")] == [1, 2, 4, 8, 16, 32, 64]
    assert len(run.rewards["init-sft"]["sft"].values) == 500


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run folder"):
        read_run(tmp_path / "nothing")


def test_an_empty_folder_says_everything_that_is_missing(tmp_path: Path) -> None:
    run = read_run(tmp_path)
    assert {problem.split(" ")[0] for problem in run.problems} == {
        "recipe.yaml",
        "env.json",
        "evaluation/results.json",
        "evaluation/rewards.json",
        "evaluation/samples.json",
    }
    assert all(stage.status == "not run" and stage.seconds is None for stage in run.stages)
    assert not run.has_golden


@pytest.mark.parametrize("content", ["{", "[1]", "null", '"x"', '{"metrics": 3}', "\x00\xff"])
def test_damaged_files_never_raise(run_copy: Path, content: str) -> None:
    for path in run_copy.rglob("*"):
        if path.is_file():
            path.write_text(content, encoding="latin-1")
    run = read_run(run_copy)
    assert run.metrics == ()


def test_numbers_that_are_none_are_absent_with_a_reason(run_copy: Path) -> None:
    rows: list[Any] = [
        {"metric": "golden_reward", "policy": "sft", "selector": "none", "n": 1, "value": x}
        for x in (float("nan"), float("inf"), "3", True, 10**400)
    ]
    write_json(run_copy / "evaluation/results.json", {"schema": 1, "metrics": rows})
    run = read_run(run_copy)
    assert [m.value for m in run.metrics] == [None] * 5
    assert all(m.reason == "the stored value is not a finite number" for m in run.metrics)


def test_rows_without_name_or_n_are_reported(run_copy: Path) -> None:
    def spoil(results: dict[str, Any]) -> dict[str, Any]:
        return {**results, "schema": 2, "metrics": [{"n": 1}, {"metric": "x", "n": 0}, 7]}

    change_json(run_copy / "evaluation/results.json", spoil)
    run = read_run(run_copy)
    assert len(run.problems) == 2
    assert "unknown schema" in run.problems[0]


def test_a_named_golden_reward_becomes_the_main_one(run_copy: Path) -> None:
    def rename(results: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {**row, "metric": f"{row['metric']}:helpful"}
            if row["metric"].startswith(("golden_reward", "win"))
            else row
            for row in results["metrics"]
        ]
        extra = {**rows[0], "metric": "golden_reward:safe"}
        return {**results, "metrics": [*rows, extra]}

    change_json(run_copy / "evaluation/results.json", rename)
    run = read_run(run_copy)
    assert run.golden == "helpful"
    assert run.has_golden
    assert run.find("golden_reward_difference", "sft", "init-sft", 16, "sft/none/1") is not None
    assert run.find("golden_reward:safe", "initial", "none") is not None


def test_unscored_rewards_are_left_out_and_short_columns_are_absent(run_copy: Path) -> None:
    stored = {"init-sft": {"sft": {"values": [1.0, None, 2.0], "tokens": [5]}}, "bad": [1]}
    write_json(run_copy / "evaluation/rewards.json", stored)
    run = read_run(run_copy)
    rows = run.rewards["init-sft"]["sft"]
    assert (rows.values, rows.tokens, rows.golden) == ((1.0, 2.0), (5.0, None), (None, None))
    assert run.rewards["bad"] == {}


def test_printable_shows_control_characters_and_keeps_the_rest() -> None:
    assert printable("a\x00b\x1b\x7f\x85\ud800") == "a\u2400b\u241b\u2421\ufffd\ufffd"
    assert printable("שלום \u202e 😀\r\n\tx") == "שלום \u202e 😀\n\tx"
