"""Sampling that was killed and is started again asks nothing that was answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.policies import Policy
from demoalign.rollouts import PromptSpec
from demoalign.rollouts.openai_engine import OpenAIEngine
from demoalign.rollouts.write import read_rollouts
from tests.rollouts.remote import (
    CANARY,
    SPECS,
    canaries,
    config,
    wait_until,
)
from tests.servers import ROOT, Server, prompt_of, serving

SAMPLE = """
import sys
from pathlib import Path
from demoalign.rollouts.openai_engine import OpenAIEngine
from demoalign.rollouts.write import write_rollouts
from tests.rollouts.remote import SPECS, config, without_weights
url, folder, tokenizer = sys.argv[1:]
engine = OpenAIEngine(config(url), Path(folder, "responses.jsonl"))
write_rollouts(Path(folder, "r.jsonl"), engine, without_weights(Path(tokenizer)), SPECS, 4, 0)
"""


def sampling_process(server: Server, folder: Path, tokenizer: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SAMPLE, server.base_url, str(folder), str(tokenizer)],
        env={**os.environ, KEY_VARIABLE: CANARY},
        cwd=ROOT,
    )


@pytest.mark.parametrize("slow", [0, 2])
def test_nothing_that_was_answered_is_asked_again_after_a_kill(
    tokenizer_folder: Callable[[str], Path], tmp_path: Path, slow: int
) -> None:
    """4 prompts of 2 requests; one hangs while the rest is answered, then the process is killed."""
    tokenizer = tokenizer_folder("bos")
    answers = tmp_path / "responses.jsonl"
    with serving({f"Why {slow}?": [{"hang": True}]}) as server:
        process = sampling_process(server, tmp_path, tokenizer)
        wait_until(lambda: answers.is_file() and answers.read_bytes().count(b"\n") == 14)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with answers.open("ab") as stream:
            stream.write(b'{"prompt_id": "p')  # a line that the kill had cut
        server.release()
        assert sampling_process(server, tmp_path, tokenizer).wait() == 0
        bodies = server.bodies()
        keys = {each["key"] for each in server.noted()["requests"]}
    times = {(prompt_of(body), body["seed"]): 0 for body in bodies}
    for body in bodies:
        times[prompt_of(body), body["seed"]] += 1
    assert sorted(times.values()) == [1] * 7 + [2]  # the one that was never answered
    found = read_rollouts(tmp_path / "r.jsonl")
    assert [r.id for r in found] == [f"p{p}/initial/{i}" for p in range(4) for i in range(4)]
    assert keys == {f"Bearer {CANARY}"}
    assert canaries(tmp_path) == []


def test_answers_to_other_questions_are_not_taken(served: Policy, tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with serving() as server:
        for changes, asked in (({}, 2), ({}, 0), ({"stop": ["x"]}, 2)):
            before = len(server.bodies())
            again = OpenAIEngine(config(server, **changes), path)
            found = list(again.sample(served, SPECS[:1], 4, seed=0))
            assert len(server.bodies()) - before == asked
            assert [r.index for r in found] == [0, 1, 2, 3]
        # those that are stored as rollouts are not read back, the rest of a block is asked for
        later = [PromptSpec("p0", "Why 0?", first=3)]
        found = list(OpenAIEngine(config(server), path).sample(served, later, 6, seed=0))
        assert [r.index for r in found] == [3, 4, 5]
        assert server.asked()[-1] == ("Why 0?", 2)
