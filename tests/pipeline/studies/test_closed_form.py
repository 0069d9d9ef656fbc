"""The study of the reward in closed form, in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.improve.strength import STRENGTHS
from demoalign.pipeline.studies import closed_form, closed_form_runs, run_study
from demoalign.pipeline.studies.closed_form import SETTINGS, Run, pipeline_of
from demoalign.rollouts.write import read_rollouts
from tests.pipeline.studies.miniature import miniature

FEW = (*(f"strength {strength:g}" for strength in STRENGTHS), "plain log-ratio")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed-form")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "SETTINGS", (SETTINGS[2],))
    distil = {**closed_form.IMPROVE["distil"], "epochs": 0.2, "train_prompts": 16}
    monkeypatch.setattr(closed_form, "IMPROVE", {**closed_form.IMPROVE, "distil": distil})
    known = closed_form_runs.DECODINGS
    monkeypatch.setattr(closed_form_runs, "DECODINGS", {name: known[name] for name in FEW})


def test_all_of_it(small: None, output: Path) -> None:
    path = run_study("closed-form", miniature(), 1, output)
    found = json.loads(path.read_text(encoding="utf-8"))
    rows: dict[str, Any] = {row["method"]: row for row in found["rows"]}
    assert {"extrapolated", "distilled", "sft, min-p-0.1", "demonstrations"} <= set(rows)
    assert {f"best of 16 by {name}" for name in ("init-sft", "density-ratio", "mixture")} <= set(
        rows
    )
    for row in rows.values():
        difference = row["golden"]["value"] - rows["sft, greedy"]["golden"]["value"]
        assert row["minus_greedy"]["value"] == pytest.approx(difference)
    assert rows["best of 16 by init-sft"]["minus_init_sft"]["value"] == 0
    (fact,), (chosen,) = found["facts"], found["chosen"]
    assert 0 <= fact["tokens_outside"][0] <= 1
    assert chosen["chosen"][0] in STRENGTHS
    assert chosen["best_golden"][0] >= chosen["golden"][0]
    assert {row["decoding"] for row in found["strengths"]} == {*FEW, "weights 1.25", "weights 1.5"}

    pipeline = pipeline_of(miniature(), SETTINGS[2], 0, output)
    run = Run.of(pipeline)  # read back
    form = run.found["forms"]["log-ratio"]
    said = read_rollouts(pipeline.run.folder / "rollouts-test" / "sft.jsonl")
    facts = np.array(run.found["outside"])
    np.testing.assert_allclose(form, facts[:, 2], atol=1e-6)  # the whole log-ratio, both ways
    np.testing.assert_array_equal(facts[:, 0], [len(each.token_ids) for each in said])
