"""The study of trained discriminators: its arithmetic by hand, and all of it in miniature."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demoalign.pipeline.studies import discriminator, run_study
from demoalign.pipeline.studies.bounds import best_head, table_logits
from demoalign.pipeline.studies.discriminator import KINDS, TABLE, over_seeds, reward_config
from demoalign.pipeline.studies.enumerable import EnumerablePair, make_pair
from demoalign.rewards.comparisons import Answer
from tests.pipeline.studies.miniature import miniature

ROOT = Path(__file__).parents[3]
SMALL, LARGE = 60, 1500


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> EnumerablePair:
    return make_pair(tmp_path_factory.mktemp("pair"), 1)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a study in miniature was made."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminator, "SIZES", (SMALL, LARGE))
        patch.setattr(discriminator, "EPOCHS", 5)
        patch.setattr(discriminator, "LEAST_STEPS", 10)
        run_study("discriminator", miniature(), 2, folder)
    return folder


def test_the_table_counts() -> None:
    a, b, c = Answer("a"), Answer("b"), Answer("a", finished=False)
    found = table_logits([a, a, b, a], [b, b, a], [a, b, c])
    assert found == pytest.approx([math.log(3.5 / 1.5), math.log(1.5 / 2.5), 0.0])


def test_means_over_seeds_are_geometric() -> None:
    found = over_seeds([1.0, 4.0])
    assert found["value"] == pytest.approx(2.0)
    assert found["by_seed"] == [1.0, 4.0]
    half = 12.706205 * math.log(4) / math.sqrt(2) / math.sqrt(2)  # Student's t, 1 degree of freedom
    assert found["ci95"] == pytest.approx([2 * math.exp(-half), 2 * math.exp(half)], rel=1e-5)
    assert over_seeds([3.0])["ci95"] is None


def test_the_log_ratio_is_the_best_discriminator(pair: EnumerablePair) -> None:
    """Its loss is log 2 - JS, and any other one's is higher."""
    p, q = np.exp(pair.log_p), np.exp(pair.log_q)
    middle = np.log((p + q) / 2)
    shannon = (p @ (pair.log_p - middle) + q @ (pair.log_q - middle)) / 2
    assert pair.bce(pair.log_ratio) == pytest.approx(math.log(2) - shannon, abs=1e-12)
    assert pair.bce(np.zeros(len(p))) == pytest.approx(math.log(2), abs=1e-12)
    for seed in range(5):
        other = pair.log_ratio + np.random.default_rng(seed).normal(scale=0.1, size=len(p))
        assert 0 < pair.excess_bce(other) < 0.01
    assert pair.rmse(pair.log_ratio + 0.25) == pytest.approx(0.25)


def test_steps_are_as_many_as_asked() -> None:
    small, large = reward_config("full", 100), reward_config("full", 10_000)
    assert (small.batch_size, small.epochs) == (100, 40)
    assert (large.batch_size, large.epochs) == (256, 20)


def test_the_study_in_miniature(studied: Path) -> None:
    found = json.loads((studied / "results.json").read_text(encoding="utf-8"))
    assert (found["study"], found["seeds"], found["sizes"]) == ("discriminator", 2, [SMALL, LARGE])
    rows = {(row["kind"], row["n"]): row for row in found["rows"]}
    assert set(rows) == {(kind, n) for kind in (*KINDS, TABLE) for n in (SMALL, LARGE)}
    for metric in ("rmse", "excess_bce"):
        for kind in (*KINDS, TABLE):
            small, large = rows[kind, SMALL][metric], rows[kind, LARGE][metric]
            assert 0 < large["value"] < small["value"]
            assert len(large["by_seed"]) == 2
    assert rows[TABLE, LARGE]["rmse"]["value"] < 0.6 * rows[TABLE, SMALL]["rmse"]["value"]
    assert rows["full", LARGE]["steps"] == [math.ceil(5 * LARGE / 256)] * 2
    for best, trained in zip(
        found["best_head"]["excess_bce"]["by_seed"],
        rows["head", LARGE]["excess_bce"]["by_seed"],
        strict=True,
    ):
        assert 0 < best < trained
    for exact, each in zip(found["closed_form"], found["pairs"], strict=True):
        assert exact["rmse"] <= exact["largest_error"] < 1e-5
        assert each["mass"] == pytest.approx([1, 1], abs=1e-9)
        assert each["kl"] == pytest.approx(1, abs=1e-4)


def test_no_head_of_endless_data_is_better(pair: EnumerablePair) -> None:
    """The fit has no slope left: shrunk, stretched or shifted, it loses."""
    found = best_head(pair)
    least = pair.bce(found)
    assert least < pair.bce(0.99 * found)
    assert least < pair.bce(1.01 * found)
    assert 0 < pair.excess_bce(found) < pair.excess_bce(np.zeros(len(found)))


def test_a_second_study_reads_what_the_first_trained(
    studied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((studied / "results.json").read_text(encoding="utf-8"))

    def again(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(discriminator, "train_reward_model", again)
    monkeypatch.setattr(discriminator, "SIZES", (SMALL, LARGE))
    monkeypatch.setattr(discriminator, "EPOCHS", 5)
    monkeypatch.setattr(discriminator, "LEAST_STEPS", 10)
    run_study("discriminator", miniature(), 2, studied)
    after = json.loads((studied / "results.json").read_text(encoding="utf-8"))
    assert after["rows"] == before["rows"]


def test_the_script_writes_a_table_and_a_picture(studied: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for script in ("discriminator.py", "pages.py"):
        shutil.copy(ROOT / "docs" / script, tmp_path / "docs")
    page = tmp_path / "docs" / "closed-form.md"
    page.write_text(
        "before\n<!-- discriminator: begin -->\nstale table\n<!-- discriminator: end -->\nafter\n"
    )
    command = [sys.executable, str(tmp_path / "docs" / "discriminator.py")]
    subprocess.run([*command, str(studied / "results.json")], check=True, capture_output=True)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale table" not in text
    found = json.loads((studied / "results.json").read_text(encoding="utf-8"))
    value = next(row for row in found["rows"] if row["kind"] == "full")["rmse"]["value"]
    assert f"| `full` | {value:.2f} [" in text
    assert (tmp_path / "docs" / "images" / "discriminator.svg").is_file()
