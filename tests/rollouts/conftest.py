"""What all tests of rollouts share."""

from __future__ import annotations

import pytest

from demoalign.policies import sampling_copy


@pytest.fixture(autouse=True)
def from_the_adapters_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No merged copies of small models: their tests are `tests/policies/test_sampling_copy.py`."""
    monkeypatch.setattr(sampling_copy, "SMALL_BYTES", 0)
