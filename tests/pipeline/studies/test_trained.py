"""The studies of trained policies in miniature, and the script that writes and draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demoalign.config import (
    AdversarialConfig,
    CheckConfig,
    IrlConfig,
    RaftConfig,
    RlooConfig,
    TrainedConfig,
)
from demoalign.pipeline.studies import irl, optimisers, run_study
from tests.pipeline.studies.miniature import miniature, read, written

CHECK = CheckConfig(every=1, prompts=4, samples=2, witness=None)
SLOW = 1e-6
"""A learning rate at which nothing falls, so that no training stops itself."""

ROUNDS: dict[str, Any] = {
    "rounds": 2,
    "prompts": 4,
    "samples_per_prompt": 2,
    "learning_rate": SLOW,
    "check": CHECK,
}
RAFT: dict[str, Any] = {"rounds": 1, "train_prompts": 6, "samples_per_prompt": 2, "check": CHECK}
METHODS: dict[str, TrainedConfig] = {
    "raft": RaftConfig(**RAFT, batch_size=8),
    "rloo": RlooConfig(**ROUNDS),
    "airl, trajectory": AdversarialConfig(**ROUNDS, level="trajectory"),
}


def part(text: str, name: str) -> str:
    return text.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]


def test_methods_beside_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "DIALS", (0.0,))
    monkeypatch.setattr(optimisers, "optimisers", lambda _: METHODS)
    recipe = miniature("init-sft", "density-ratio")
    path = run_study("optimisers", recipe, 1, tmp_path)
    found = read(path)
    rows = {row["method"]: row for row in found["rows"]}
    free = {"sft", "sft, greedy", "best of 4 by density-ratio", "best of 4 by init-sft"}
    assert set(rows) == free | {*METHODS} | {f"{name}, greedy" for name in METHODS}
    for name, row in rows.items():
        gap = row["golden"]["value"] - rows["sft, greedy"]["golden"]["value"]
        assert row["minus_greedy"]["value"] == pytest.approx(gap), name
        assert ("seconds" in row) == (name in METHODS)
        for key in ("distinct", "precision", "recall"):
            (value,) = row.get(key, [0.5])
            assert 0 < value <= 1
            assert (key in row) == (name in {"sft", "sft, greedy", *METHODS})
    rollouts = {
        each["method"]: [check["rollouts"] for check in each["checks"]] for each in found["curves"]
    }
    assert rollouts == {"raft": [0, 12], "rloo": [0, 8, 16], "airl, trajectory": [0, 8, 16]}
    stage = tmp_path / "runs" / "dial-0.0-seed-0" / "trained" / "rloo" / "manifest.json"
    before = stage.read_bytes()
    assert read(run_study("optimisers", recipe, 1, tmp_path)) == found
    assert stage.read_bytes() == before, "nothing is trained twice"
    docs = written("trained.py", path, tmp_path / "copy")
    text = part((docs / "optimisation.md").read_text(encoding="utf-8"), "optimisers")
    assert "| airl, trajectory |" in text
    assert (docs / "images" / "optimisers.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_iterations_beside_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = {"train_prompts": 12, "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    small = IrlConfig.model_validate({"iterations": 1, "reward": reward, "step": METHODS["rloo"]})
    monkeypatch.setattr(irl, "DIALS", (0.0,))
    monkeypatch.setattr(irl, "iterated", lambda _: {"irl": small})
    path = run_study("irl", miniature("density-ratio"), 1, tmp_path)
    found = read(path)
    assert {row["method"] for row in found["rows"]} == {"sft", "sft, greedy", "spin", "irl"}
    first, *rest = found["iterations"]
    assert first["iteration"] == 0
    assert first["policy"]["kl"] == pytest.approx(0, abs=1e-4)
    assert [each["iteration"] for each in rest] == [1]
    low, high = rest[0]["ci95"]
    assert low <= rest[0]["accuracy"] <= high
    docs = written("trained.py", path, tmp_path / "copy")
    text = part((docs / "optimisation.md").read_text(encoding="utf-8"), "irl")
    assert "dial 0, irl, iteration 1" in text
    assert (docs / "images" / "irl.svg").read_text(encoding="utf-8").startswith("<?xml")
