"""Whole runs whose policies are asked on a server, and what `validate` says of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.pipeline import Pipeline
from tests.conftest import ModelFolder
from tests.pipeline.runs import (
    Project,
    cli,
    lines_of,
    make_project,
    metrics_of,
    refusal,
    stages_done,
)
from tests.servers import Server, closed_port, serving

CANARY = "sk-canary-0123456789"
HEADS = [{"model": "head"}, {"epochs": 1, "positives": "demonstrations"}]
BASELINES = {"mean-logprob", "sequence-logprob"}


def served_project(folder: Path, base: Path, base_url: str, **changes: Any) -> Project:
    endpoint = {"base_url": base_url, "samples_per_request": 2, "retries": 1, "logprobs": False}
    served = {"rollouts__engine": "openai", "rollouts__endpoint": endpoint}
    return make_project(folder, base, **{**served, "reward": HEADS, **changes})


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder
) -> Iterator[tuple[Project, Server]]:
    """A finished run and its server, which loaded the SFT policy from the run once it was there."""
    folder, base = tmp_path_factory.mktemp("served"), model_folder("llama", "bos")
    place = folder / "runs" / "small" / "sft"
    with (
        serving(folders={"initial": base, "sft": place}) as server,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv(KEY_VARIABLE, CANARY)
        project = served_project(folder, base, server.base_url)
        said = cli("run", project.file(), "--json")
        assert said.status == 0, said.err
        assert CANARY not in said.out + said.err
        yield project, server


def test_a_run_from_recipe_to_report(served: tuple[Project, Server]) -> None:
    project, server = served
    asked = {body["model"] for body in server.bodies()}
    assert asked == {"initial", "sft"}
    rollouts = project.run / "rollouts"
    assert len(lines_of(rollouts / "initial.jsonl")) == len(lines_of(rollouts / "sft.jsonl")) == 18
    assert len(lines_of(project.run / "rollouts-test" / "sft.jsonl")) == 6 * 4
    assert not list(project.run.rglob("responses.jsonl")), "answers are kept until they are stored"
    assert (project.run / "report.html").is_file()


def test_the_key_is_nowhere_in_the_run(served: tuple[Project, Server]) -> None:
    project, server = served
    assert {each["key"] for each in server.noted()["requests"]} == {f"Bearer {CANARY}"}
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


def test_selectors_without_logprobs_are_null_with_a_reason(
    served: tuple[Project, Server],
) -> None:
    project, _ = served
    candidates = lines_of(project.run / "rollouts-test" / "sft.jsonl")
    assert {rollout["logprob"] for rollout in candidates} == {None}
    chosen = lines_of(project.run / "best-of-n" / "chosen.jsonl")
    assert {choice["selector"] for choice in chosen} == {"init-sft", "init-demo", "length"}
    for name in ("golden_reward", "completion_tokens"):
        found = [m for m in metrics_of(project.run, name) if m["selector"] in BASELINES]
        assert {(m["selector"], m["n"]) for m in found} == {
            (selector, n) for selector in BASELINES for n in (1, 2, 4)
        }
        for metric in found:
            assert metric["value"] is None
            assert "of 24 of 24 candidates is not known" in metric["reason"]
    report = (project.run / "report.html").read_text(encoding="utf-8")
    assert "not measured for mean-logprob and sequence-logprob: the log-probability of 24 of" in (
        " ".join(report.split())
    )


def test_a_finished_run_asks_nothing_and_how_hard_it_presses_does_not_matter(
    served: tuple[Project, Server],
) -> None:
    project, server = served
    before = len(server.bodies())
    again = project.recipe({"rollouts.endpoint.concurrency": 3, "rollouts.endpoint.timeout": 9})
    assert stages_done(Pipeline(again).advance()) == []
    assert len(server.bodies()) == before
    other = project.recipe({"rollouts.endpoint.models": {"sft": "other"}})
    current = dict(Pipeline(other).plan())
    assert current["sft"]
    assert not current["rollouts"]


def test_what_was_answered_before_a_failure_is_kept(
    tmp_path: Path, model_folder: ModelFolder
) -> None:
    """The run stops where the server refuses, and goes on from there."""
    refused = {"status": 404, "message": "The model does not exist."}
    with serving({"*": [{}] * 9 + [refused]}) as server:
        endpoint = {"base_url": server.base_url, "concurrency": 1}
        base = model_folder("llama", "bos")
        small = served_project(tmp_path, base, server.base_url, rollouts__endpoint=endpoint)
        message = refusal("run", small.file())
        assert "(model 'initial'): status 404: The model does not exist. Check" in message
        assert "9 of 18 completions had come" in message
        Pipeline(small.recipe()).advance("rollouts")
        assert len(server.bodies()) == 10 + 9 + 18


# --- validate


@pytest.fixture
def project(tmp_path: Path, model_folder: ModelFolder) -> Project:
    nobody = f"http://127.0.0.1:{closed_port()}/v1"
    return served_project(tmp_path, model_folder("llama", "bos"), nobody)


def at(server: Server) -> dict[str, Any]:
    return {"rollouts.endpoint.base_url": server.base_url}


def warnings_of(project: Project, server: Server) -> str:
    said = cli("validate", project.file(at(server)), "--json")
    assert said.status == 0, said.err
    return "\n".join(said.json["warnings"])


def test_validate_says_that_nobody_answers(project: Project) -> None:
    message = refusal("validate", project.file())
    assert "rollouts.endpoint.base_url: http://127.0.0.1:" in message
    assert "must answer, found ConnectError" in message
    assert "Start the server" in message


def test_validate_finds_both_policies(project: Project) -> None:
    with serving() as server:
        assert "127.0.0.1" not in warnings_of(project, server)


def test_validate_says_that_the_sft_policy_is_not_served_yet(project: Project) -> None:
    with serving(models=["initial"]) as server:
        found = warnings_of(project, server)
    assert "does not serve 'sft' yet" in found
    assert str(project.run / "sft") in found


def test_validate_says_that_a_model_is_unknown(project: Project) -> None:
    with serving(models=["base-initial", "llama"]) as server:
        message = refusal("validate", project.file(at(server)))
    assert "rollouts.endpoint.models.initial: must be a model that" in message
    assert "found 'initial'; it has 2, such as base-initial. Serve" in message


def test_validate_wants_the_sft_policy_once_it_is_trained(served: tuple[Project, Server]) -> None:
    finished, server = served
    assert "127.0.0.1" not in "\n".join(
        cli("validate", finished.file(name="again.yaml"), "--json").json["warnings"]
    )
    with serving(models=["initial"]) as without:
        message = refusal("validate", finished.file(at(without), name="other.yaml"))
    assert "rollouts.endpoint.models.sft: must be a model that" in message
    assert server.base_url not in message


@pytest.mark.parametrize("models", [None, 500])
def test_validate_warns_where_no_list_is_offered(project: Project, models: int | None) -> None:
    with serving(models=models) as server:
        assert "offers no list of its models" in warnings_of(project, server)


def test_validate_says_that_the_key_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY)
    with serving(models=401) as server:
        message = refusal("validate", project.file(at(server)))
    assert "status 401: said Bearer [key]. Set OPENAI_API_KEY" in message
    assert CANARY not in message
