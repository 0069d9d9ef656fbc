"""The study of reward models in miniature, and the script that writes its tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demoalign.errors import RecipeError
from demoalign.improve import expected_best_of_n
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.studies import reward_models, run_study
from tests.pipeline.studies.miniature import miniature

ROOT = Path(__file__).parents[3]


def test_a_study_pools_prompts_of_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_models, "DIALS", (0.0,))
    path = run_study("reward-models", miniature(), 2, tmp_path)
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = {(row["dial"], row["selector"], row["n"]): row for row in found["rows"]}
    measured = [
        load_measured(miniature(), tmp_path / "runs" / f"dial-0.0-seed-{seed}") for seed in (0, 1)
    ]
    counts = [len(each.prompt_ids) for each in measured]
    samples = [each.golden["candidates"].mean() for each in measured if each.golden is not None]
    pooled = sum(c * s for c, s in zip(counts, samples, strict=True)) / sum(counts)
    assert rows[0.0, "samples", 1]["golden"] == pytest.approx(pooled)
    assert rows[0.0, "samples", 1]["prompts"] == sum(counts)
    assert rows[0.0, "init-sft", 1]["minus_samples"]["value"] == pytest.approx(0.0)
    best = rows[0.0, "golden", 4]
    parts = [
        float((best_of - each.golden["candidates"].mean(axis=1)).mean())
        for each in measured
        if each.golden is not None
        for best_of in [expected_best_of_n(each.golden["candidates"], each.selectors["golden"], 4)]
    ]
    assert best["minus_samples"]["by_seed"] == pytest.approx(parts)
    assert best["minus_samples"]["value"] > 0
    assert best["golden"] - rows[0.0, "samples", 1]["golden"] == pytest.approx(
        best["minus_samples"]["value"]
    )


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"must be one of reward-models, .*, found 'nothing'"):
        run_study("nothing", miniature(), 1, tmp_path)


def test_the_script_writes_tables_between_the_markers(tmp_path: Path) -> None:
    names = ("initial", "samples", "greedy", "demonstrations", "init-sft", "golden")
    pair = {"value": 0.25, "ci95": [0.125, 0.375], "by_seed": [0.5, 0.0]}
    rows = [
        {"dial": dial, "selector": name, "n": n, "golden": 1.5 + n, "ci95": [1.0 + n, 2.0 + n]}
        | {"prompts": 6}
        | {f"minus_{rival}": pair for rival in ("samples", "greedy", "demonstrations")}
        for dial in (0.0, 1.0)
        for name in names
        for n in ((1,) if name in names[:4] else (1, 16))
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"schema": 1, "seeds": 2, "rows": rows}), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    for script in ("reward_models.py", "pages.py"):
        shutil.copy(ROOT / "docs" / script, tmp_path / "docs")
    for page in ("README.md", "docs/reward-models.md"):
        text = "before\n<!-- study: begin -->\nstale table\n<!-- study: end -->\nafter\n"
        (tmp_path / page).write_text(text, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "docs" / "reward_models.py"), str(results)]
    subprocess.run(command, check=True, capture_output=True)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before\n")
    assert readme.endswith("\nafter\n")
    assert "stale table" not in readme
    assert "| SFT samples | +0.25 [+0.12, +0.38]; +0.50, +0.00 | +0.25 " in readme
    assert "| by init-sft | 17.50 [17.00, 18.00] | 17.50 [17.00, 18.00] |" in readme
    picture = (tmp_path / "docs" / "images" / "reward-models.svg").read_text(encoding="utf-8")
    assert picture.count("dial") >= 2
