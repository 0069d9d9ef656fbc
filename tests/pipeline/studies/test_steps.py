"""The studies of quality and of amount in miniature: one thing is varied, the rest stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.config import Recipe, SftConfig
from demoalign.errors import RecipeError
from demoalign.pipeline.data import read_data
from demoalign.pipeline.studies import amount, quality, run_study
from demoalign.pipeline.studies.amount import AMOUNTS, epochs_of
from tests.demonstrations.files import jsonl
from tests.pipeline.runs import demonstrations, make_project
from tests.pipeline.studies.miniature import miniature, read, section, written


@pytest.fixture(scope="module")
def by_quality(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "QUALITIES", (1.0, 0.0))
        run_study("quality", miniature("init-sft"), 1, folder, changed=["sft.epochs=1"])
    return folder


@pytest.fixture(scope="module")
def by_amount(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amount")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amount, "AMOUNTS", (10, 20))
        patch.setattr(amount, "TESTS", 6)
        patch.setattr(amount, "MOST_EPOCHS", 2)
        run_study("amount", miniature("init-sft"), 1, folder)
    return folder


def rows_of(folder: Path, axis: str) -> dict[tuple[float, str], dict[str, Any]]:
    return {(row[axis], row["method"]): row for row in read(folder / "results.json")["rows"]}


def test_worse_demonstrations_and_the_same_prompts(by_quality: Path) -> None:
    rows = rows_of(by_quality, "quality")
    best, worst = (rows[q, "demonstrations"]["golden"]["value"] for q in (1.0, 0.0))
    assert best - worst > 2
    assert rows[1.0, "initial"]["golden"] == rows[0.0, "initial"]["golden"]
    for (step, method), row in rows.items():
        for rival, name in (("minus_samples", "sft"), ("minus_greedy", "sft, greedy")):
            difference = row["golden"]["value"] - rows[step, name]["golden"]["value"]
            assert row[rival]["value"] == pytest.approx(difference), method
    whole, poor = (
        read_data(by_quality / "runs" / f"quality-{q}-seed-0" / "demonstrations") for q in (1, 0)
    )
    for mine, its in zip(whole, poor, strict=True):
        assert [row.prompt for row in mine] == [row.prompt for row in its]
        assert [row.completion for row in mine] != [row.completion for row in its]


def test_what_was_set_is_recorded_and_said(by_quality: Path, tmp_path: Path) -> None:
    results = by_quality / "results.json"
    assert read(results)["set"] == ["sft.epochs=1"]
    docs = written("quality.py", results, tmp_path)
    assert "`demoalign study quality --set sft.epochs=1`" in section(docs, "quality")


def test_what_is_done_is_not_run_again(by_quality: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "QUALITIES", (0.0,))
    weights = by_quality / "runs" / "quality-0-seed-0" / "sft" / "manifest.json"
    before, results = weights.read_bytes(), by_quality / "again"
    path = run_study("quality", miniature("init-sft"), 1, results, runs_of=by_quality)
    assert weights.read_bytes() == before
    assert not (results / "runs").exists()
    old = rows_of(by_quality, "quality")
    assert {(row["quality"], row["method"]): row for row in read(path)["rows"]} == {
        key: row for key, row in old.items() if key[0] == 0.0
    }


def test_a_smaller_amount_is_the_beginning_of_a_larger_one(by_amount: Path) -> None:
    few, more = (
        read_data(by_amount / "runs" / f"amount-{count}-seed-0" / "demonstrations")
        for count in (10, 20)
    )
    assert (len(few[0]), len(more[0])) == (10, 20)
    assert few[0] == more[0][:10]
    assert few[1] == more[1]
    rows = rows_of(by_amount, "amount")
    assert rows[10, "demonstrations"]["golden"] == rows[20, "demonstrations"]["golden"]
    assert {key[0] for key in rows} == {10, 20}
    # One sample of the SFT policy is not the same after another training.
    assert rows[10, "sft"]["golden"]["value"] != rows[20, "sft"]["golden"]["value"]


def test_training_is_fair_to_all_amounts() -> None:
    config = SftConfig(epochs=2.5, batch_size=32, accumulation=1)
    epochs = [epochs_of(config, count) for count in AMOUNTS]
    # 150 steps of 32 are 4,800 demonstrations: 16 passes over 300, 4.8 over 1,000.
    assert epochs == pytest.approx([20, 20, 20, 16, 4.8, 2.5, 2.5])
    assert epochs_of(config.model_copy(update={"epochs": 30}), 10) == 30


def test_amounts_of_other_demonstrations(tmp_path: Path) -> None:
    project = make_project(tmp_path, "lab", evaluation__golden="lab")
    rows = demonstrations(45)
    jsonl(project.data, rows)
    found = amount._amounts(project.recipe({"demonstrations.test_fraction": 0.2}))
    assert list(found) == [10, 30]
    jsonl(project.data, rows[:12])
    with pytest.raises(RecipeError, match="10, 30 and more training demonstrations, found 9"):
        amount._amounts(project.recipe())


def own(folder: Path, **changes: Any) -> Recipe:
    return make_project(folder, "lab", **changes).recipe()


@pytest.mark.parametrize("study", ["quality", "transfer"])
def test_studies_of_the_embedded_world_alone(study: str, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=rf"demonstrations\.source: the study {study} .*data\.jsonl"
    ):
        run_study(study, own(tmp_path), 1, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("study", ["rewards", "amount"])
def test_studies_that_need_a_yardstick(study: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"evaluation\.golden: the study {study} .*found none"):
        run_study(study, own(tmp_path, evaluation__golden=None), 1, tmp_path / "s")


@pytest.mark.parametrize("name", ["quality", "amount"])
def test_the_scripts_write_sections_and_pictures(
    name: str, by_quality: Path, by_amount: Path, tmp_path: Path
) -> None:
    folder = {"quality": by_quality, "amount": by_amount}[name]
    docs = written(f"{name}.py", folder / "results.json", tmp_path)
    text = section(docs, name)
    (step, method), row = next(
        (key, row)
        for key, row in rows_of(folder, name).items()
        if key[1] == "best of 16 by init-sft"
    )
    low, high = row["minus_greedy"]["ci95"]
    cell = f"{row['minus_greedy']['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
    title = {"quality": "quality", "amount": "demonstrations"}[name]
    assert f"| minus SFT greedy | {title} {step:g} |" in text
    assert f"| {method} | {cell} |" in text
    assert "1 seed; differences are paired by prompt. Intervals by bootstrap" in text
    assert np.isfinite(row["golden"]["value"])
    assert (docs / "images" / f"{name}.svg").read_text(encoding="utf-8").count(method) >= 1
