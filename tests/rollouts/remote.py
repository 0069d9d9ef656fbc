"""What the tests of served policies share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from transformers import AutoTokenizer

from demoalign.config import RolloutsConfig
from demoalign.endpoints.backoff import Backoff
from demoalign.policies import Policy
from demoalign.rollouts import PromptSpec
from demoalign.rollouts.openai_engine import OpenAIEngine
from tests.servers import PATIENCE, Server

CANARY = "sk-canary-0123456789"
SPECS = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(4)]
ENDPOINT = {"concurrency", "samples_per_request", "retries", "timeout", "models", "logprobs"}


class Pauses:
    """Pauses that are noted and not made."""

    def __init__(self, **settings: float) -> None:
        self.made: list[float] = []
        self.backoff = Backoff(sleep=self.sleep, **settings)

    async def sleep(self, seconds: float) -> None:
        self.made.append(seconds)


def without_weights(folder: Path, name: str = "initial") -> Policy:
    """A policy of which there is nothing here but its name and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return cast(Policy, SimpleNamespace(name=name, backbone=SimpleNamespace(tokenizer=tokenizer)))


def config(server: Server | str, **changes: Any) -> RolloutsConfig:
    url = server if isinstance(server, str) else server.base_url
    endpoint = {"base_url": url, "concurrency": 2, "samples_per_request": 2, "retries": 3}
    endpoint |= {key: changes.pop(key) for key in list(changes) if key in ENDPOINT}
    plain = {"engine": "openai", "max_new_tokens": 16, "endpoint": endpoint, **changes}
    return RolloutsConfig.model_validate(plain)


def engine(server: Server | str, pauses: Pauses | None = None, **changes: Any) -> OpenAIEngine:
    return OpenAIEngine(config(server, **changes), backoff=(pauses or Pauses()).backoff)


def request_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "demoalign" in each.name]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def canaries(folder: Path) -> list[Path]:
    """Files that hold the key."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if CANARY.encode() in path.read_bytes()]
