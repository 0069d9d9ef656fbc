"""The loop of the policy-gradient methods: resumed, in parts, against another reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demoalign.config import PpoConfig, RolloutsConfig
from demoalign.errors import TrainingError
from demoalign.improve.learner import learning_weights, policy_weights
from demoalign.improve.optimise import CHECKS, ROUNDS, optimise
from demoalign.policies import Policy
from demoalign.rollouts.transformers_engine import TransformersEngine
from tests.conftest import ModelFolder
from tests.improve.trainings import config_of, disturbed, reward, training_of


class KilledError(Exception):
    pass


class Failing(TransformersEngine):
    """Is killed when it is asked for the n-th time."""

    def __init__(self, times: int) -> None:
        super().__init__(RolloutsConfig(max_new_tokens=8))
        self.left = times

    def sample(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return super().sample(*args, **kwargs)


def nothing() -> None:
    pass


def close(
    one: dict[str, torch.Tensor],
    other: dict[str, torch.Tensor],
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    assert one.keys() == other.keys()
    for key, each in one.items():
        torch.testing.assert_close(each, other[key], rtol=rtol, atol=atol)


def plain(path: Path) -> list[dict[str, Any]]:
    """Lines without what depends on the clock."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def test_it_learns_what_is_rewarded(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = disturbed(model_folder("llama", "eos_only"))
    training = training_of(backbone, config_of(rounds=12, beta=0.0, learning_rate=1e-2))
    before = policy_weights(training.asking.reference)
    optimise(training, reward(), tmp_path, nothing)
    first, *_, last = plain(tmp_path / CHECKS)
    assert last["means"]["reward"] > first["means"]["reward"] + 0.5
    assert first["means"]["kl"] == pytest.approx(0, abs=1e-4)
    close(policy_weights(training.asking.reference), before)  # the reference stays


@pytest.mark.parametrize("method", ["rloo", "ppo"])
def test_resumed_is_as_if_never_interrupted(
    model_folder: ModelFolder, tmp_path: Path, method: str
) -> None:
    folder = model_folder("llama", "eos_only")
    config: Any = config_of()
    if method == "ppo":
        shared = config.model_dump(exclude={"method", "passes", "minibatches"})
        config = PpoConfig.model_validate(shared)
    whole = training_of(disturbed(folder), config)
    summary = optimise(whole, reward(), tmp_path / "whole", nothing)
    halted = training_of(disturbed(folder), config, Failing(5))
    with pytest.raises(KilledError):
        optimise(halted, reward(), tmp_path / "parts", nothing)
    again = training_of(disturbed(folder), config)
    assert optimise(again, reward(), tmp_path / "parts", nothing) == summary
    close(policy_weights(again.asking.policy), policy_weights(whole.asking.policy), rtol=0, atol=0)
    for name in (ROUNDS, CHECKS):
        assert plain(tmp_path / "parts" / name) == plain(tmp_path / "whole" / name)


@pytest.mark.parametrize("method", ["rloo", "ppo"])
def test_the_batch_size_changes_nothing(
    model_folder: ModelFolder, tmp_path: Path, method: str
) -> None:
    folder, found = model_folder("llama", "eos_only"), []
    for size in (2, 12):
        config: Any = config_of(rounds=1, batch_size=size)
        if method == "ppo":
            config = PpoConfig.model_validate(config.model_dump(exclude={"method"}))
        training = training_of(disturbed(folder), config)
        policy = training.asking.policy

        def note(policy: Policy = policy) -> None:
            found.append(policy_weights(policy))

        optimise(training, reward(), tmp_path / str(size), note)
    one, other = found
    close(one, other, rtol=1e-3, atol=2e-5)


def test_the_reference_may_be_another_model(model_folder: ModelFolder, tmp_path: Path) -> None:
    """Switching adapters on one backbone is the same as a separate reference model."""
    folder = model_folder("llama", "eos_only")
    shared = training_of(disturbed(folder), config_of(beta=0.5))
    apart = Policy("sft", disturbed(folder), "sft")
    separate = training_of(disturbed(folder), config_of(beta=0.5), reference=apart)
    for training, name in ((shared, "shared"), (separate, "separate")):
        optimise(training, reward(), tmp_path / name, nothing)
    close(policy_weights(separate.asking.policy), policy_weights(shared.asking.policy))


def test_too_few_prompts(model_folder: ModelFolder, tmp_path: Path) -> None:
    training = training_of(disturbed(model_folder("llama", "eos_only")), config_of(prompts=9))
    with pytest.raises(TrainingError, match=r"improve\.prompts: a round needs 9 .* found 8"):
        optimise(training, reward(), tmp_path, nothing)


def test_the_objective_is_watched_in_the_methods_own_unit(model_folder: ModelFolder) -> None:
    """grpo's beta is in deviations of the reward within a prompt."""
    training = training_of(disturbed(model_folder("llama", "eos_only")), config_of())
    asking, held_out = training.asking, training.held_out
    with torch.no_grad():
        for weight in learning_weights(asking.policy).values():
            weight.mul_(1.5)
    said = asking.say(held_out.specs, held_out.config.samples, held_out.seed)
    rewards = reward().view(said)
    unit = rewards.reshape(2, 2).std(axis=1, ddof=1).mean()
    assert unit not in (0, 1)
    assert np.abs(said.kl).max() > 0.01
    for by_deviation, beta in ((False, 0.5), (True, 0.5 * unit)):
        done = held_out.check(asking, reward().view, 0, 0.5, by_deviation=by_deviation)
        wanted = (rewards - beta * said.kl).reshape(2, 2).mean(axis=1)
        np.testing.assert_allclose(np.array(done.watched, dtype=np.float64), wanted)


def test_a_reward_that_scores_nothing_learns_nothing(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    backbone = disturbed(model_folder("llama", "eos_only"))
    training = training_of(backbone, config_of(rounds=2, beta=0.0))
    before = policy_weights(training.asking.policy)
    blind = reward()
    optimise(training, _Blind(blind), tmp_path, nothing)
    close(policy_weights(training.asking.policy), before)
    (first, *_) = plain(tmp_path / ROUNDS)
    assert first["reward"] is None
    assert first["unscored"] == 12


class _Blind:
    """Scores nothing."""

    is_fixed = True

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def judge(self, said: Any) -> list[Any]:
        return [each * float("nan") for each in self._inner.judge(said)]

    def view(self, said: Any) -> Any:
        return self._inner.view(said) * float("nan")
