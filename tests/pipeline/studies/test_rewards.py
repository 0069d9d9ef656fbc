"""The study of reward models in miniature, and the script that writes its tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from demoalign.cli.stored import study
from demoalign.config import EvaluationConfig, Recipe
from demoalign.errors import RecipeError
from demoalign.evaluation.measured import Array, Measured
from demoalign.improve import expected_best_of_n
from demoalign.pipeline.measure import load_measured
from demoalign.pipeline.studies import STUDIES, rewards, run_study
from demoalign.pipeline.studies import critic as critics
from demoalign.pipeline.studies.critic import compared_n
from demoalign.pipeline.studies.worlds import lean
from tests.pipeline.runs import lines_of
from tests.pipeline.studies.miniature import miniature, read, section, written
from tests.servers import Server, serving

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "DIALS", (0.0,))
        run_study("rewards", miniature(), len(SEEDS), folder)
    return folder


@pytest.fixture(scope="module")
def rows(output: Path) -> dict[tuple[float, str, int], dict[str, Any]]:
    found = read(output / "results.json")["rows"]
    return {(row["dial"], row["selector"], row["n"]): row for row in found}


@pytest.fixture(scope="module")
def runs(output: Path) -> list[Measured]:
    return [
        load_measured(lean(miniature()), output / "runs" / f"dial-0.0-seed-{seed}")
        for seed in SEEDS
    ]


def golden(measured: Measured, source: str) -> Array:
    assert measured.golden is not None
    return measured.golden[source]


def test_a_study_pools_prompts_of_seeds(rows: Any, runs: list[Measured]) -> None:
    counts = [len(each.prompt_ids) for each in runs]
    samples = [float(golden(each, "candidates").mean()) for each in runs]
    found = rows[0.0, "samples", 1]
    assert found["golden"]["by_seed"] == pytest.approx(samples)
    assert found["golden"]["value"] == pytest.approx(np.average(samples, weights=counts))
    assert found["prompts"] == sum(counts)
    assert rows[0.0, "init-sft", 1]["minus_samples"]["value"] == pytest.approx(0.0)
    best = rows[0.0, "golden", 4]
    parts = [
        float((best_of - golden(each, "candidates").mean(axis=1)).mean())
        for each in runs
        for best_of in [expected_best_of_n(golden(each, "candidates"), each.selectors["golden"], 4)]
    ]
    assert best["minus_samples"]["by_seed"] == pytest.approx(parts)
    assert best["minus_samples"]["value"] > 0
    difference = best["golden"]["value"] - found["golden"]["value"]
    assert difference == pytest.approx(best["minus_samples"]["value"])


def test_intervals_over_seeds(rows: Any) -> None:
    for row in rows.values():
        low, high = row["golden"]["seeds95"]
        first, second = row["golden"]["by_seed"]
        # Student's t of two values: 12.706 standard errors, which are half their distance.
        middle, half = (first + second) / 2, 12.7062 * abs(first - second) / 2
        assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-4)


def test_win_rates_and_normalised_rewards(rows: Any, runs: list[Measured]) -> None:
    assert rows[0.0, "greedy", 1]["win_rate"]["value"] == 0.5
    assert rows[0.0, "initial", 1]["normalised"]["by_seed"] == pytest.approx([0.0, 0.0])
    assert rows[0.0, "demonstrations", 1]["normalised"]["by_seed"] == pytest.approx([1.0, 1.0])
    wins = []
    for each in runs:
        candidates, greedy = golden(each, "candidates"), golden(each, "greedy")
        chosen = each.selectors["init-sft"].argmax(axis=1)
        best = candidates[np.arange(len(candidates)), chosen]
        wins.append(np.mean((best > greedy[:, 0]) + 0.5 * (best == greedy[:, 0])))
    assert rows[0.0, "init-sft", 4]["win_rate"]["by_seed"] == pytest.approx(wins)


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"must be one of policies, rewards, .*, found 'nothing'"):
        run_study("nothing", miniature(), 1, tmp_path)


def test_the_command_names_all_studies() -> None:
    argument = get_args(get_type_hints(study, include_extras=True)["name"])[1]
    assert set(re.findall(r"[a-z][a-z-]+", argument.help)) - {"or"} == set(STUDIES)


def test_the_script_writes_tables_between_the_markers(
    output: Path, rows: Any, tmp_path: Path
) -> None:
    docs = written("rewards.py", output / "results.json", tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition("<!-- study: begin -->\n")
    table, _, after = rest.partition("\n<!-- study: end -->")
    assert before.startswith("# demoalign")
    assert "apache" in after.lower()
    found = rows[0.0, "init-sft", 4]
    low, high = found["golden"]["seeds95"]
    assert f"| by init-sft | {found['golden']['value']:.2f} [{low:.2f}, {high:.2f}] |" in table
    minus = found["minus_greedy"]
    low, high = minus["seeds95"]
    seeds = ", ".join(f"{value:+.2f}" for value in minus["by_seed"])
    cell = f"{minus['value']:+.2f} [{low:+.2f}, {high:+.2f}]; {seeds}"
    assert f"| SFT greedy | {cell} |" in table
    assert "2 seeds, 12 test prompts a dial. Intervals: Student's t" in table
    page = (docs / "reward-models.md").read_text(encoding="utf-8")
    assert "| win rate against SFT greedy (a tie counts one half) | dial 0, N = 4 |" in page
    picture = (docs / "images" / "rewards.svg").read_text(encoding="utf-8")
    assert "win rate" in picture


@pytest.fixture(scope="module")
def critic(output: Path) -> Path:
    """The study of who wins, on the same runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(critics, "DIALS", (0.0,))
        manifests = {path: path.read_bytes() for path in output.glob("runs/*/*/manifest.json")}
        path = run_study("critic", miniature(), len(SEEDS), output / "critic", runs_of=output)
        assert {path: path.read_bytes() for path in output.glob("runs/*/*/manifest.json")} == (
            manifests
        )
    return path


def test_a_critic_compares_everything_in_the_runs_of_rewards(
    critic: Path, runs: list[Measured]
) -> None:
    found = read(critic)
    rows = {(row["policy"], row["against"]): row for row in found["rows"]}
    assert found["critic"] == "golden reward"
    assert found["n"] == 2
    assert found["kl_bound"] == pytest.approx(np.log(2) - 0.5)
    for (policy, against), row in rows.items():
        assert sum(row[each]["value"] for each in ("win", "tie", "lose")) == pytest.approx(1)
        back = rows[against, policy]
        assert row["win"]["by_seed"] == pytest.approx(back["lose"]["by_seed"])
        assert row["tie"]["by_seed"] == pytest.approx(back["tie"]["by_seed"])
    wins = [
        float((golden(each, "demonstrations") > golden(each, "greedy")).mean()) for each in runs
    ]
    assert rows["demonstrations", "sft, greedy"]["win"]["by_seed"] == pytest.approx(wins)
    assert rows["best of 2 by golden", "best of 2 by init-sft"]["lose"]["value"] == 0
    # The better of two by the golden reward against a third candidate, counted one by one.
    first = runs[0]
    shares = []
    for row in golden(first, "candidates"):
        better = [
            max(row[i], row[j]) > row[k]
            for i in range(4)
            for j in range(i)
            for k in range(4)
            if k not in (i, j)
        ]
        shares.append(np.mean(better))
    mine = rows["best of 2 by golden", "sft"]["win"]["by_seed"][0]
    assert mine == pytest.approx(np.mean(shares))


def with_judge(server: Server, *rewards: str) -> Recipe:
    judge = {"base_url": server.base_url, "model": "my-judge", "controls": 0}
    recipe = miniature(*rewards)
    evaluation = EvaluationConfig.model_validate(
        {**recipe.evaluation.model_dump(mode="json"), "judge": judge}
    )
    return recipe.model_copy(update={"evaluation": evaluation})


def test_a_judge_of_the_table_when_one_is_given(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critics, "DIALS", (0.0,))
    with serving(judge="wary") as server:
        path = run_study("critic", with_judge(server), 2, tmp_path / "first", runs_of=output)
        count = len(server.bodies())
        again = run_study("critic", with_judge(server), 2, tmp_path / "again", runs_of=output)
        assert len(server.bodies()) == count > 0, "nothing is asked twice"
        with pytest.raises(RecipeError, match=r"reward: the study critic .*found no preference"):
            run_study("critic", with_judge(server, "init-sft"), 1, tmp_path, runs_of=output)
    found = read(path)
    assert found == read(again)
    assert found["critic"] == "my-judge"
    irl, preference = "best of 2 by init-sft", "best of 2 by preference"
    rows = {(row["policy"], row["against"]): row for row in found["rows"]}
    assert set(rows) == {(irl, preference), (irl, "sft"), (preference, "sft")}
    row = rows[irl, "sft"]
    assert sum(row[each]["value"] for each in ("win", "tie", "lose")) == pytest.approx(1)
    said = [
        [line["result"] for line in lines_of(each / "pairs.jsonl")]
        for seed in SEEDS
        for each in (output / "runs" / f"dial-0.0-seed-{seed}" / "judge").glob(
            "sft.init-sft.2-vs-sft.none*"
        )
    ]
    wins = [results.count("win") / len(results) for results in said]
    assert row["win"]["by_seed"] == pytest.approx(wins)
    assert f"| {irl} against SFT samples: win |" in (
        written("critic.py", path, tmp_path / "page") / "studies.md"
    ).read_text(encoding="utf-8")


def test_a_critic_needs_somebody_to_compare_with() -> None:
    recipe = miniature()
    few = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"n": 2})})
    with pytest.raises(RecipeError, match=r"evaluation\.n: the study critic .*found 2"):
        compared_n(few)


def test_the_script_of_the_critic(critic: Path, tmp_path: Path) -> None:
    docs = written("critic.py", critic, tmp_path)
    text = section(docs, "critic")
    rows = {(row["policy"], row["against"]): row for row in read(critic)["rows"]}
    found = rows["best of 2 by init-sft", "sft"]["win"]
    low, high = found["seeds95"]
    cell = f"{found['value']:.2f} [{low:.2f}, {high:.2f}]"
    assert f"| best of 2 by init-sft against SFT samples: win | {cell} |" in text
    assert "wins less losses against the demonstrations" in text
    assert "against SFT samples" in (docs / "images" / "critic.svg").read_text(encoding="utf-8")
