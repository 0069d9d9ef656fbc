"""`demoalign judge` on a finished run: sides, results, resuming, the key, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.evaluation.judge.pairs import CONTROLS
from demoalign.pipeline import Pipeline
from demoalign.records import Metric
from tests.judges import USAGE, different_letters
from tests.pipeline.conftest import CopyOfRun
from tests.pipeline.runs import (
    Json,
    Project,
    cli,
    digests,
    lines_of,
    refusal,
    stages_done,
)
from tests.rollouts.remote import CANARY, canaries, wait_until
from tests.servers import ROOT, Server, serving

PROMPTS = 6
CONTRACT = {"win", "tie", "lose", "ci95", "flip_rate", "unparseable", "refused", "count"}


@pytest.fixture
def run(copy_of_run: CopyOfRun, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in this test's folder."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return copy_of_run().run


def asked(run: Path, server: Server, *flags: object) -> list[object]:
    """Arguments: demonstrations against the initial policy, unless flags say otherwise."""
    sides = {"--policy": "demonstrations", "--against": "initial", "--controls": 1}
    given = [word for key, value in sides.items() if key not in flags for word in (key, value)]
    address = ["--base-url", server.base_url, "--model", "my/judge"]
    return ["judge", run, *given, *address, *flags, "--json"]


def judged(run: Path, server: Server, *flags: object) -> Json:
    said = cli(*asked(run, server, *flags))
    assert said.status == 0, said.err
    return said.json


def rollouts(run: Path, name: str, stage: str = "rollouts-test") -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for rollout in lines_of(run / stage / f"{name}.jsonl"):
        found.setdefault(rollout["prompt_id"], []).append(rollout)
    return found


def pairs_of(summary: Json, kind: str = "pair") -> list[Json]:
    lines = lines_of(Path(summary["folder"]) / "pairs.jsonl")
    return [line for line in lines if line["kind"] == kind]


# --- what is judged


def test_a_judgement_from_the_command_line_to_the_files(run: Path) -> None:
    before = digests(run)
    with serving(judge="wary") as server:
        said = cli(*asked(run, server, "--price", "2,10"))
        assert said.status == 0, said.err
        count = len(server.bodies())
    summary = said.json
    assert set(summary) >= CONTRACT
    pairs = pairs_of(summary)
    results = [pair["result"] for pair in pairs]
    assert summary["count"] == summary["pairs"] == len(pairs) == PROMPTS
    assert summary["win"] == results.count("win") / PROMPTS
    assert summary["win"] + summary["tie"] + summary["lose"] == pytest.approx(1)
    assert set(summary["ci95"]) >= {"win", "tie", "lose"}
    low, high = summary["ci95"]["win"]
    assert 0 <= low <= summary["win"] <= high <= 1
    assert (summary["policy"], summary["against"]) == ("demonstrations/none/1", "initial/none/1")
    for pair in pairs:
        texts = (pair["first"]["text"], pair["second"]["text"])
        sizes = [different_letters(text) for text in texts]
        expected = "win" if sizes[0] > sizes[1] else "lose" if sizes[0] < sizes[1] else "tie"
        assert pair["result"] == expected
    assert {
        kind: summary["controls"][kind]["passed"]["value"] for kind in CONTROLS
    } == dict.fromkeys(CONTROLS, 1)
    assert count == 2 * (PROMPTS + len(CONTROLS))
    assert summary["cost"]["prompt_tokens"] == count * USAGE["prompt_tokens"]
    assert summary["cost"]["price"] == pytest.approx(count * (100 * 2 + 2 * 10) / 1e6)
    assert "20 requests to make, 0 replies stored" in said.err
    assert "control passed: instruction" in said.err
    folder = Path(summary["folder"])
    assert folder.parent == run / "judge"
    stored = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert stored == {k: v for k, v in summary.items() if k not in ("now", "folder")}
    after = digests(run)
    assert {name: after[name] for name in before} == before, "nothing else of the run is changed"


def test_results_are_metrics_as_everywhere(run: Path) -> None:
    with serving(judge="letters") as server:
        summary = judged(run, server, "--name", "mine")
    results = json.loads((run / "judge" / "mine" / "results.json").read_text(encoding="utf-8"))
    assert (results["schema"], results["run"]) == (1, "small")
    metrics = {m["metric"]: Metric(**m) for m in results["metrics"]}
    for name in ("win", "tie", "lose", "flip_rate", "refused", "unparseable"):
        metric = metrics[f"judge_{name}"]
        assert (metric.policy, metric.selector, metric.n) == ("demonstrations", "none", 1)
        assert metric.against == "initial/none/1"
        assert metric.value == summary[name]
        assert metric.ci95 == tuple(summary["ci95"][name])
    assert (
        metrics["judge_golden_agreement"].value
        == (summary["golden"]["golden"]["agreement"]["value"])
    )
    assert metrics["judge_control_instruction_passed"].value == 0
    assert all((m.value is None) == (m.reason is not None) for m in metrics.values())


def test_agreement_with_the_run_s_golden_reward(run: Path) -> None:
    """Computed again from the files."""
    with serving(judge="letters") as server:
        summary = judged(run, server, "--policy", "sft", "--selector", "length", "--n", 3)
    golden = {
        score["rollout_id"]: score["value"]
        for score in lines_of(run / "evaluation" / "golden.jsonl")
    }
    alike = [
        (golden[pair["first"]["id"]] > golden[pair["second"]["id"]]) == (pair["result"] == "win")
        for pair in pairs_of(summary)
        if pair["result"] in ("win", "lose")
        and golden[pair["first"]["id"]] != golden[pair["second"]["id"]]
    ]
    found = summary["golden"]["golden"]["agreement"]
    assert found["count"] == len(alike) > 0
    assert found["value"] == sum(alike) / len(alike)


def test_agreement_with_every_golden_reward_of_whole_answers(run: Path) -> None:
    path = run / "evaluation" / "golden.jsonl"
    whole = [line for line in lines_of(path) if line["reward_model"] == "golden"]
    more = [{**line, "reward_model": "golden:worse", "value": -line["value"]} for line in whole]
    cut = [{**line, "reward_model": "golden_cut", "value": 0.0} for line in whole]
    text = "".join(json.dumps(line) + "\n" for line in [*whole, *more, *cut])
    path.write_text(text, encoding="utf-8")
    with serving(judge="letters") as server:
        summary = judged(run, server, "--controls", 0)
    shares = {name: found["agreement"] for name, found in summary["golden"].items()}
    assert set(shares) == {"golden", "golden:worse"}
    assert shares["golden"]["value"] == pytest.approx(1 - shares["golden:worse"]["value"])
    stored = json.loads((Path(summary["folder"]) / "results.json").read_text(encoding="utf-8"))
    values = {metric["metric"]: metric["value"] for metric in stored["metrics"]}
    assert values["judge_golden_agreement:worse"] == shares["golden:worse"]["value"]


def test_a_selector_s_choice_among_the_first_n(run: Path) -> None:
    scores = {
        score["rollout_id"]: score["value"]
        for score in lines_of(run / "best-of-n" / "scores.jsonl")
        if score["reward_model"] == "init-sft"
    }
    candidates = rollouts(run, "sft")
    flags = ("--policy", "sft", "--selector", "init-sft", "--against", "sft")
    with serving(judge="letters") as server:
        for n, given in ((2, ("--n", 2)), (4, ())):
            summary = judged(run, server, *flags, "--against-selector", "greedy", *given)
            assert summary["policy"] == f"sft/init-sft/{n}"
            assert summary["against"] == "sft/greedy/1"
            for pair in pairs_of(summary):
                choice = max(candidates[pair["prompt_id"]][:n], key=lambda r: scores[r["id"]])
                assert pair["first"] == {
                    "id": choice["id"],
                    "text": choice["completion"].strip(),
                }
                (greedy,) = rollouts(run, "sft-greedy")[pair["prompt_id"]]
                assert pair["second"]["id"] == greedy["id"]


def test_answers_that_are_one_text_are_a_tie_and_are_not_asked(run: Path) -> None:
    path = run / "rollouts-test" / "initial.jsonl"
    lines = lines_of(path)
    wanted = {
        line["id"]: line["completion"] for line in lines_of(run / "demonstrations" / "test.jsonl")
    }
    for line in lines[:4]:  # two prompts of two samples
        line["completion"] = f"\n{wanted[line['prompt_id']]} "
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with serving(judge="first") as server:
        summary = judged(run, server, "--controls", 0)
        assert len(server.bodies()) == 2 * (PROMPTS - 2)
    assert summary["counts"]["identical"] == 2
    assert (summary["tie"], summary["flip_rate"], summary["count"]) == (1, 1, PROMPTS)


@pytest.mark.parametrize("name", ["nonsense", "refusing"])
def test_without_a_verdict_there_is_no_result(run: Path, name: str) -> None:
    with serving(judge=name) as server:
        summary = judged(run, server)
    key = {"nonsense": "unparseable", "refusing": "refused"}[name]
    assert (summary["win"], summary["tie"], summary["lose"]) == (None, None, None)
    assert (summary[key], summary["count"], summary["counts"][key]) == (1, 0, PROMPTS)
    assert "no pair was judged" in summary["reason"]


def test_the_estimate_asks_and_writes_nothing(run: Path) -> None:
    before = digests(run)
    with serving(judge="letters") as server:
        estimate = judged(run, server, "--estimate", "--prompts", 2)["estimate"]
        assert server.bodies() == []
    assert (estimate["requests"], estimate["stored"]) == (2 * (2 + 4), 0)
    assert estimate["price"] is None
    assert digests(run) == before


# --- where settings come from


def test_the_recipe_names_the_judge_and_flags_override(
    finished: Project, run: Path, tmp_path: Path
) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("Q {conversation} 1 {answer_a} 2 {answer_b}", encoding="utf-8")
    with serving(judge="first") as server:
        section = {
            "base_url": server.base_url,
            "model": "from-the-recipe",
            "template": str(template),
            "prompts": 2,
            "controls": 0,
        }
        changes = {"output": str(run.parent), "evaluation.judge": section}
        recipe = Project(tmp_path, finished.plain).file(changes)
        sides = ("--policy", "sft", "--against", "initial")
        said = cli("judge", recipe, *sides, "--json")
        assert said.status == 0, said.err
        assert said.json["pairs"] == 2
        assert said.json["judge"]["template"].startswith("Q {conversation}")
        assert {body["model"] for body in server.bodies()} == {"from-the-recipe"}
        assert all(body["messages"][0]["content"][:2] == "Q " for body in server.bodies())
        flags = ("--model", "from-a-flag", "--set", "evaluation.judge.max_tokens=7")
        said = cli("judge", recipe, *sides, *flags, "--prompts", 1, "--json")
        assert said.status == 0, said.err
        last = server.bodies()[-1]
    assert (said.json["pairs"], last["model"], last["max_tokens"]) == (1, "from-a-flag", 7)


def test_a_judge_in_the_recipe_runs_no_stage_again(copy_of_run: CopyOfRun) -> None:
    copied = copy_of_run()
    section = {"base_url": "http://localhost:1/v1", "model": "j"}
    again = copied.recipe({"evaluation.judge": section})
    assert stages_done(Pipeline(again).advance("evaluation")) == []


# --- nothing is paid for twice, the key is nowhere


def test_the_same_command_again_asks_nothing_and_says_the_same(run: Path) -> None:
    with serving(judge="letters") as server:
        first = judged(run, server)
        count = len(server.bodies())
        again = judged(run, server)
        # the controls are those of every comparison of this run
        other = judged(run, server, "--policy", "sft")
        assert len(server.bodies()) == count + 2 * PROMPTS
    assert again == {**first, "now": again["now"]}
    assert again["now"]["replies"] == 0
    assert other["now"]["replies"] == 2 * PROMPTS
    assert other["folder"] != first["folder"]


JUDGE = "import sys; from demoalign.cli import main; main(sys.argv[1:])"


def test_a_kill_loses_nothing_that_was_answered(run: Path) -> None:
    """One request hangs while all others are answered, then the process is killed."""
    total = 2 * (PROMPTS + len(CONTROLS))
    responses = run / "judge" / "responses.jsonl"
    with serving({"*": [{}] * 7 + [{"hang": True}]}, judge="letters") as server:
        arguments = [str(word) for word in asked(run, server, "--concurrency", 2)]
        process = subprocess.Popen(
            [sys.executable, "-c", JUDGE, *arguments],
            env={**os.environ, KEY_VARIABLE: CANARY},
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: responses.is_file() and len(lines_of(responses)) >= 8)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = len(lines_of(responses))
        before = len(server.bodies())
        assert not (run / "judge" / "results.json").exists()
        server.release()
        summary = judged(run, server)
        assert len(server.bodies()) - before == total - stored
        assert summary["now"]["replies"] == total - stored
        assert summary["cost"]["replies"] == total
    with serving(judge="letters") as server:
        shutil.rmtree(run / "judge")
        fresh = judged(run, server)
    assert {key: summary[key] for key in CONTRACT} == {key: fresh[key] for key in CONTRACT}


def test_the_key_is_in_no_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY)
    fault = {"status": 503, "message": "{Authorization}", "headers": {"Retry-After": "0"}}
    with serving({"*": [fault]}, judge="letters") as server:
        said = cli(*asked(run, server))
        assert said.status == 0
        assert {each["key"] for each in server.noted()["requests"]} == {f"Bearer {CANARY}"}
    assert CANARY not in said.out + said.err
    assert cli("report", run).status == 0
    assert canaries(run) == []
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "What a judge says" in report
    assert "Demonstrations vs Initial policy" in report
    assert "Of answers that the run no longer holds" not in report


# --- bad input


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--policy", "sfd"], ["--policy", "initial", "demonstrations", "found 'sfd'", "'sft'?"]),
        (["--against", "x"], ["--against: must be one of", "found 'x'"]),
        (
            ["--policy", "sft", "--selector", "init-sfd"],
            ["--selector", "greedy", "preference", "did you mean 'init-sft'?"],
        ),
        (["--against-selector", "greedy"], ["--against-selector", "initial must be decoded by"]),
        (["--selector", "length"], ["--selector", "demonstrations must be decoded by", "'length'"]),
        (
            ["--policy", "sft", "--selector", "length", "--n", 5],
            ["--n: must be between 1 and the 4 samples", "found 5", "evaluation.n"],
        ),
        (["--policy", "sft", "--n", 4], ["--n: must be 1 where no selector chooses", "--selector"]),
        (["--against-n", 2], ["--against-n: must be 1"]),
        (["--policy", "initial"], ["--against: must be another side", "initial/none/1 twice"]),
        (["--template", "nowhere.txt"], ["evaluation.judge.template", "nowhere.txt"]),
        (["--price", "cheap"], ["--price", "found 'cheap'"]),
        (["--price", "-1,2"], ["evaluation.judge.price.input", "found -1"]),
        (["--base-url", "ftp://x"], ["evaluation.judge.base_url", "found 'ftp://x'"]),
        (["--base-url", "https://me:secret@x/v1"], ["must have no user, password"]),
        (["--name", "../up"], ["--name", "found '../up'"]),
        (["--set", "sft.epochs=3"], ["--set sft.epochs=3", "evaluation.judge."]),
        (["--set", "evaluation.judge.modl=x"], ["unknown key; did you mean 'model'?"]),
        (
            ["--set", "evaluation.judge.parameters={model: x}"],
            ["evaluation.judge.parameters: parameters must not hold", "found model"],
        ),
        (
            ["--set", "evaluation.judge.parameters={api_key: sk-x}"],
            ["evaluation.judge.parameters: parameters must hold no key", "OPENAI_API_KEY"],
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_input(finished: Project, flags: list[object], parts: list[str]) -> None:
    before = digests(finished.run)
    arguments = asked(finished.run, Server("http://localhost:1/v1"), *flags)
    text = refusal(*arguments)
    for part in parts:
        assert part in text, text
    assert "secret" not in text
    assert "sk-x" not in text
    assert digests(finished.run) == before


def test_a_template_without_placeholders(finished: Project, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Which one?", encoding="utf-8")
    arguments = asked(finished.run, Server("http://localhost:1/v1"), "--template", path)
    assert "must hold {conversation}, {answer_a}, {answer_b}, found none" in refusal(*arguments)


def test_nobody_is_named_to_judge(finished: Project) -> None:
    sides = ("--policy", "sft", "--against", "initial")
    assert "--base-url and --model: needed" in refusal("judge", finished.run, *sides)
    only = refusal("judge", finished.run, *sides, "--model", "x")
    assert "evaluation.judge.base_url: required" in only


def test_a_folder_that_is_no_run_and_a_run_that_is_not_finished(run: Path, tmp_path: Path) -> None:
    nobody = Server("http://localhost:1/v1")
    (tmp_path / "empty").mkdir()
    assert "found no recipe.yaml" in refusal(*asked(tmp_path / "empty", nobody))
    (run / "rollouts-test" / "manifest.json").unlink()
    assert "the stage must be finished" in refusal(*asked(run, nobody))
    assert not (run / "judge").exists()


def test_a_missing_key_loses_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(judge="letters", needs_key=True) as server:
        text = refusal(*asked(run, server))
        assert "Set OPENAI_API_KEY to a key that the server accepts; none is set." in text
        monkeypatch.setenv(KEY_VARIABLE, CANARY)
        assert judged(run, server)["count"] == PROMPTS


def test_another_process_judges_this_run(run: Path) -> None:
    (run / "judge").mkdir()
    (run / "judge" / ".lock").write_text(str(os.getppid()), encoding="utf-8")
    with serving(judge="letters") as server:
        assert "another process" in refusal(*asked(run, server))
        assert server.bodies() == []
