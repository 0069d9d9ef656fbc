"""A policy that is served elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demoalign.endpoints.advice import KEY_VARIABLE
from demoalign.policies import Policy, sampling_copy
from tests.rollouts.remote import without_weights


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def served(tokenizer_folder: Callable[[str], Path]) -> Policy:
    """Its name and tokenizer, and nothing else."""
    return without_weights(tokenizer_folder("bos"))


@pytest.fixture(autouse=True)
def from_the_adapters_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No merged copies of small models: their tests are `tests/policies/test_sampling_copy.py`."""
    monkeypatch.setattr(sampling_copy, "SMALL_BYTES", 0)
