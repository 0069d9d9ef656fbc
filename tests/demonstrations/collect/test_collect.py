"""`demoalign collect` against a server on the loopback address, well-behaved and hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demoalign.config import CollectConfig
from demoalign.demonstrations import read_demonstrations
from demoalign.demonstrations.collect.asking import IN_A_ROW, IN_A_ROW_AT_FIRST
from demoalign.demonstrations.collect.server import Collection
from demoalign.demonstrations.collect.template import PAPER
from demoalign.endpoints.advice import KEY_VARIABLE
from tests.demonstrations.files import jsonl
from tests.demonstrators import COMPLETION_TOKENS, MODEL, answer_to, prompt_tokens
from tests.pipeline.runs import Json, cli, lines_of, refusal
from tests.rollouts.remote import CANARY, Pauses, canaries
from tests.servers import Server, closed_port, serving

NOBODY = Server("http://localhost:1/v1")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def human(text: str) -> str:
    return f"\n\nHuman: {text}\n\nAssistant:"


def words(folder: Path, server: Server, prompts: list[Any], *flags: object) -> list[object]:
    """The command for prompts given as texts or rows."""
    source = jsonl(folder / "prompts.jsonl", prompts)
    address = ["--base-url", server.base_url, "--model", "d"]
    output = ["--output", folder / "rows.jsonl"]
    return ["collect", "--prompts", source, *output, *address, *flags, "--json"]


def collected(folder: Path, server: Server, prompts: list[Any], *flags: object) -> Json:
    said = cli(*words(folder, server, prompts, *flags))
    assert said.status == 0, said.err
    return said.json


def rows(folder: Path) -> list[Json]:
    return lines_of(folder / "rows.jsonl")


def missing(folder: Path) -> dict[str, Json]:
    return {line["where"]: line for line in lines_of(folder / "rows.rejected.jsonl")}


def collection(folder: Path, server: Server, prompts: list[Any], **changes: Any) -> Collection:
    source = jsonl(folder / "prompts.jsonl", prompts)
    keys = ("concurrency", "retries", "price", "max_tokens", "temperature", "parameters")
    own = {key: changes.pop(key) for key in keys if key in changes}
    plain = {"base_url": server.base_url, "model": "d", "concurrency": 2, "retries": 2, **own}
    output = str(folder / "rows.jsonl")
    config = CollectConfig.model_validate(
        {"prompts": str(source), "output": output, "server": plain, **changes}
    )
    assert config.server is not None
    return Collection(config, config.server, Pauses().backoff)


# --- a server that answers


def test_from_prompts_to_demonstrations_that_read_back(tmp_path: Path) -> None:
    prompts: list[Any] = [
        {"prompt": human("Why is lamp 1 off?"), "source": "book", "id": "a"},
        {"prompt": [{"role": "user", "content": "Why 2?"}]},
        {"chosen": human("Why 3?") + " x", "rejected": human("Why 3?") + " y"},
        "Why 4?",
    ]
    with serving(demonstrator=True) as server:
        flags = ("--price", "2,10", "--temperature", "0.5", "--max-tokens", 99)
        said = cli(*words(tmp_path, server, prompts, *flags))
        assert said.status == 0, said.err
        bodies = {body["messages"][-1]["content"]: body for body in server.bodies()}
    questions = [
        PAPER.replace("{prompt}", human(text))
        for text in ("Why is lamp 1 off?", "Why 2?", "Why 3?", "Why 4?")
    ]
    assert PAPER.startswith("### Here is a chat log between Human and an AI Assistant. Complete")
    assert set(bodies) == set(questions)
    for body in bodies.values():
        assert len(body["messages"]) == 1
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("d", 0.5, 99)
    read = read_demonstrations(tmp_path / "rows.jsonl").rows
    assert [row.prompt for row in read] == [
        prompts[0]["prompt"], prompts[1]["prompt"], human("Why 3?"), "Why 4?",
    ]  # fmt: skip
    answers = [answer_to(question) for question in questions]
    assert [row.completion for row in read] == [
        " " + answers[0], answers[1], " " + answers[2], " " + answers[3],
    ]  # fmt: skip
    assert read[0].id == "a"
    assert read[0].meta["source"] == "book"
    about = read[0].meta["collected"]
    assert about == {
        "model": "d",
        "answered_by": MODEL,
        "base_url": server.base_url,
        "template": "paper",
        "template_digest": about["template_digest"],
        "parameters": {"temperature": 0.5, "max_tokens": 99},
        "time": about["time"],
        "finish_reason": "stop",
        "prompt_tokens": prompt_tokens(questions[0]),
        "completion_tokens": COMPLETION_TOKENS,
    }
    assert about["time"].startswith("20")
    cost = sum(2 * prompt_tokens(q) + 10 * COMPLETION_TOKENS for q in questions) / 1e6
    summary = said.json
    assert summary["cost"]["price"] == pytest.approx(cost)
    assert (summary["rows"], summary["missing"], summary["stopped"]) == (4, 0, None)
    assert summary["template"]["text"] == PAPER
    assert "4 requests to make, 0 replies stored" in said.err
    assert json.loads((tmp_path / "rows.summary.json").read_text(encoding="utf-8")) == summary


def test_every_prompt_without_a_demonstration_has_a_reason_and_is_not_asked_again(
    tmp_path: Path,
) -> None:
    prompts = [
        human(text)
        for text in (
            "Fine?",
            "[filter]",
            "[policy]",
            "[odd]",
            "[refuses]",
            "[empty]",
            "[cut]",
            "[short]",
            "[long]",
            "x" * 300,
            "Fine?",
            "[declines]",
        )
    ]
    flags = ("--min-characters", 4, "--max-characters", 300, "--max-prompt-characters", 200)
    with serving(demonstrator=True) as server:
        summary = collected(tmp_path, server, prompts, *flags, "--refusals", "reject")
        asked = len(server.bodies())
        again = collected(tmp_path, server, prompts, *flags, "--refusals", "reject")
        assert len(server.bodies()) == asked == len(prompts) - 2
    assert [row["prompt"] for row in rows(tmp_path)] == [human("Fine?")]
    kinds = {where: line["kind"] for where, line in missing(tmp_path).items()}
    assert kinds == {
        "prompts.jsonl:2": "filtered",
        "prompts.jsonl:3": "filtered",
        "prompts.jsonl:4": "filtered",
        "prompts.jsonl:5": "refused",
        "prompts.jsonl:6": "empty",
        "prompts.jsonl:7": "cut",
        "prompts.jsonl:8": "too short",
        "prompts.jsonl:9": "too long",
        "prompts.jsonl:10": "prompt too long",
        "prompts.jsonl:11": "repeated",
        "prompts.jsonl:12": "refused",
    }
    what = {where: line["what"] for where, line in missing(tmp_path).items()}
    assert "content filter" in what["prompts.jsonl:2"]
    assert "flagged" in what["prompts.jsonl:3"]
    assert "no such words here" in what["prompts.jsonl:4"]
    assert "Not that." in what["prompts.jsonl:5"]
    assert "at least 4 characters (min_characters), found 3" in what["prompts.jsonl:8"]
    assert "found the prompt of prompts.jsonl:1 again" in what["prompts.jsonl:11"]
    assert missing(tmp_path)["prompts.jsonl:2"]["row"]["prompt"] == human("[filter]")
    assert summary["rows"] + summary["missing"] == summary["prompts"] == len(prompts)
    assert (summary["unanswered"], again["now"]["replies"]) == (0, 0)


def test_by_default_words_that_decline_and_long_answers_are_kept(tmp_path: Path) -> None:
    prompts = [human("[declines]"), human("[long]"), human("[short]")]
    with serving(demonstrator=True) as server:
        assert collected(tmp_path, server, prompts)["rows"] == 3


def test_a_dialogue_is_completed_by_one_turn(tmp_path: Path) -> None:
    with serving(demonstrator=True) as server:
        collected(tmp_path, server, [human("[goes on]")])
        assert rows(tmp_path)[0]["completion"] == " Fine."
        (tmp_path / "rows.jsonl").unlink()
        (tmp_path / "rows.replies.jsonl").unlink()
        collected(tmp_path, server, [human("[goes on]")], "--template", "none")
    said = rows(tmp_path)[0]["completion"]
    assert said.startswith(" Assistant: Fine."), "as it was said, where no dialogue was asked for"


def test_templates_of_one_s_own_and_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Write {{well}}. {prompt} Go on.", encoding="utf-8")
    chat = [{"role": "system", "content": "Be {prompt}."}, {"role": "user", "content": "Hi"}]
    with serving(demonstrator=True) as server:
        collected(tmp_path, server, ["Why {prompt}?"], "--template", path)
        assert server.bodies()[-1]["messages"] == [
            {"role": "user", "content": f"Write {{well}}. {human('Why {prompt}?')} Go on."}
        ]
        collected(tmp_path, server, [chat], "--template", "none")
        assert server.bodies()[-1]["messages"] == chat
    path.write_text("Go on.", encoding="utf-8")
    text = refusal(*words(tmp_path, NOBODY, ["x"], "--template", path))
    assert "collect.template" in text
    assert "must hold {prompt}, found none" in text
    path.write_text("{promt} {prompt}", encoding="utf-8")
    assert "did you mean {prompt}?" in refusal(*words(tmp_path, NOBODY, ["x"], "--template", path))


# --- a server that does not


def test_a_prompt_that_the_server_keeps_failing_on_is_left_for_later(tmp_path: Path) -> None:
    prompts = [human("Fine 1?"), human("[broken]"), human("Fine 2?")]
    with serving(demonstrator=True) as server:
        said = cli(*words(tmp_path, server, prompts, "--retries", 0))
        assert said.status == 1
        summary = said.json
        assert (summary["rows"], summary["unanswered"], summary["stopped"]) == (2, 1, None)
        line = missing(tmp_path)["prompts.jsonl:2"]
        assert line["kind"] == "no answer"
        assert "given up after 1 tries, the last: status 500: out of memory" in line["what"]
        assert "1 prompts have no answer yet; run the same command again" in said.err
        before = len(server.bodies())
        cli(*words(tmp_path, server, prompts, "--retries", 0))
        assert len(server.bodies()) == before + 1


def test_a_server_that_is_not_there_ends_it_soon(tmp_path: Path) -> None:
    server = Server(f"http://127.0.0.1:{closed_port()}/v1")
    prompts = [human(str(i)) for i in range(50)]
    found = collection(tmp_path, server, prompts, retries=1).collect()
    assert "ConnectError" in found["stopped"]
    assert found["reasons"]["no answer"] <= IN_A_ROW_AT_FIRST + 2
    assert found["reasons"]["no answer"] + found["reasons"]["not asked"] == 50
    assert rows(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "Set OPENAI_API_KEY"), (404, "--model"), (403, "OPENAI_API_KEY")]
)
def test_a_refusal_of_all_ends_it_at_once(tmp_path: Path, status: int, advice: str) -> None:
    prompts = [human(str(i)) for i in range(20)]
    faults: dict[str, list[Json]] = {"*": [{}] * 4 + [{"status": status, "message": "no"}] * 99}
    with serving(faults, judge="refusing") as server:
        found = collection(tmp_path, server, prompts).collect()
        assert len(server.bodies()) <= 4 + 2
    assert f"status {status}: no" in found["stopped"]
    assert advice in found["stopped"]
    assert found["rows"] == 4
    assert found["unanswered"] == 16


def test_settings_that_a_server_refuses_are_not_taken_for_refused_texts(tmp_path: Path) -> None:
    prompts = [human(f"[odd] {i}") for i in range(50)]
    with serving(demonstrator=True) as server:
        found = collection(tmp_path, server, prompts).collect()
        asked = len(server.bodies())
        assert IN_A_ROW_AT_FIRST <= asked <= IN_A_ROW_AT_FIRST + 2
        assert "status 400: no such words here" in found["stopped"]
        assert "collect.server" in found["stopped"]
        collection(tmp_path, server, prompts).collect()
        assert len(server.bodies()) > asked, "nothing was settled"


def test_many_refusals_in_a_row_are_not_about_their_texts(tmp_path: Path) -> None:
    prompts = [human("Fine?"), *(human(f"[odd] {i}") for i in range(50))]
    with serving(demonstrator=True) as server:
        found = collection(tmp_path, server, prompts, concurrency=1).collect()
        assert len(server.bodies()) == 1 + IN_A_ROW
    assert found["reasons"] == {"not asked": 50 - IN_A_ROW, "no answer": IN_A_ROW}


def test_the_server_s_rest_is_kept_by_all(tmp_path: Path) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "7"}, "message": "slow down"}
    prompts = [human(str(i)) for i in range(6)]
    found = collection(tmp_path, NOBODY, prompts)
    pauses = Pauses()
    with serving({"*": [busy]}, demonstrator=True) as server:
        found = collection(tmp_path, server, prompts, concurrency=1)
        found._backoff = pauses.backoff
        summary = found.collect()
    assert (summary["rows"], summary["now"]["asked_again"]) == (6, 1)
    assert len(pauses.made) == 6, "the refused request, and each that would have come next"
    assert all(6 <= pause <= 8 for pause in pauses.made)


# --- cost


def test_the_estimate_asks_and_writes_nothing(tmp_path: Path) -> None:
    prompts = [human("a" * 400), human("b" * 400)]
    with serving(demonstrator=True) as server:
        flags = ("--estimate", "--price", "1,2", "--max-tokens", 50)
        estimate = collected(tmp_path, server, prompts, *flags)["estimate"]
        assert server.bodies() == []
    assert (estimate["requests"], estimate["stored"]) == (2, 0)
    assert estimate["completion_tokens"] == 100
    assert estimate["price"] == pytest.approx((estimate["prompt_tokens"] + 200) / 1e6)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("told", [True, False])
def test_the_cap_is_never_passed_and_can_be_raised(
    tmp_path: Path, concurrency: int, told: bool
) -> None:
    """Where the server tells no usage, a reply counts as the most that it can have cost."""
    mark = "" if told else "[untold] "
    prompts = [human(f"{mark}{i:02}" + "a" * 200) for i in range(30)]
    settings = {"price": {"input": 1e6, "output": 1e6}, "max_tokens": 20}
    settings |= {"concurrency": concurrency}
    with serving(demonstrator=True) as server:
        found = collection(tmp_path, server, prompts, max_cost=1500, **settings).collect()
        answered = [body["messages"][-1]["content"] for body in server.bodies()]
        real = sum(prompt_tokens(text) + COMPLETION_TOKENS for text in answered)
        assert real <= 1500
        assert found["capped"]
        assert found["unanswered"] == 30 - len(answered)
        if told:
            assert found["cost"]["price"] == pytest.approx(real)
            worst = max(len(text) for text in answered) + 16 + 20
            assert real > 1500 - worst, "and nearly used up"
        assert 0 < len(answered) < 30
        again = collection(tmp_path, server, prompts, max_cost=1500, **settings).collect()
        assert len(server.bodies()) == len(answered), "earlier attempts count"
        assert again["rows"] == found["rows"]
        whole = collection(tmp_path, server, prompts, max_cost=30_000, **settings).collect()
        assert len(server.bodies()) == 30
    assert (whole["rows"], whole["unanswered"], whole["capped"]) == (30, 0, False)


def test_a_cap_that_is_reached_is_told(tmp_path: Path) -> None:
    prompts = [human("a" * 400), human("b" * 400)]
    flags = ("--price", "1e6,1e6", "--max-tokens", 5, "--max-cost", 1)
    with serving(demonstrator=True) as server:
        said = cli(*words(tmp_path, server, prompts, *flags))
        assert server.bodies() == []
    assert said.status == 1
    assert "the cost cap would be passed (max_cost)" in said.err


# --- settings, the key, two processes


def test_a_recipe_names_everything_and_flags_override(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "p.jsonl", ["Why?"])
    recipe = tmp_path / "recipe.yaml"
    with serving(demonstrator=True) as server:
        recipe.write_text(
            f"""
name: mine
model: {{base: none}}
demonstrations: {{source: {tmp_path / "out.jsonl"}}}
collect:
  prompts: {source}
  output: {tmp_path / "out.jsonl"}
  server: {{base_url: "{server.base_url}", model: from-the-recipe, parameters: {{top_p: 0.9}}}}
""",
            encoding="utf-8",
        )
        said = cli("collect", "--recipe", recipe, "--json")
        assert said.status == 0, said.err
        body = server.bodies()[-1]
        assert (body["model"], body["top_p"], body["max_tokens"]) == ("from-the-recipe", 0.9, 1024)
        assert "temperature" not in body
        flags = ("--model", "from-a-flag", "--set", "collect.server.max_tokens=null")
        said = cli("collect", "--recipe", recipe, *flags)
        assert said.status == 0, said.err
        body = server.bodies()[-1]
    assert (body["model"], "max_tokens" in body) == ("from-a-flag", False)
    (row,) = lines_of(tmp_path / "out.jsonl")
    assert row["meta"]["collected"]["parameters"] == {"top_p": 0.9}


def test_the_key_is_sent_and_stands_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, CANARY)
    fault = {"status": 418, "message": "you said {Authorization}"}
    with serving({"*": [{}, fault]}, demonstrator=True) as server:
        said = cli(*words(tmp_path, server, ["Why 1?", "Why 2?", "3"], "--concurrency", 1))
        assert {each["key"] for each in server.noted()["requests"]} == {f"Bearer {CANARY}"}
    assert "you said Bearer [key]" in said.err
    assert CANARY not in said.out + said.err
    assert canaries(tmp_path) == []


def test_two_at_once_would_pay_twice(tmp_path: Path) -> None:
    (tmp_path / ".rows.jsonl.lock").write_text("1", encoding="utf-8")
    text = refusal(*words(tmp_path, NOBODY, ["x"]))
    assert "another process (1) works in this output" in text


def test_a_folder_of_collected_files_is_read_without_what_stands_beside(tmp_path: Path) -> None:
    with serving(demonstrator=True) as server:
        collected(tmp_path / "d", server, ["Why 1?", human("[empty]")])
    (tmp_path / "d" / "prompts.jsonl").unlink()
    assert len(read_demonstrations(tmp_path / "d")) == 1


# --- bad input


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--base-url", "ftp://x"], ["collect.server.base_url", "found 'ftp://x'"]),
        (["--policy", "somewhere"], ["collect: one of server", "found both"]),
        (["--max-cost", 5], ["collect: max_cost needs server.price and server.max_tokens"]),
        (["--price", "cheap"], ["--price", "found 'cheap'"]),
        (["--max-characters", 3, "--min-characters", 4], ["max_characters must be at least"]),
        (["--refusals", "maybe"], ["collect.refusals", "found 'maybe'"]),
        (["--set", "collect.sever=1"], ["collect.sever: unknown key; did you mean 'server'?"]),
        (
            ["--set", "collect.server.parameters={api_key: sk-x}"],
            ["must hold no key", "OPENAI_API_KEY"],
        ),
        (["--output", "rows.csv"], ["collect.output", "found 'rows.csv'"]),
        (["--prompts", "nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_input(tmp_path: Path, flags: list[object], parts: list[str]) -> None:
    text = refusal(*words(tmp_path, NOBODY, ["x"], *flags))
    for part in parts:
        assert part in text, text
    assert "sk-x" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_nobody_is_named(tmp_path: Path) -> None:
    text = refusal("collect", "--prompts", "p.jsonl", "--output", tmp_path / "o.jsonl")
    assert "one of server (base_url and model) and policy (a folder) must be set" in text
    assert "collect.prompts: required" in refusal("collect", "--output", tmp_path / "o.jsonl")


def test_prompts_that_cannot_be_read(tmp_path: Path) -> None:
    rows_ = ["Why?", {"prompt": ""}, {"question": "x"}, 7, {"prompt": [{"role": "assistant"}]}]
    text = refusal(*words(tmp_path, NOBODY, rows_))
    assert "4 of 5 rows hold no prompt" in text
    assert "prompts.jsonl:3: prompt: is missing; the row has question" in text
    with serving(demonstrator=True) as server:
        summary = collected(tmp_path, server, rows_, "--skip-invalid")
    assert (summary["rows"], summary["reasons"]) == (1, {"unreadable": 4})
    text = refusal(*words(tmp_path, NOBODY, [{"prompt": " "}], "--skip-invalid"))
    assert "1 of 1 rows hold no prompt" in text


def test_what_was_not_collected_is_not_written_over(tmp_path: Path) -> None:
    mine = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}])
    before = mine.read_bytes()
    assert "collect.output: must be new" in refusal(*words(tmp_path, NOBODY, ["x"]))
    assert mine.read_bytes() == before
