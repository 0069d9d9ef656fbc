"""The bar: 1,000 prompts, a server that fails one call in five, a process that is killed thrice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from demoalign.endpoints.advice import KEY_VARIABLE
from tests.demonstrations.files import jsonl
from tests.demonstrators import answer_to, last_question
from tests.pipeline.runs import lines_of
from tests.rollouts.remote import CANARY, canaries, wait_until
from tests.servers import ROOT, serving

COMMAND = "import sys; from demoalign.cli import main; main(sys.argv[1:])"
PROMPTS, CONCURRENCY = 1000, 32
KILLED_AT = (150, 400, 700)
BAD = {17: "[filter]", 230: "[policy]", 555: "[refuses]", 801: "[cut]", 999: "[empty]"}

Json = dict[str, Any]


def prompt(number: int) -> str:
    return f"\n\nHuman: Why is lamp {number} off? {BAD.get(number, '')}\n\nAssistant:"


def started(
    folder: Path, base_url: str, concurrency: int = CONCURRENCY, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    words = [
        *("collect", "--prompts", folder / "prompts.jsonl", "--output", folder / "rows.jsonl"),
        *("--base-url", base_url, "--model", "d", "--concurrency", concurrency, "--json"),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        env={**os.environ, KEY_VARIABLE: CANARY},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def stored(path: Path) -> set[str]:
    """Keys of the whole lines."""
    if not path.is_file():
        return set()
    lines = path.read_bytes().split(b"\n")[:-1]
    return {json.loads(line)["key"] for line in lines if line}


def holds(path: Path, count: int) -> bool:
    return len(stored(path)) >= count


def test_a_thousand_prompts_one_call_in_five_failing_three_kills(tmp_path: Path) -> None:
    jsonl(tmp_path / "prompts.jsonl", ({"prompt": prompt(i)} for i in range(PROMPTS)))
    replies = tmp_path / "rows.replies.jsonl"
    marks: list[tuple[int, set[str]]] = []
    with serving(demonstrator=True, failing=0.2) as server:
        for count in KILLED_AT:
            process = started(tmp_path, server.base_url)
            wait_until(partial(holds, replies, count))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            marks.append((len(server.bodies()), stored(replies)))
        process = started(tmp_path, server.base_url)
        out, _ = process.communicate()
        noted = server.noted()["requests"]
        requests = [each for each in noted if each["body"]]
    assert process.returncode == 0
    assert all(KILLED_AT[0] <= len(keys) < PROMPTS for _, keys in marks), "killed in the middle"
    summary = json.loads(out.splitlines()[-1])
    rows = {row["prompt"]: row for row in lines_of(tmp_path / "rows.jsonl")}
    reasons = {row["row"]["prompt"]: row for row in lines_of(tmp_path / "rows.rejected.jsonl")}
    assert set(rows) == {prompt(i) for i in range(PROMPTS) if i not in BAD}
    assert set(reasons) == {prompt(i) for i in BAD}
    assert all(each["what"] for each in reasons.values())
    assert (summary["rows"], summary["missing"]) == (PROMPTS - len(BAD), len(BAD))
    assert all(row["completion"] == " " + answer_to(text) for text, row in rows.items())
    paid_once(requests, marks, replies)
    assert canaries(tmp_path) == []


def paid_once(requests: list[Json], marks: list[tuple[int, set[str]]], replies: Path) -> None:
    """No prompt whose reply was stored is asked again, before or after any of the kills."""
    answered: Counter[str] = Counter()
    last = dict.fromkeys((each["body"]["messages"][-1]["content"] for each in requests), -1)
    for place, each in enumerate(requests):
        text = each["body"]["messages"][-1]["content"]
        last[text] = place
        answered[text] += each["answered"]
    by_key = {line["key"]: line for line in lines_of(replies) if "key" in line}
    assert len(by_key) == PROMPTS
    said = {line["text"]: key for key, line in by_key.items() if line["text"].strip()}
    for text, place in last.items():
        key = said.get(answer_to(text))
        for count, keys in marks:
            assert place < count or key is None or key not in keys, last_question(text)
    twice = sum(answered.values()) - len(answered)
    assert twice <= len(marks) * CONCURRENCY, "only what was under way at a kill"


def test_an_interrupt_waits_for_what_is_being_paid_for(tmp_path: Path) -> None:
    jsonl(tmp_path / "prompts.jsonl", ({"prompt": prompt(i)} for i in range(100, 160)))
    replies = tmp_path / "rows.replies.jsonl"
    with serving({"*": [{}] * 5 + [{"hang": True}] * 3}, demonstrator=True, slow=0.05) as server:
        process = started(tmp_path, server.base_url, concurrency=3, stderr=subprocess.PIPE)
        wait_until(partial(holds, replies, 5))
        wait_until(lambda: len(server.bodies()) == 8)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("waiting for the requests under way" in line for line in process.stderr)
        server.release()
        out, _ = process.communicate()
        assert process.returncode == 1
        assert len(server.bodies()) == 8, "no more was asked"
        summary = json.loads(out.splitlines()[-1])
        assert (summary["rows"], summary["stopped"]) == (8, "interrupted")
        assert len(lines_of(tmp_path / "rows.jsonl")) == 8
