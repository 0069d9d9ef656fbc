"""Hidden states beside the rollouts on disk: each in its row, wherever the writing stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from demoalign.config import RolloutsConfig
from demoalign.policies import Policy
from demoalign.rollouts import PromptSpec, TransformersEngine
from demoalign.rollouts.engine import AnyPolicy
from demoalign.rollouts.transformers_engine import Sampled
from demoalign.rollouts.write import Hidden, read_hidden, read_rollouts, write_rollouts
from tests.conftest import ModelFolder
from tests.models import load_backbone

SPECS = [PromptSpec(f"prompt {i}", "Why " * (3 - i) + "?") for i in range(3)]
N, ROWS, SEED = 5, 15, 3
CONFIG = RolloutsConfig(max_new_tokens=2, batch_size=4)


class Interrupted(TransformersEngine):
    """The same engine, stopped before a row; it counts what it sampled."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__(CONFIG)
        self.limit = limit
        self.sampled = 0

    def sample_hidden(
        self, policy: AnyPolicy, prompts: Sequence[PromptSpec], n: int, seed: int
    ) -> Iterator[Sampled]:
        for each in super().sample_hidden(policy, prompts, n, seed):
            if self.sampled == self.limit:
                raise KeyboardInterrupt
            self.sampled += 1
            yield each


@pytest.fixture(scope="module")
def policy(model_folder: ModelFolder) -> Policy:
    return Policy("initial", load_backbone(model_folder("llama", "bos")))


@pytest.fixture(scope="module")
def whole(policy: Policy) -> list[Sampled]:
    return list(TransformersEngine(CONFIG).sample_hidden(policy, SPECS, N, SEED))


def write(path: Path, engine: TransformersEngine, policy: Policy) -> None:
    write_rollouts(path, engine, policy, SPECS, N, SEED, keeps_hidden=True)


def check(path: Path, whole: Sequence[Sampled], lost: Sequence[int] = ()) -> None:
    """Rows as sampled in one go; NaN where a state is not known, or was lost."""
    stored: Hidden | None = read_hidden(path)
    assert stored is not None
    assert stored.dtype == np.float32
    rollouts = read_rollouts(path)
    assert len(stored) == len(rollouts) == len(whole) == ROWS
    for row, (each, rollout) in enumerate(zip(whole, rollouts, strict=True)):
        assert (rollout.id, rollout.token_ids) == (each.rollout.id, each.rollout.token_ids)
        if each.hidden is None or row in lost:
            assert np.isnan(stored[row]).all()
        else:
            np.testing.assert_allclose(stored[row], each.hidden, atol=2e-4)


def test_states_line_up_with_the_rows(policy: Policy, whole: list[Sampled], tmp_path: Path) -> None:
    unknown = sum(each.hidden is None for each in whole)
    assert 2 < unknown < ROWS - 2
    states = [each.hidden for each in whole if each.hidden is not None]
    assert len(np.unique(np.round(np.stack(states), 2), axis=0)) >= 4
    path = tmp_path / "folder" / "initial.jsonl"
    write(path, TransformersEngine(CONFIG), policy)
    check(path, whole)


@pytest.mark.parametrize("limit", range(ROWS))
def test_after_an_interruption_at_any_row(
    policy: Policy, whole: list[Sampled], tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "initial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(path, Interrupted(limit), policy)
    assert not path.exists()
    engine = Interrupted()
    write(path, engine, policy)
    assert engine.sampled == ROWS - limit
    check(path, whole)


@pytest.mark.parametrize("lines", [0, 4, 7, ROWS])
def test_after_half_a_line(
    policy: Policy, whole: list[Sampled], tmp_path: Path, lines: int
) -> None:
    """The state of a row stands on disk before the row does."""
    path = tmp_path / "initial.jsonl"
    write(path, TransformersEngine(CONFIG), policy)
    parts = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    half = parts[lines][:30] if lines < ROWS else b""
    (tmp_path / "initial.jsonl.partial").write_bytes(b"".join(parts[:lines]) + half)
    engine = Interrupted()
    write(path, engine, policy)
    assert engine.sampled == ROWS - lines
    check(path, whole)


@pytest.mark.parametrize("damage", ["gone", "other shape"])
def test_lost_states_are_unknown(
    policy: Policy, whole: list[Sampled], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "initial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(path, Interrupted(6), policy)
    stored = tmp_path / "initial.hidden.npy"
    stored.unlink()
    if damage == "other shape":
        np.save(stored, np.ones((3, 2), np.float32))
    write(path, TransformersEngine(CONFIG), policy)
    check(path, whole, lost=range(6))


def test_states_of_an_earlier_attempt_are_not_kept(
    policy: Policy, whole: list[Sampled], tmp_path: Path
) -> None:
    path = tmp_path / "initial.jsonl"
    shape = (ROWS, policy.backbone.hidden_size)
    np.save(tmp_path / "initial.hidden.npy", np.ones(shape, np.float32))
    write(path, TransformersEngine(CONFIG), policy)
    check(path, whole)


def test_none_are_stored_unless_wanted(policy: Policy, tmp_path: Path) -> None:
    path, greedy = tmp_path / "initial.jsonl", tmp_path / "greedy.jsonl"
    engine = TransformersEngine(CONFIG)
    write_rollouts(path, engine, policy, SPECS, N, SEED)
    write_rollouts(greedy, engine, policy, SPECS, N, SEED, greedy=True, keeps_hidden=True)
    assert read_hidden(path) is None
    assert read_hidden(greedy) is None
