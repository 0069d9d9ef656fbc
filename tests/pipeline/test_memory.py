"""What a stage let go of is gone when the next begins."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest
import torch

from demoalign.pipeline import Pipeline
from demoalign.pipeline.memory import give_back
from tests.pipeline.runs import Project


class Ring:
    """Holds itself."""

    def __init__(self) -> None:
        self.me = self


def test_cycles_are_collected_at_once() -> None:
    gc.disable()
    try:
        gone = weakref.ref(Ring())
        assert gone() is not None
        give_back()
        assert gone() is None
    finally:
        gc.enable()


def test_other_c_libraries_have_nothing_to_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back()


@pytest.mark.parametrize("target", ["sft", "reward"])
def test_no_weights_outlive_their_training(project: Project, target: str) -> None:
    """Without the collector's own runs, so that only the stage's own care counts."""
    gc.collect()
    before = embeddings()
    gc.disable()
    try:
        Pipeline(project.recipe()).advance(target)
        assert embeddings() == before
    finally:
        gc.enable()


def embeddings() -> int:
    """Live embedding layers: one a model."""
    return sum(type(found) is torch.nn.Embedding for found in gc.get_objects())
