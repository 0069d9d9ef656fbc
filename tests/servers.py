"""OpenAI-compatible servers in processes of their own, on the loopback address.

Started as ``python -m tests.servers '<settings>'``. Every request is noted; ``GET /noted`` tells
them. What is answered:

- prompts named in ``faults`` meet their faults first, one a request, in order: ``status`` with
  ``message`` and ``headers``, ``hang`` until released, ``cut`` in the middle of the body, ``raw``
  text for a body, ``choices`` for how many, ``choice`` for what is different in each;
- with ``demonstrator`` the one of `tests.demonstrators` answers;
- with ``judge`` one of `tests.judges` answers, of which ``judge`` is the name;
- with ``folders`` (model name -> folder) a real model answers, sampled token by token;
- else the text says what was asked, so that it can be checked.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.demonstrators import demonstrated
from tests.judges import judged

Json = dict[str, Any]
ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds after which a server stops waiting for what does not come, on a machine that is busy."""


FAILURES: list[Json] = [
    {"status": 500, "message": "out of memory"},
    {"status": 503, "headers": {"Retry-After": "0"}},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"cut": True},
    {"raw": "garbage {"},
]
"""Ways in which a request fails and may be made again."""


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        base_url: its address as a client wants it.
    """

    base_url: str

    def noted(self) -> Json:
        """``requests`` in the order they came, and ``peak``: most that were there at once."""
        with urllib.request.urlopen(self.base_url + "/noted", timeout=PATIENCE) as answer:
            found: Json = json.load(answer)
        return found

    def asked(self) -> list[tuple[str, int]]:
        """Prompt and ``n`` of each request for completions."""
        return [(prompt_of(body), body["n"]) for body in self.bodies()]

    def bodies(self) -> list[Json]:
        return [request["body"] for request in self.noted()["requests"] if request["body"]]

    def release(self) -> None:
        """Let go of the requests that hang."""
        urllib.request.urlopen(self.base_url + "/release", timeout=PATIENCE).close()


@contextmanager
def serving(
    faults: Mapping[str, Sequence[Json]] | None = None,
    folders: Mapping[str, Path] | None = None,
    **settings: Any,
) -> Iterator[Server]:
    """Run a server while the block runs.

    Args:
        faults: prompt (or ``*``, after these) -> what goes wrong with its requests, in order.
        folders: model name -> folder of a model or adapter that is to answer.
        settings: ``models`` (what /models lists; None: it is not offered), ``together`` (how
            many requests must have been there at once before any is answered), ``judge``,
            ``slow`` (seconds that every answer takes), ``needs_key`` (401 to those without one),
            ``demonstrator`` (true: it answers), ``failing`` (share of requests that fail, in one
            of several ways, in an order that is always the same).
    """
    plain = {name: str(folder) for name, folder in (folders or {}).items()}
    given = json.dumps({"faults": faults or {}, "folders": plain, **settings})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers", given],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield Server(f"http://127.0.0.1:{port}/v1")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def prompt_of(body: Json) -> str:
    """The prompt, or what the last message says."""
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


def said(body: Json, number: int) -> str:
    """What the server without a model answers as completion ``number`` of a request."""
    return f" {prompt_of(body)} {body['seed']} {number}"


class _State:
    """What the threads share."""

    def __init__(self, settings: Json) -> None:
        self.settings = settings
        self.faults: dict[str, list[Json]] = {k: list(v) for k, v in settings["faults"].items()}
        self.requests: list[Json] = []
        self.active = self.peak = 0
        self.changed = threading.Condition()
        self.released = threading.Event()
        self.models = _Models(settings["folders"]) if settings["folders"] else None
        self.chance = random.Random(0)

    def arrive(self, path: str, key: str, body: Json | None) -> tuple[Json, Json]:
        """Note a request; returns what is noted, and its fault."""
        noted: Json = {"path": path, "key": key, "body": body, "time": time.time()}
        with self.changed:
            self.requests.append(noted)
            if body is None:
                return noted, {}
            self.active += 1
            self.peak = max(self.peak, self.active)
            self.changed.notify_all()
            together = self.settings.get("together", 0)
            self.changed.wait_for(lambda: self.peak >= together, PATIENCE)
            for name in (prompt_of(body), "*"):
                if self.faults.get(name):
                    return noted, self.faults[name].pop(0)
            if self.chance.random() < self.settings.get("failing", 0):
                return noted, self.chance.choice(FAILURES)
        return noted, {}

    def leave(self) -> None:
        """Before the answer's end is sent: the client may be quick with its next request."""
        with self.changed:
            self.active -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write an answer
    state: _State

    def do_GET(self) -> None:
        state, listed = self.state, self.state.settings.get("models", ["initial", "sft"])
        if self.path == "/v1/noted":
            self._send(200, {"requests": state.requests, "peak": state.peak})
        elif self.path == "/v1/release":
            state.released.set()
            self._send(200, {})
        elif self.path == "/v1/models" and isinstance(listed, int):
            self._send(listed, {"error": {"message": f"said {self.headers['Authorization']}"}})
        elif self.path == "/v1/models" and listed is not None:
            state.arrive(self.path, self.headers["Authorization"], None)
            self._send(200, {"object": "list", "data": [{"id": name} for name in listed]})
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        noted, fault = self.state.arrive(self.path, self.headers["Authorization"], body)
        try:
            if fault.get("hang"):
                self.state.released.wait(PATIENCE)
            time.sleep(self.state.settings.get("slow", 0))
            if self.state.settings.get("needs_key") and "none" in self.headers["Authorization"]:
                fault = {"status": 401, "message": "You did not provide a key"}
            if "status" in fault:
                said = {"error": {"message": fault.get("message", "no").format(**self.headers)}}
                status, answer, headers = fault["status"], said, fault.get("headers", {})
            else:
                status, answer, headers = 200, self._answer(body, fault), {}
            if "demonstrator" in self.state.settings and status == 200:
                status, answer = demonstrated(body)
            noted["answered"] = status == 200 and not {"cut", "raw"} & set(fault)
        finally:
            self.state.leave()
        self._send(status, fault.get("raw", answer), headers, cut=bool(fault.get("cut")))

    def _answer(self, body: Json, fault: Json) -> Json:
        if "demonstrator" in self.state.settings:
            return {}
        if "judge" in self.state.settings:
            return {**judged(self.state.settings["judge"], body), **fault.get("answer", {})}
        is_chat = self.path.endswith("/chat/completions")
        count: int = fault["choices"] if "choices" in fault else body["n"]
        if self.state.models is not None:
            found = self.state.models.choices(body, is_chat)
        else:
            found = [{"text": said(body, i), "finish_reason": "stop"} for i in range(count)]
        for number, choice in enumerate(found):
            choice |= {"index": number, **fault.get("choice", {})}
            if is_chat:
                choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        return {"object": "text_completion", "choices": found[::-1]}

    def _send(
        self, status: int, answer: object, headers: Mapping[str, str] = {}, cut: bool = False
    ) -> None:
        raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if cut else raw)
        self.close_connection = cut

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have left."""


class _Models:
    """Real models, loaded when they are first asked for; one request at a time."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.folders = folders
        self.loaded: dict[str, Any] = {}
        self.lock = threading.Lock()

    def choices(self, body: Json, is_chat: bool) -> list[Json]:
        from demoalign.demonstrations.render import answer_end, render_prompt
        from demoalign.policies import Policy

        with self.lock:
            name = body["model"]
            if name not in self.loaded:
                self.loaded[name] = Policy.load(self.folders[name], name, "cpu")
            policy = self.loaded[name]
            tokenizer = policy.backbone.tokenizer
            ids = render_prompt(tokenizer, body["messages"] if is_chat else body["prompt"])
            ends = answer_end(tokenizer, is_chat).stop_ids
            with policy.active():
                return [
                    sample(policy.backbone.causal, tokenizer, ids, ends, body, number)
                    for number in range(body["n"])
                ]


def sample(
    model: Any, tokenizer: Any, prompt: Sequence[int], ends: frozenset[int], body: Json, number: int
) -> Json:
    """One completion, token by token; the logprobs hold the end token's, as vLLM's do."""
    import torch

    generator = torch.Generator().manual_seed(body["seed"] + number)
    ids: list[int] = []
    logprobs: list[float] = []
    while len(ids) < body["max_tokens"] and not ends.intersection(ids):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1]
        if body["temperature"] == 0:
            token = int(logits.argmax())
        else:
            weights = torch.softmax(logits / body["temperature"], -1)
            token = int(torch.multinomial(weights, 1, generator=generator))
        ids.append(token)
        logprobs.append(float(torch.log_softmax(logits, -1)[token]))
    ended = ids[-1] in ends
    found: Json = {
        "text": tokenizer.decode(ids, skip_special_tokens=True),
        "finish_reason": "stop" if ended else "length",
        "ids": ids,
    }
    tokens = [tokenizer.decode([token]) for token in ids]
    if body.get("logprobs") is True:
        pairs = zip(tokens, logprobs, strict=True)
        found["logprobs"] = {"content": [{"token": t, "logprob": p} for t, p in pairs]}
    elif body.get("logprobs"):
        found["logprobs"] = {"tokens": tokens, "token_logprobs": logprobs}
    return found


def main() -> None:
    state = _State(json.loads(sys.argv[1]))
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(("127.0.0.1", 0), handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
