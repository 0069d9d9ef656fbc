"""The section on how the policy was trained, and files that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from demoalign.report.read import read_run
from demoalign.report.training import TrainingSection, give_training
from demoalign.report.words import METHOD_NAMES

from .conftest import RECIPE, shrink, write_json
from .test_page import HOSTILE, page_of

FELL = "over-optimisation: the reward density-ratio has fallen by 0.3 [0.1, 0.5] since round 10"
CANNOT = (
    "the reward model cannot tell the policy's samples from demonstrations any more: accuracy 0.50 "
    "[0.40, 0.60] on 90 held-out pairs"
)
Line = dict[str, Any]


def check(number: int, **more: float | None) -> Line:
    means = {
        "kl": 0.4 * number,
        "entropy": 1.0 - 0.01 * number,
        "tokens": 60.0 + number,
        "cut": 0.05,
        "distinct": 0.4,
        "reward": 0.1 * number,
        "golden": 2.5 + 0.02 * number,
        **more,
    }
    ci95 = {"golden": [means["golden"] - 0.2, means["golden"] + 0.2]} if means["golden"] else {}
    return {"round": number, "means": means, "watched": [0.5] * 32, "ci95": ci95}


def round_(number: int, **more: float) -> Line:
    seconds = {"seconds_sampling": 5.0, "seconds_judging": 1.0, "seconds_learning": 4.0}
    return {"round": number, "reward": 0.1, "kl": 0.4 * number, "tokens": 61.0, **seconds, **more}


def iteration(number: int, step: Line | None) -> Line:
    accuracy, ci95 = 0.9 - 0.2 * number, [0.8 - 0.2 * number, 0.95 - 0.2 * number]
    return {"round": number, "accuracy": accuracy, "ci95": ci95, "pairs": 90, "step": step}


def train(
    run: Path, method: str, rounds: list[Line], checks: list[Line], ended: Line, **settings: Any
) -> Path:
    """Store what a training leaves; the folder of it."""
    recipe = {**RECIPE, "improve": {"method": method, **settings}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folder = run / "policy"
    write_json(folder / "training.json", ended)
    write_json(folder / "manifest.json", {"status": "done", "seconds": 100.0, "files": []})
    for name, lines in (("rounds", rounds), ("checks", checks)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def train_rloo(run: Path, stopped: str | None = FELL, best: int = 10, **settings: Any) -> Path:
    ended = {"rounds": 20, "best": best, "stopped": stopped}
    checks = [check(n, witness=w) for n, w in ((0, 0.0), (10, 0.6), (20, 0.3))]
    rounds = [round_(n) for n in range(1, 21)]
    return train(run, "rloo", rounds, checks, ended, reward="init-sft", **settings)


def section_of(run: Path) -> TrainingSection:
    found = give_training(read_run(run))
    assert found is not None
    return found


def test_the_page_says_what_stopped_it_and_what_was_kept(run_copy: Path) -> None:
    shrink(run_copy)
    train_rloo(run_copy)
    page = page_of(run_copy)
    assert "training" in [attrs.get("id") for _, attrs in page.tags]
    assert "#training" in [attrs.get("href") for tag, attrs in page.tags if tag == "a"]
    assert "Stopped after 20 of 40 rounds, for what decides had fallen" in page.text
    assert f"In its own words: {FELL}." in page.text
    assert (
        "Kept: the policy of round 10. By the reward density-ratio it is the last check"
        in page.text
    )
    assert "2.50 [2.30, 2.70] at first, 2.70 [2.50, 2.90] in the round that was kept" in page.text
    assert "The rounds took 3 min 20 s: 50% sampling, 10% rewarding and 40% learning." in page.text
    assert "Reward, init-sft" in page.text
    assert "Witness, density-ratio" in page.text
    assert "Policy gradient with the reward of a prompt's other samples" in page.text
    assert "No other reward looked on" not in page.text
    assert read_run(run_copy).problems == ()
    before = (run_copy / "report.html").read_bytes()
    page_of(run_copy)
    assert (run_copy / "report.html").read_bytes() == before


def test_charts_and_table_of_the_checks(run_copy: Path) -> None:
    train_rloo(run_copy)
    section = section_of(run_copy)
    assert [bool(each.svg) for each in section.views] == [True] * 3
    titles = ["KL from SFT", "Entropy", "Length", "Distinct pairs", "Does not end"]
    assert [each.title for each in section.facts] == titles
    rows = section.checks.groups["all"]
    assert [(row.label, row.note) for row in rows] == [
        ("Round 0", ""),
        ("Round 10", "kept"),
        ("Round 20", ""),
    ]
    headings = [heading for heading, _ in section.checks.columns]
    golden = rows[1].cells[headings.index("Golden reward")]
    assert (golden.text, golden.interval) == ("2.70", "[2.50, 2.90]")
    assert section.iterations is None


@pytest.mark.parametrize(
    ("stopped", "best", "words"),
    [
        (None, 20, "Nothing stopped it: all 20 rounds were done."),
        (None, 0, "which is the SFT policy. By the reward density-ratio no later check"),
        ("collapse: entropy fell to 0.1", 10, "for the answers were falling into sameness"),
        ("KL to the reference: 30 nats", 10, "had moved further from the SFT policy than"),
        ("something new", 10, "Stopped after 20 of 40 rounds. In its own words: something new."),
    ],
)
def test_how_it_ended_in_words(run_copy: Path, stopped: str | None, best: int, words: str) -> None:
    train_rloo(run_copy, stopped, best)
    assert words in " ".join(section_of(run_copy).said)


def test_nobody_looking_on_is_said(run_copy: Path) -> None:
    ended = {"rounds": 1, "best": 1, "stopped": None}
    checks = [check(0, golden=None), check(1, golden=None)]
    train(run_copy, "rloo", [round_(1)], checks, ended, check={"witness": None})
    section = section_of(run_copy)
    assert [bool(each.svg) for each in section.views] == [True, False, False]
    assert section.views[1].caption == "Not measured: no other reward of the recipe looked on."
    assert any(each.startswith("No other reward looked on") for each in section.said)
    assert "the objective itself" in " ".join(section.said)


def test_a_discriminator_is_drawn(run_copy: Path) -> None:
    told = {"discriminator_accuracy": 0.7, "discriminator_calibration": 0.1}
    rounds = [round_(n, **told) for n in (1, 2)]
    checks = [{**check(n), "watched": []} for n in (0, 2)]
    train(run_copy, "adversarial", rounds, checks, {"rounds": 2, "best": 2, "stopped": None})
    section = section_of(run_copy)
    assert section.views[0].title == "Discriminator's view"
    assert [each.title for each in section.facts][-2:] == [
        "Discriminator's accuracy",
        "Discriminator's calibration error",
    ]
    assert "Nothing said which was best" in section.said[1]


def test_iterations_have_their_accuracy(run_copy: Path) -> None:
    shrink(run_copy)
    step = {"rounds": 20, "best": 10, "stopped": FELL}
    checks = [check(n, reward=None) for n in (0, 1)]
    rounds = [iteration(1, step), iteration(2, None)]
    train(run_copy, "irl", rounds, checks, {"rounds": 1, "best": 1, "stopped": CANNOT})
    section = section_of(run_copy)
    assert section.unit == "iteration"
    titles = [each.title.partition(",")[0] for each in section.views]
    assert titles == ["Reward's accuracy on held-out pairs", "Witness", "Golden reward"]
    assert section.iterations is not None
    first, last = section.iterations.groups["all"]
    assert (first.cells[0].text, first.cells[0].interval) == ("70%", "[60%, 75%]")
    assert [each.text for each in first.cells[1:]] == ["90", "20", "10", "over-optimisation"]
    assert [each.text for each in last.cells] == ["50%", "90", None, None, None]
    assert f"Iteration 1, the policy's step stopped: {FELL}." in section.iterations.notes
    assert "Stopped after 1 of 3 iterations, for there was nothing left to learn" in section.said[0]
    assert "Reward and policy by turns" in page_of(run_copy).text


def test_only_a_discriminator_was_trained(run_copy: Path) -> None:
    folder = train(
        run_copy, "adversarial", [], [check(0)], {"rounds": 0, "best": 0, "stopped": None}
    )
    (folder / "rounds.jsonl").unlink()
    assert section_of(run_copy).said[0] == "No round was asked for, so the policy did not learn."
    assert read_run(run_copy).problems == ()


def test_there_is_no_section_without_such_a_training(run_copy: Path) -> None:
    assert give_training(read_run(run_copy)) is None
    write_json(run_copy / "policy" / "training.json", {"losses": [1.0]})  # distilled
    write_json(run_copy / "policy" / "manifest.json", {"status": "done"})
    assert give_training(read_run(run_copy)) is None
    assert read_run(run_copy).problems == ()


def test_what_is_absent_is_said(run_copy: Path) -> None:
    folder = train_rloo(run_copy)
    (folder / "training.json").unlink()
    (folder / "rounds.jsonl").unlink()
    found = read_run(run_copy)
    assert found.problems == (
        "policy/training.json is not in the run folder.",
        "policy/rounds.jsonl is not in the run folder.",
    )
    assert section_of(run_copy).said[0] == "How it ended is not stored; 20 rounds are."
    (folder / "checks.jsonl").unlink()
    assert give_training(read_run(run_copy)) is None


def test_damaged_and_hostile_files(run_copy: Path) -> None:
    shrink(run_copy)
    folder = train_rloo(run_copy, HOSTILE)
    with (folder / "checks.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"round": 30, "means": {"kl": NaN, "golden": "much"}}\n[1]\n{"round": ')
    (folder / "rounds.jsonl").write_text('{"reward": 1.0}\n', encoding="utf-8")
    page = page_of(run_copy)
    assert len(page.scripts) == 2
    assert not any(tag == "img" for tag, _ in page.tags)
    problems = read_run(run_copy).problems
    assert "policy/checks.jsonl:5 is not an object." in problems
    assert any(each.startswith("policy/checks.jsonl:6 is not valid JSON") for each in problems)
    assert "policy/rounds.jsonl holds a line without a round." in problems
    assert [row.label for row in section_of(run_copy).checks.groups["all"]][-1] == "Round 30"


def test_a_recipe_of_another_version_leaves_names_open(run_copy: Path) -> None:
    train_rloo(run_copy, unknown=1)
    section = section_of(run_copy)
    assert section.views[0].title == "Reward"
    assert section.said[0].startswith("Stopped after 20 rounds, for")


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_is_in_the_glossary(run_copy: Path, method: str) -> None:
    shrink(run_copy)
    train(run_copy, method, [], [check(0)], {"rounds": 0, "best": 0, "stopped": None})
    page = page_of(run_copy)
    assert f" {method} " in page.text
    assert f"{METHOD_NAMES[method].lower()} answered" in page.text.lower()
