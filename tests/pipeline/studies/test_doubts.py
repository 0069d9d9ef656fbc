"""The studies of the alarm, of heterogeneity and of ensembles, in miniature, on shared runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demoalign.errors import RecipeError
from demoalign.intervals import wilson
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.studies import alarm, ensembles, heterogeneity, run_study
from demoalign.pipeline.studies.alarm import SIGNS, rates, truth_of
from demoalign.pipeline.studies.ensembles import BASES, ensemble_name, mixture_name, with_ensembles
from demoalign.pipeline.studies.worlds import lean
from demoalign.records import Metric
from tests.pipeline.studies.miniature import miniature

DIALS = (0.0, 1.0)
ROOT = Path(__file__).parents[3]


def written(name: str, page: str, output: Path) -> str:
    """What the study's script makes of the page; it draws its picture too."""
    docs = output / f"docs-{name}"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("results", "images"))
    command = [sys.executable, str(docs / f"{name}.py"), str(output / "results.json")]
    subprocess.run(command, check=True, capture_output=True)
    assert (docs / "images" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    text = (docs / page).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]


def study(name: str, output: Path) -> dict[str, Any]:
    path = run_study(name, miniature(), 1, output)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_alarm_and_heterogeneity_share_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "DIALS", DIALS)
    monkeypatch.setattr(heterogeneity, "DIALS", DIALS)
    found = study("alarm", tmp_path)
    names = {config.title for config in miniature().reward}
    cases = found["cases"]
    assert {case["dial"] for case in cases} == set(DIALS)
    assert {case["selector"] for case in cases if case["is_reward_model"]} == names
    assert "golden" not in {case["selector"] for case in cases}
    for case in cases:
        assert set(case["sounded"]) == set(SIGNS)
        others, _, repetition = (case["sounded"][sign] for sign in SIGNS[1:4])
        assert case["sounded"]["alarm"] == (others or repetition)
        assert (case["onset"] is not None) <= (case["truth"] == "fell")
    whole = [row for row in found["rates"] if row["selectors"] == "all" and row["sign"] == "alarm"]
    assert sum(row["cases"] for row in whole) == len(cases)
    page = written("alarm", "over-optimisation.md", tmp_path)
    assert f"{len(cases)} cases, 1 seeds at each of 2 dials" in page
    assert page.count("| **alarm** |") == 3

    capsys.readouterr()
    found = study("heterogeneity", tmp_path)
    assert ": running" not in capsys.readouterr().err, "the runs of the other study are used"
    measures = {row["measure"]: row for row in found["measures"]}
    origin = measures["surface AUC, demonstration or SFT sample"]
    assert [row["dial"] for row in origin["rows"]] == list(DIALS)
    assert all(0 <= row["value"] <= 1 for row in origin["rows"])
    assert "agreement of init-sft and density-ratio" in measures
    values = [row["by_seed"][0] for row in origin["rows"]]
    assert origin["rises"] == int(values[1] > values[0])
    assert len(found["verdicts"]) == len(DIALS)
    for verdict in found["verdicts"]:
        assert verdict["advice"]
        assert "preference" not in verdict["golden"], "its annotators know the golden reward"
        assert {"init-sft", "density-ratio"} <= set(verdict["golden"])
    page = written("heterogeneity", "heterogeneity.md", tmp_path)
    assert f"| surface AUC, demonstration or SFT sample | {values[0]:.3f} ({values[0]:.3f})" in page
    assert "| 1, 0 | " in page


def test_ensembles_and_mixtures_on_the_same_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensembles, "DIALS", (0.0,))
    monkeypatch.setattr(ensembles, "MEMBERS", 2)
    found = study("ensembles", tmp_path)
    rows = {(row["base"], row["way"]): row for row in found["rows"]}
    for base in BASES:
        single = rows[base, "single"]
        assert single["of"] == 1
        for point in single["curve"]:
            assert point["minus_single"]["value"] == 0
    least, mean = (rows["init-sft", f"ensemble, {way}"] for way in ("min", "mean"))
    assert [p["n"] for p in mean["curve"]] == [p["n"] for p in least["curve"]] == found["n"]
    first = [row["curve"][0]["golden"]["value"] for row in rows.values()]
    assert first == pytest.approx([first[0]] * len(first)), "best of 1 is a plain sample"

    page = written("ensembles", "over-optimisation.md", tmp_path)
    assert "| init-sft: ensemble, mean - 1 sd |" in page
    assert "| sft-demo: mixture with preference, min |" in page

    recipe = with_ensembles(lean(miniature()))
    run = tmp_path / "ensembles" / "runs" / "dial-0.0-seed-0"
    measured = load_measured(recipe, run)
    stored = json.loads((run / "members" / "found.json").read_text(encoding="utf-8"))
    for base in BASES:
        scores = measured.selectors[ensemble_name(base)].ravel()
        np.testing.assert_allclose(np.mean(stored[base], axis=0), scores, atol=1e-4)
        spread = measured.disagreement[ensemble_name(base)].ravel()
        np.testing.assert_allclose(np.std(stored[base], axis=0), spread, atol=1e-4)
        deviations = measured.units[mixture_name(base, "min")]
        assert deviations == "standard deviations of SFT samples, least of 2 members"


def test_ensembles_need_the_rewards_that_they_are_made_of() -> None:
    recipe = miniature()
    few = recipe.model_copy(update={"reward": recipe.reward[:1]})
    with pytest.raises(RecipeError, match="this study needs sft-demo, found init-sft"):
        with_ensembles(few)


@pytest.mark.parametrize(
    ("drop", "interval", "truth"),
    [
        (0.5, (0.1, 0.9), "fell"),
        (0.5, (-0.1, 0.9), "unclear"),
        (0.0, (0.0, 0.0), "did not fall"),
        (-0.2, (-0.4, 0.1), "did not fall"),
    ],
)
def test_what_golden_did(drop: float, interval: tuple[float, float], truth: str) -> None:
    assert truth_of(Metric("overoptimisation_drop", "sft", "a", 4, drop, interval, 9, 0, "")) == (
        truth
    )


def test_rates_count_cases_and_leave_out_what_could_not_be_read() -> None:
    def case(truth: str, sounded: bool | None, is_reward_model: bool = True) -> dict[str, Any]:
        signs = dict.fromkeys(SIGNS, sounded)
        return {"truth": truth, "is_reward_model": is_reward_model, "sounded": signs}

    cases = [
        *(case("fell", True) for _ in range(3)),
        case("fell", False),
        case("fell", None),
        case("did not fall", True, is_reward_model=False),
    ]
    fell, unclear, not_fallen = rates(cases)[:3]
    assert (fell["sounded"], fell["cases"], fell["rate"]) == (3, 4, 0.75)
    assert fell["ci95"] == list(wilson(3, 4))
    assert (unclear["cases"], unclear["rate"], unclear["ci95"]) == (0, None, None)
    assert not_fallen["rate"] == 1
    assert rates(cases, reward_models=True)[2]["cases"] == 0
    assert rates(cases, reward_models=False)[0]["cases"] == 0
