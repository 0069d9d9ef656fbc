"""Rollouts on disk: resumed wherever the writing stopped, with the same result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from demoalign.config import RolloutsConfig
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, TransformersEngine
from demoalign.rollouts.engine import AnyPolicy
from demoalign.rollouts.write import read_rollouts, write_rollouts
from tests.conftest import ModelFolder
from tests.models import load_backbone

SPECS = [PromptSpec(f"prompt {i}", "Why " * (5 - i) + "?") for i in range(4)]
ENGINE = TransformersEngine(RolloutsConfig(max_new_tokens=6, batch_size=3))


class CountingEngine(TransformersEngine):
    """The same engine; it counts the prompts it is asked for and may be interrupted."""

    def __init__(self, config: RolloutsConfig, limit: int = 10**9) -> None:
        super().__init__(config)
        self.asked: list[str] = []
        self.sampled = 0
        self.limit = limit

    def sample(
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        self.asked += [spec.id for spec in prompts]
        for number, rollout in enumerate(super().sample(policy, prompts, n, seed, greedy)):
            if number == self.limit:
                raise KeyboardInterrupt
            self.sampled += 1
            yield rollout


@pytest.fixture(scope="module")
def policy(model_folder: ModelFolder) -> Policy:
    return Policy("initial", load_backbone(model_folder("llama", "bos")))


@pytest.fixture(scope="module")
def whole(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "initial.jsonl"
    write_rollouts(path, ENGINE, policy, SPECS, 3, 0)
    return path.read_bytes()


def test_a_file_holds_all_in_order(policy: Policy, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "initial.jsonl"
    write_rollouts(path, ENGINE, policy, SPECS, 3, 0)
    assert [r.id for r in read_rollouts(path)] == [
        f"prompt {p}/initial/{i}" for p in range(4) for i in range(3)
    ]
    assert read_rollouts(path) == list(ENGINE.sample(policy, SPECS, 3, 0))
    assert sorted(p.name for p in path.parent.iterdir()) == ["initial.engine.json", "initial.jsonl"]
    assert path.read_bytes() == whole


def test_a_finished_file_is_left_alone(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "initial.jsonl"
    path.write_bytes(b"done")
    write_rollouts(path, ENGINE, policy, SPECS, 3, 0)
    assert path.read_bytes() == b"done"


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 7, 11, 12])
@pytest.mark.parametrize("half", [False, True])
def test_it_resumes_after_any_line_and_half_a_line(
    policy: Policy, whole: bytes, tmp_path: Path, lines: int, half: bool
) -> None:
    parts = whole.splitlines(keepends=True)
    left = b"".join(parts[:lines])
    if half:
        left += parts[lines % 12][:40]
    path = tmp_path / "initial.jsonl"
    (tmp_path / "initial.jsonl.partial").write_bytes(left)
    engine = CountingEngine(ENGINE.config)
    write_rollouts(path, engine, policy, SPECS, 3, 0)
    assert engine.asked == [spec.id for spec in SPECS[lines // 3 :]]
    assert engine.sampled == 12 - lines
    check_equal(path, whole, tmp_path)


@pytest.mark.parametrize("limit", [0, 2, 5, 11])
def test_it_resumes_after_an_interrupt(
    policy: Policy, whole: bytes, tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "initial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_rollouts(path, CountingEngine(ENGINE.config, limit), policy, SPECS, 3, 0)
    assert not path.exists()
    engine = CountingEngine(ENGINE.config)
    write_rollouts(path, engine, policy, SPECS, 3, 0)
    assert engine.asked == [spec.id for spec in SPECS[limit // 3 :]]
    assert engine.sampled == 12 - limit
    check_equal(path, whole, tmp_path)


def test_half_a_letter_at_the_end(policy: Policy, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "initial.jsonl"
    first = b"".join(whole.splitlines(keepends=True)[:3])
    broken = '{"id": "ü'.encode()[:-1]
    (tmp_path / "initial.jsonl.partial").write_bytes(first + broken)
    write_rollouts(path, ENGINE, policy, SPECS, 3, 0)
    check_equal(path, whole, tmp_path)


def test_line_separators_inside_a_text_are_no_ends(policy: Policy, tmp_path: Path) -> None:
    """U+2028 stands unescaped in JSON; a resumed file keeps such rows."""
    path = tmp_path / "initial.jsonl"
    spec = PromptSpec("a\u2028b", "Why?")
    write_rollouts(path, ENGINE, policy, [spec, *SPECS], 1, 0)
    kept = path.read_bytes()
    path.replace(tmp_path / "initial.jsonl.partial")
    engine = CountingEngine(ENGINE.config)
    write_rollouts(path, engine, policy, [spec, *SPECS], 1, 0)
    assert engine.asked == []
    assert path.read_bytes() == kept


def test_rollouts_of_other_prompts_are_not_kept(
    policy: Policy, whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "initial.jsonl"
    partial = tmp_path / "initial.jsonl.partial"
    write_rollouts(partial, ENGINE, policy, SPECS[1:], 3, 0)
    write_rollouts(path, ENGINE, policy, SPECS, 3, 0)
    check_equal(path, whole, tmp_path)


def test_greedy_is_one_line_a_prompt(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "greedy.jsonl"
    write_rollouts(path, ENGINE, policy, SPECS, 5, 0, greedy=True)
    assert [r.index for r in read_rollouts(path)] == [-1] * 4


def check_equal(path: Path, whole: bytes, scratch: Path) -> None:
    """Same rollouts; log-probabilities may differ in the last digit with the batch's make-up."""
    (scratch / "wanted").write_bytes(whole)
    found, wanted = read_rollouts(path), read_rollouts(scratch / "wanted")
    assert [(r.id, r.token_ids, r.completion) for r in found] == [
        (r.id, r.token_ids, r.completion) for r in wanted
    ]
    assert [r.logprob for r in found] == pytest.approx([r.logprob for r in wanted], abs=1e-4)
