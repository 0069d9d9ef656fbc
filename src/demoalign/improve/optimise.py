"""Rounds of sampling, rewarding and learning: the loop that all policy-gradient methods share.

Everything random is drawn from (seed, round), so that a training that was interrupted goes on as if
it had not been.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from demoalign.config import PolicyGradientConfig
from demoalign.errors import TrainingError
from demoalign.improve.experience import Said, experience_of
from demoalign.improve.held_out import Asking, HeldOut, facts_of, mean_known
from demoalign.improve.learner import (
    Learner,
    load_state,
    policy_weights,
    restore_weights,
    save_state,
)
from demoalign.improve.surrogate import lesson_of
from demoalign.improve.watch import Check, best_check, why_stop
from demoalign.policies.tracking import track
from demoalign.processes import agreed, is_main
from demoalign.progress import meter
from demoalign.rollouts.engine import PromptSpec
from demoalign.store import append_line, read_json, write_json

Array = NDArray[np.float64]
Noted = dict[str, float | None]

ROUNDS, CHECKS, CHECKPOINTS = "rounds.jsonl", "checks.jsonl", "checkpoints"
STATE, BEST, DONE = "state.safetensors", "best.safetensors", "done.json"


class RoundReward(Protocol):
    """What rewards the policy's completions, round by round."""

    @property
    def is_fixed(self) -> bool:
        """Whether the same completion has the same reward in every round."""
        ...

    def begin(self) -> None:
        """Whatever is to be done before the first round."""
        ...

    def view(self, said: Said) -> Array:
        """Of each completion (B,) what stands for its reward in curves."""
        ...

    def learn(self, said: Said, number: int) -> Noted:
        """Learn from a round's completions before it judges them; what is to be noted."""
        ...

    def judge(self, said: Said) -> list[Array]:
        """Of each completion the reward of the whole (1,) or of its tokens (T,); NaN for none."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes, by name."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        ...


@dataclass(frozen=True, slots=True)
class Training:
    """What a training works with.

    Attributes:
        asking: the policy that learns, whose weights are changed in place.
        prompts: to learn from.
        held_out: to be watched on.
        config: of rounds and optimiser.
        seed: of prompts' order and rollouts.
    """

    asking: Asking
    prompts: Sequence[PromptSpec]
    held_out: HeldOut
    config: PolicyGradientConfig
    seed: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a training.

    Attributes:
        rounds: that were done.
        best: the round whose policy was kept.
        stopped: why it ended before the last round, or None.
    """

    rounds: int
    best: int
    stopped: str | None


def optimise(
    training: Training, reward: RoundReward, folder: Path, store_last: Callable[[], None]
) -> Summary:
    """Train a policy; afterwards it has the weights of the best check.

    ``folder`` gets a line for every round and check while it runs, and resume points, from which
    an interrupted training goes on.

    Args:
        training: policy, prompts and settings.
        reward: what is maximised.
        folder: of the stage.
        store_last: is called when the policy has the last round's weights.

    Raises:
        TrainingError: there are too few prompts, or a loss is not finite.
    """
    loop = Loop(training, reward, folder)
    return loop.run(store_last)


class Loop:
    """One training and where it stands."""

    def __init__(self, training: Training, reward: RoundReward, folder: Path) -> None:
        config = training.config
        if len(training.prompts) < config.prompts:
            raise TrainingError(
                f"improve.prompts: a round needs {config.prompts} training prompts beside the "
                f"{len(training.held_out.specs)} that are held out (improve.check.prompts), found "
                f"{len(training.prompts)}"
            )
        self.training, self.reward, self.folder = training, reward, agreed(lambda: folder)
        steps = config.rounds * config.passes * config.minibatches
        self.learner = Learner(training.asking.policy, config, steps)
        self.rounds: list[Noted] = []
        self.checks: list[Check] = []
        self.best = policy_weights(training.asking.policy)

    def run(self, store_last: Callable[[], None]) -> Summary:
        """All rounds that are left."""
        config = self.training.config
        self._resume()
        why: str | None = None
        with meter(f"{config.method} rounds", config.rounds) as shown:
            shown.done = len(self.rounds)
            if not self.checks:
                self.reward.begin()
                self._check()
            while len(self.rounds) < config.rounds and why is None:
                noted = self._round(len(self.rounds))
                self.rounds.append(noted)
                self._append(ROUNDS, noted)
                track(config.method, noted, len(self.rounds))
                done = len(self.rounds)
                if done % config.check.every == 0 or done == config.rounds:
                    why = self._check()
                shown.advance(1, _note(noted))
                if done % config.checkpoint_every == 0:
                    self._keep(why)
        store_last()
        restore_weights(self.training.asking.policy, self.best)
        return Summary(
            len(self.rounds),
            self.checks[best_check(self.checks, self.training.held_out.config)].round,
            why,
        )

    def _round(self, number: int) -> Noted:
        """Sample, reward, learn."""
        training, config = self.training, self.training.config
        clocks = [time.perf_counter()]
        seed = training.seed + 1_000_003 * (number + 1)
        said = training.asking.say(self._prompts(number), config.samples_per_prompt, seed)
        clocks.append(time.perf_counter())
        learned = self.reward.learn(said, number)
        rewards = self.reward.judge(said)
        clocks.append(time.perf_counter())
        old, values = self.learner.read(said.rows) if config.method == "ppo" else (None, None)
        lesson = lesson_of(config, experience_of(said, rewards, old), values)
        noted = self.learner.learn(said.rows, lesson, seed)
        clocks.append(time.perf_counter())
        totals = np.array([each.sum() for each in rewards])
        parts = zip(("sampling", "judging", "learning"), np.diff(clocks), strict=True)
        return {
            "round": number + 1,
            "reward": mean_known(totals),
            "unscored": float(np.isnan(totals).sum()),
            **facts_of(said),
            **noted,
            **learned,
            **{f"seconds_{name}": round(float(each), 4) for name, each in parts},
        }

    def _prompts(self, number: int) -> list[PromptSpec]:
        """Those of a round: all are seen equally often, in an order of each pass's own."""
        prompts, size = self.training.prompts, self.training.config.prompts
        a_pass, place = divmod(number, len(prompts) // size)
        order = np.random.default_rng([self.training.seed, a_pass]).permutation(len(prompts))
        return [prompts[int(i)] for i in order[place * size : (place + 1) * size]]

    def _check(self) -> str | None:
        """Answer the held-out prompts; why training should stop."""
        config, held_out = self.training.config, self.training.held_out
        beta = config.beta if self.reward.is_fixed else None
        done = held_out.check(
            self.training.asking,
            self.reward.view,
            len(self.rounds),
            beta,
            by_deviation=config.method == "grpo",
        )
        self.checks.append(done)
        self._append(CHECKS, asdict(done))
        track(f"{config.method} check", done.means, len(self.rounds))
        if best_check(self.checks, self.training.held_out.config) == len(self.checks) - 1:
            self.best = policy_weights(self.training.asking.policy)
        return why_stop(self.checks, held_out.config, held_out.watched)

    def _keep(self, why: str | None) -> None:
        """A resume point; the one before it goes once this one is whole."""
        if why is not None or not is_main():
            return
        place = self.folder / CHECKPOINTS / f"round-{len(self.rounds)}"
        state = {f"learner.{key}": each for key, each in self.learner.state().items()}
        state |= {f"reward.{key}": each for key, each in self.reward.state().items()}
        save_state(place / STATE, state)
        save_state(place / BEST, self.best)
        checks = [asdict(each) for each in self.checks]
        write_json(place / DONE, {"rounds": self.rounds, "checks": checks})
        for other in (self.folder / CHECKPOINTS).glob("round-*"):
            if other != place:
                shutil.rmtree(other)

    def _resume(self) -> None:
        """Go on from the newest whole resume point, if there is one."""
        place = agreed(self._newest)
        clear_lines(self.folder)
        if place is None:
            return
        done = read_json(place / DONE)
        self.rounds = done["rounds"]
        self.checks = [Check(**each) for each in done["checks"]]
        state = load_state(place / STATE)
        self.learner.restore(_below(state, "learner."))
        self.reward.restore(_below(state, "reward."))
        self.best = load_state(place / BEST)
        for line in self.rounds:
            self._append(ROUNDS, line)
        for each in self.checks:
            self._append(CHECKS, asdict(each))

    def _newest(self) -> Path | None:
        places = (self.folder / CHECKPOINTS).glob("round-*")
        whole = [each for each in places if (each / DONE).is_file()]
        return max(whole, key=lambda each: int(each.name.partition("-")[2]), default=None)

    def _append(self, name: str, line: Mapping[str, object]) -> None:
        """Only one of the processes that train writes."""
        if is_main():
            append_line(self.folder / name, line)


def clear_lines(folder: Path) -> None:
    """Take away the lines of an earlier attempt, which are written again."""
    if is_main():
        for name in (ROUNDS, CHECKS):
            (folder / name).unlink(missing_ok=True)


def _note(noted: Noted) -> str:
    shown = {"reward": noted["reward"], "KL": noted["kl"]}
    return " ".join(f"{name} {value:.2f}" for name, value in shown.items() if value is not None)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
