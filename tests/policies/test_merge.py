"""Merging refuses what it would overwrite; that the logits stay is tested on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from demoalign.errors import ModelError
from demoalign.policies.merge import merge_policy


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_output_may_not_be_a_file(adapter: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    with pytest.raises(ModelError, match=r"must be a new or empty folder, found a file"):
        merge_policy(adapter, taken)
    assert taken.read_text(encoding="utf-8") == "mine"


def test_the_output_may_not_hold_files(adapter: Path) -> None:
    with pytest.raises(ModelError, match=r"found a folder with files in it"):
        merge_policy(adapter, adapter)


def test_the_policy_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needs a folder with adapter_config\.json, found none"):
        merge_policy(tmp_path, tmp_path / "new")
