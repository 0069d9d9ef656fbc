"""The study of single-phase policies in miniature, and the script that writes its section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.studies import policies, run_study
from demoalign.pipeline.studies.policies import BASELINES, with_baselines
from tests.pipeline.studies.miniature import miniature, read, written

NAMES = [each["name"] for each in BASELINES]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "DIALS", (0.5,))
        patch.setattr(policies, "N", 4)
        run_study("policies", miniature("init-sft"), 1, folder)
    return folder


def test_all_policies_learn_as_the_sft_does() -> None:
    recipe = with_baselines(miniature())
    assert [each.name for each in recipe.baselines] == NAMES
    for each in recipe.baselines:
        for key in ("epochs", "batch_size", "accumulation", "learning_rate", "schedule"):
            assert getattr(each, key) == getattr(recipe.sft, key)
    assert recipe.sft.group_by_length
    assert getattr(recipe.baselines[0], "group_by_length", None)
    starts = {each.name: each.start for each in recipe.baselines}
    assert [name for name, start in starts.items() if start == "sft"] == ["sft-then-dpo"]
    labels = {each.name: each.labels for each in recipe.baselines if each.preferences}
    assert labels == {
        "sft-preferred": "initial",
        "dpo-preferences": "initial",
        "sft-then-dpo": "sft",
    }
    assert {each.model for each in recipe.reward} == {"head", "density_ratio"}


def test_what_is_compared(study: Path) -> None:
    rows = {row["method"]: row for row in read(study / "results.json")["rows"]}
    wanted = [name + decoded for name in ("sft", *NAMES) for decoded in ("", ", greedy")]
    assert set(rows) >= {*wanted, "initial", "demonstrations", "best of 4 by init-sft"}
    run = study / "runs" / "dial-0.5-seed-0"
    recipe = with_baselines(miniature("init-sft"))
    measured = load_measured(recipe, run)
    assert measured.golden is not None
    golden = {key: values.mean(axis=1) for key, values in measured.golden.items()}
    low, high = golden["initial"].mean(), golden["demonstrations"].mean()
    for name in NAMES:
        row, mean = rows[name], golden[name].mean()
        assert row["golden"]["value"] == pytest.approx(mean)
        assert row["minus_samples"]["value"] == pytest.approx(mean - golden["candidates"].mean())
        assert row["normalised"]["value"] == pytest.approx((mean - low) / (high - low))
        assert row["kl"]["value"] == pytest.approx(measured.log_ratios[name].mean())
        assert row["wins_samples"]["value"] == pytest.approx(_won(measured.golden, name))
    assert rows["initial"]["normalised"]["value"] == pytest.approx(0)
    assert "kl" not in rows["best of 4 by init-sft"]
    assert "wins_samples" not in rows["sft"]


def _won(golden: Any, name: str) -> float:
    """By counting all pairs."""
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for mine, its in zip(golden[name], golden["candidates"], strict=True)
        for a in mine
        for b in its
    ]
    return float(np.mean(won))


def test_the_script_writes_the_section_and_the_picture(study: Path, tmp_path: Path) -> None:
    docs = written("policies.py", study / "results.json", tmp_path)
    page = (docs / "studies.md").read_text(encoding="utf-8")
    section = page.partition("<!-- policies: begin -->")[2].partition("<!-- policies: end -->")[0]
    rows = {row["method"]: row for row in read(study / "results.json")["rows"]}
    found = rows["dpo-demonstrations"]["golden"]
    cell = f"{found['value']:.2f} [{found['ci95'][0]:.2f}, {found['ci95'][1]:.2f}]"
    assert "| golden reward | dial 0.5 |" in section
    assert f"| DPO on demonstrations against initial samples | {cell} |" in section
    assert "1 seed; differences and wins are paired by prompt" in section
    picture = (docs / "images" / "policies.svg").read_text(encoding="utf-8")
    assert "SFT on preferred" in picture
