"""`demoalign validate` on data: the report, rankings by a run, filters, a file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demoalign.demonstrations import read_demonstrations
from demoalign.demonstrations.render import render
from demoalign.pipeline import Pipeline
from demoalign.pipeline.ranking import rank
from demoalign.policies import Policy
from demoalign.records import Demonstration, read_records
from tests.demonstrations.files import jsonl
from tests.demonstrations.hh_rows import NOTED, REJECTED, kinds, write_gz
from tests.models import logits_of
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import Json, Project, cli, digests, lines_of, refusal

BAD = [
    {"prompt": "Why is it so 1?", "completion": " I'm sorry, but I can't help with that."},
    {"prompt": "Why is it so 2?", "completion": " On.\n\nHuman: Off?"},
    {"prompt": "Why is it so 3?", "completion": " On.</s>"},
    {"prompt": "Why is it so 1?", "completion": " I'm sorry, but I can't help with that."},
]


def validated(*arguments: object) -> Json:
    said = cli("validate", *arguments, "--json")
    assert said.status == 0, said.err
    return said.json


def findings(found: Json) -> dict[str, int]:
    return {kind: each["count"] for kind, each in found["data"]["findings"].items()}


# --- a recipe


def test_a_recipe_s_training_rows_are_looked_at(project: Project) -> None:
    good = lines_of(project.data)
    jsonl(project.data, [*good, *BAD])
    held = jsonl(project.folder / "held.jsonl", [{"prompt": "WHY is it so 2"}, {"prompt": "New?"}])
    pairs = jsonl(
        project.folder / "pairs.jsonl",
        [{"prompt": each["prompt"], "chosen": "a", "rejected": "b"} for each in good],
    )
    recipe = project.file({"evaluation.preferences": [str(pairs)], "demonstrations.limit": 99})
    found = validated(recipe, "--against", held)
    test = Pipeline(project.recipe()).base.tokenizer  # the project's, whose </s> is no token of it
    assert "</s>" not in test.all_special_tokens
    overlap = found["data"]["overlap"]
    assert set(overlap) == {"the test split", str(pairs), str(held)}
    assert overlap["the test split"]["same"] == 0
    trained = found["data"]["rows"]
    assert overlap[str(pairs)]["same"] >= trained - len(BAD)
    assert overlap[str(held)]["prompts"] == 2
    assert any(f"of {len(good)} prompts of {pairs} are trained on" in w for w in found["warnings"])
    counts = findings(found)
    assert counts["leak"] <= 2
    assert counts["overlap"] >= trained - len(BAD)


def test_what_was_found_is_dropped_and_recorded(tmp_path: Path) -> None:
    good = [
        {"prompt": f"Why is {i}{i} off at {i} today?", "completion": f" It is {i}."}
        for i in range(9)
    ]
    source = jsonl(tmp_path / "data.jsonl", [*good, *BAD])
    output = tmp_path / "kept.jsonl"
    flags = ["--drop", "leak", "--drop", "refusal", "--drop", "duplicate", "--output", output]
    found = validated(source, *flags)
    assert findings(found) == {
        "duplicate": 1, "near-duplicate": 0, "overlap": 0, "refusal": 2, "leak": 2, "pair": 0,
    }  # fmt: skip
    kept = read_demonstrations(output).rows
    assert [row.prompt for row in kept] == [row["prompt"] for row in good]
    assert [row.id for row in kept] == [row.id for row in read_demonstrations(source).rows[:9]]
    gone = lines_of(tmp_path / "kept.dropped.jsonl")
    assert [line["row"]["prompt"] for line in gone] == [row["prompt"] for row in BAD]
    assert "leak: holds 'Human:'" in gone[1]["what"]
    assert gone[3]["what"][0].startswith("duplicate: repeats row 10 (")
    assert gone[3]["what"][1].startswith("refusal: declines:")
    dropped = str(tmp_path / "kept.dropped.jsonl")
    written = {"output": str(output), "dropped": dropped, "kept": 9, "gone": 4}
    assert found["data"]["filtered"] == written


def test_a_gzipped_file_of_transcripts_alone(tmp_path: Path) -> None:
    rows = list(kinds(1500, seed=2))
    path = write_gz(tmp_path / "hh.jsonl.gz", (row for _, row in rows))
    found = validated(path)
    data = found["data"]
    bad = sum(kind in REJECTED for kind, _ in rows)
    assert (data["rows"], data["unusable"]["count"]) == (1500 - bad, bad)
    assert data["findings"]["pair"]["count"] == sum(kind in NOTED for kind, _ in rows)
    assert data["findings"]["duplicate"]["count"] == sum(k == "a repeated row" for k, _ in rows)
    near = sum(kind == "nearly a repeated row" for kind, _ in rows)
    assert 0 < data["findings"]["near-duplicate"]["count"] <= near
    leaks = sum(kind == "role words after a line break" for kind, _ in rows)
    assert data["findings"]["leak"]["count"] == leaks
    assert data["lengths"]["human_turns"]["maximum"] >= 6
    assert data["languages"]["en"] > 0.8 * data["rows"]


# --- what a run thinks


def loss_of(run: Path, row: Demonstration) -> float:
    """Of the SFT policy, nats a token, by one pass of its own."""
    policy = Policy.load(run / "sft", "sft", "cpu")
    rendered = render(policy.backbone.tokenizer, row.prompt, row.completion)
    with policy.active():
        (logits,) = logits_of(policy.backbone.causal, [rendered.ids])
    start = len(rendered.prompt_ids)
    terms = torch.log_softmax(logits[start - 1 : -1], -1)
    chosen = terms.gather(1, torch.tensor(rendered.completion_ids)[:, None])
    return -float(chosen.mean())


def test_rows_are_ranked_by_reward_and_loss(copy_of_run: CopyOfRun) -> None:
    run = copy_of_run().run
    rows = read_records(run / "demonstrations" / "train.jsonl", Demonstration)
    odd = [
        Demonstration("odd", rows[0].prompt, " zqx zqx zqx"),
        Demonstration("long", rows[0].prompt, " word" * 300),
    ]
    both = rank(run, [*rows, *odd], "both", None)
    assert both.reward == "init-sft"
    assert (both.rows[-1].reward, both.rows[-1].loss, both.rows[-1].place) == (None, None, None)
    assert [each.loss for each in both.rows[:-1]] == pytest.approx(
        [loss_of(run, row) for row in [*rows, odd[0]]], abs=1e-4
    )
    for by, sign in (("loss", -1), ("reward", 1)):
        ranking = rank(run, [*rows, *odd], by, None)
        values = [getattr(each, by) * sign for each in ranking.worst()]
        assert values == sorted(values)
        assert len(values) == len(rows) + 1
    named = rank(run, rows, "reward", "preference")
    assert [each.reward for each in named.rows] != [each.reward for each in both.rows[:-2]]
    means = {each.index: each.place for each in both.rows if each.place is not None}
    by_reward = {each.index: each.place for each in rank(run, [*rows, *odd], "reward", None).rows}
    by_loss = {each.index: each.place for each in rank(run, [*rows, *odd], "loss", None).rows}
    for index, place in means.items():
        one, other = by_reward[index], by_loss[index]
        assert one is not None
        assert other is not None
        assert place == pytest.approx((one + other) / 2)


def test_the_best_are_kept_with_the_test_rows(copy_of_run: CopyOfRun) -> None:
    copied = copy_of_run()
    before = digests(copied.run)
    output = copied.folder / "best.jsonl"
    flags = ["--run", copied.run, "--keep-best", 0.5, "--output", output]
    found = validated(copied.file(), *flags)
    train = read_records(copied.run / "demonstrations" / "train.jsonl", Demonstration)
    test = read_records(copied.run / "demonstrations" / "test.jsonl", Demonstration)
    kept = {row.id for row in read_demonstrations(output).rows}
    gone = lines_of(output.with_name("best.dropped.jsonl"))
    assert len(gone) == len(train) - round(0.5 * len(train))
    assert kept == {row.id for row in [*train, *test]} - {line["id"] for line in gone}
    assert {row.id for row in test} <= kept
    ranking = found["data"]["ranking"]
    assert ranking["rows"] == len(train)
    assert ranking["unranked"] == {"count": 0, "reason": None}
    worst = [each["id"] for each in ranking["worst"]]
    assert set(worst[: len(gone)]) <= {line["id"] for line in gone}
    assert all("not among the best 0.5 by both: init-sft" in line["what"][0] for line in gone)
    assert digests(copied.run) == before


# --- bad input


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--keep-best", 0.8], "--output: needed with --keep-best and --drop"),
        (["--output", "x.jsonl"], "--keep-best or --drop: needed with --output"),
        (["--keep-best", 0.8, "--output", "x.jsonl"], "found 0.8 without --run"),
        (["--keep-best", 80, "--output", "x.jsonl", "--run", "."], "found 80.0 with --run"),
        (["--drop", "bad", "--output", "x.jsonl"], "--drop: must be of duplicate, near-duplicate"),
        (
            ["--drop", "leak", "--output", "x.csv"],
            "--output: must be a new file that ends in .jsonl",
        ),
        (["--run", "nowhere"], "must be the folder of a run"),
        (["--against", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_flags(project: Project, flags: list[object], part: str) -> None:
    assert part in refusal("validate", project.file(), *flags)


def test_unknown_rewards_orders_and_unfinished_runs(copy_of_run: CopyOfRun) -> None:
    copied = copy_of_run()
    recipe, run = copied.file(), ["--run", copied.run]
    assert "--by: must be one of both, reward, loss" in refusal(
        "validate", recipe, *run, "--by", "x"
    )
    text = refusal("validate", recipe, *run, "--selector", "x")
    assert "--selector: must be one of init-sft, preference, found 'x'" in text
    (copied.run / "sft" / "manifest.json").unlink()
    assert "the stage must be finished" in refusal("validate", recipe, *run)
    assert "--run: ranks a recipe's rows" in refusal("validate", copied.data, *run)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "data.jsonl", BAD)
    before = source.read_bytes()
    text = refusal("validate", source, "--drop", "leak", "--output", source)
    assert "--output: must be a new file" in text
    assert source.read_bytes() == before
    assert json.loads(before.split(b"\n")[0]) == BAD[0]
