"""Improved policies and truncated sampling: their rows, their gains, and how far they went."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from demoalign.records import Metric
from demoalign.report import charts, tables
from demoalign.report.frontier import give_frontier
from demoalign.report.read import read_run
from demoalign.report.verdict import give_verdict, selectors_of

from .conftest import change_json, shrink
from .test_page import HOSTILE, page_of
from .test_verdict import GOLDEN, difference, run_of
from .world import DECODED, MODELS

TITLE = "Golden reward against KL from the SFT policy"
LABELS = [
    "SFT, temperature-0.7",
    "SFT, top-p-0.9",
    "SFT, min-p-0.1",
    "distilled",
    "distilled, greedy",
    "extrapolated",
    "extrapolated, greedy",
]


def test_decodings_are_policies_and_never_selectors(full_run: Path) -> None:
    run = read_run(full_run)
    assert not {selector for _, selector in DECODED} & set(selectors_of(run))
    table = tables.main_table(run)
    rows = {row.label: row for row in table.groups["plain"]}
    usual = ["Initial policy", "SFT policy", "SFT policy, greedy", "Demonstrations"]
    assert list(rows) == [*usual, *LABELS]
    headings = [heading for heading, _ in table.columns]
    gain = headings.index("Gain over greedy")
    for label in LABELS:
        assert all(item.text is not None for item in rows[label].cells)
        assert rows[label].cells[gain].interval is not None
    assert all(rows[label].cells[gain].text is None for label in usual)
    assert table.notes == ()


def test_their_gains_are_drawn(full_run: Path) -> None:
    run = read_run(full_run)
    for chart in (charts.policies(run), charts.gains(run)):
        assert chart.svg is not None
        assert all(f">{label}<" in chart.svg for label in LABELS)


def test_the_verdict_tells_of_improved_policies_but_not_of_the_sft_policys_own() -> None:
    truncated = difference(0.4, (0.2, 0.6), "top-p-0.9", 1)
    improved = difference(0.3, (0.1, 0.5), "top-p-0.9", 1, policy="extrapolated")
    verdict = give_verdict(run_of(GOLDEN, truncated, improved))
    assert verdict.headline.startswith("Policy extrapolated (top-p-0.9) beats")
    assert verdict.details == ()


def test_points_are_policies_with_a_kl_and_lines_are_reward_models(full_run: Path) -> None:
    frontier = give_frontier(read_run(full_run))
    assert frontier is not None
    assert frontier.chart.svg is not None
    assert frontier.curves == (*MODELS[:4], "density-ratio")
    assert list(frontier.points) == [label for label in LABELS if "greedy" not in label]
    assert "an upper bound" in frontier.chart.caption
    policies, chosen = frontier.table.groups["policies"], frontier.table.groups["best of n"]
    assert [row.label for row in policies] == list(frontier.points)
    assert all(item.text is not None for row in (*policies, *chosen) for item in row.cells)
    assert {row.note for row in chosen} == {"init-sft; KL at most"}
    assert chosen[-1].cells[0].text == "3.17"
    assert chosen[-1].cells[0].interval is None
    ids = set(re.findall(r'id="(point\d+)"', "".join(frontier.points.values())))
    assert ids == {f"point{place}" for place in range(len(frontier.points))}


def kl(value: float | None, policy: str = "extrapolated", reason: str | None = None) -> Metric:
    against = "sft/none/1"
    return Metric("kl", policy, "none", 1, value, None, 9, 0, "nats", against, reason)


def golden(value: float | None, policy: str = "extrapolated") -> Metric:
    return Metric("golden_reward", policy, "none", 1, value, None, 9, 0, "golden reward")


@pytest.mark.parametrize(
    "metrics",
    [
        (GOLDEN, kl(None, reason="no log-probabilities"), golden(1.0)),
        (GOLDEN, kl(1.0), golden(None)),
        (GOLDEN, kl(1.0)),
    ],
)
def test_a_point_that_is_half_known_is_not_drawn(metrics: tuple[Metric, ...]) -> None:
    frontier = give_frontier(run_of(*metrics))
    assert frontier is not None
    assert frontier.chart.svg is None
    assert frontier.chart.caption.startswith("Not measured")
    assert (frontier.points, frontier.curves) == ({}, ())
    (row,) = frontier.table.groups["policies"]
    missing = [item for item in row.cells if item.text is None]
    assert missing
    assert all(item.reason for item in missing)


def test_a_kl_estimated_below_zero_is_drawn() -> None:
    frontier = give_frontier(run_of(GOLDEN, kl(-0.02), golden(1.0)))
    assert frontier is not None
    assert frontier.chart.svg is not None
    assert "nan" not in frontier.chart.svg
    assert "extrapolated at \u22120.02 nats" in frontier.chart.svg


def test_runs_that_improve_nothing_have_no_such_section(run_copy: Path) -> None:
    shrink(run_copy)
    assert give_frontier(read_run(run_copy)) is None
    page = page_of(run_copy)
    assert TITLE not in page.text
    assert "extrapolated" not in page.text


def test_without_golden_reward_the_distances_are_still_there(run_copy: Path) -> None:
    def forget(results: dict[str, Any]) -> dict[str, Any]:
        keep = [m for m in results["metrics"] if not m["metric"].startswith(("golden", "win"))]
        return {**results, "metrics": keep}

    change_json(run_copy / "evaluation/results.json", forget)
    frontier = give_frontier(read_run(run_copy))
    assert frontier is not None
    assert [heading for heading, _ in frontier.table.columns] == ["KL from SFT"]
    assert frontier.table.notes == ()
    page = page_of(run_copy)
    assert "Not measured: no policy has both a KL and a golden reward." in page.text
    assert "Which reward to trust here" in page.text


def test_a_hostile_policy_is_inert(run_copy: Path) -> None:
    def spoil(results: dict[str, Any]) -> dict[str, Any]:
        for row in results["metrics"]:
            if row["policy"] == "extrapolated":
                row["policy"] = HOSTILE
            if row["metric"] == "kl" and row["policy"] == "distilled":
                row.update(value=None, ci95=None, reason=HOSTILE)
            if row["metric"].startswith("outside_support"):
                row["selector"] = HOSTILE
        return results

    change_json(run_copy / "evaluation/results.json", spoil)
    page = page_of(run_copy)
    assert len(page.scripts) == 2
    assert not any(tag == "img" for tag, _ in page.tags)
    assert page.text.count("{{7*7}}") > 5
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        if tag == "use":
            assert (attrs.get("href") or "")[1:] in ids
