"""Reward and policy by turns: Algorithm 1 of ML-IRL.

Iteration k samples the policy pi_k, trains the reward to tell the demonstrations from those samples
(Eq. 11), and improves the policy against it, held to the SFT policy (Eq. 5b). Both go on from where
they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from demoalign.config import IrlConfig
from demoalign.improve.held_out import Asking, HeldOut
from demoalign.improve.learner import load_state, policy_weights, restore_weights, save_state
from demoalign.improve.optimise import CHECKPOINTS, CHECKS, ROUNDS, Summary, clear_lines
from demoalign.improve.selector import Selector
from demoalign.improve.watch import Check, best_check, why_stop
from demoalign.intervals import wilson
from demoalign.policies.tracking import track
from demoalign.processes import agreed, is_main
from demoalign.records import Prompt
from demoalign.rewards.comparisons import (
    Answer,
    Answers,
    Comparison,
    answers_of_rollouts,
    hold_out,
    pair_sources,
)
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import append_line, read_json, write_json

WEIGHTS, DONE, SAMPLES = "weights.safetensors", "done.json", "rollouts.jsonl"


class RewardStep(Protocol):
    """Trains the reward model, going on from the last one."""

    def __call__(
        self, comparisons: Sequence[Comparison], number: int, before: Path | None, folder: Path
    ) -> Selector:
        """The reward after iteration ``number``, stored in a folder.

        Args:
            comparisons: to learn from.
            number: of the iteration, from 1.
            before: folder of the reward to go on from; None to begin.
            folder: to store it in.
        """
        ...


PolicyStep = Callable[[Selector, Path], Summary]
"""Improves the policy in place against a reward; its records go to a folder."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is compared with the policy's samples.

    Attributes:
        prompts: training prompts by id.
        specs: those of them that the policy answers for the reward step.
        positives: the demonstrator's answers.
        mixed: comparisons of the SFT policy with the initial one.
    """

    prompts: Mapping[str, Prompt]
    specs: Sequence[PromptSpec]
    positives: Answers
    mixed: Sequence[Comparison] = ()


@dataclass(frozen=True, slots=True)
class Iteration:
    """What an iteration found.

    Attributes:
        number: from 1.
        accuracy: share of held-out pairs whose demonstration has the higher reward, ties half.
        ci95: its Wilson interval.
        pairs: how many of them.
        step: of the policy; None if the reward could not tell the sides apart.
        check: of the policy after it, or before it without a step.
    """

    number: int
    accuracy: float
    ci95: tuple[float, float]
    pairs: int
    step: Summary | None
    check: Check


def iterate(
    asking: Asking,
    material: Material,
    held_out: HeldOut,
    config: IrlConfig,
    steps: tuple[RewardStep, PolicyStep],
    seed: int,
    folder: Path,
    store_last: Callable[[], None],
) -> Summary:
    """Train a policy in place; afterwards it has the weights of the best iteration.

    ``folder`` gets a folder for every iteration. Those that are finished are not done again, and
    an interrupted one goes on.

    Args:
        asking: the policy that learns.
        material: of the reward step.
        held_out: to be watched on.
        config: of iterations and reward step.
        steps: of reward and policy.
        seed: of rollouts and of what is held out.
        folder: of the stage.
        store_last: is called when the policy has the last iteration's weights.
    """
    folder = agreed(lambda: folder)
    clear_lines(folder)
    loop = _Loop(asking, material, held_out, config, steps, seed, folder)
    checks, why, best = [loop.begin()], None, policy_weights(asking.policy)
    loop.append(CHECKS, asdict(checks[0]))
    done = 0
    while done < config.iterations and why is None:
        found = loop.iteration(done + 1)
        loop.append(ROUNDS, _line(found))
        track(config.method, {"accuracy": found.accuracy}, found.number)
        if found.step is None:
            why = (
                f"the reward model cannot tell the policy's samples from {config.reward.positives} "
                f"any more: accuracy {found.accuracy:.2f} [{found.ci95[0]:.2f}, "
                f"{found.ci95[1]:.2f}] on {found.pairs} held-out pairs"
            )
            break
        done += 1
        checks.append(found.check)
        loop.append(CHECKS, asdict(found.check))
        track(f"{config.method} check", found.check.means, found.number)
        if best_check(checks, held_out.config) == len(checks) - 1:
            best = policy_weights(asking.policy)
        why = why_stop(checks, held_out.config, held_out.watched)
    store_last()
    restore_weights(asking.policy, best)
    return Summary(done, checks[best_check(checks, held_out.config)].round, why)


@dataclass(frozen=True, slots=True)
class _Loop:
    """What all iterations share; the arguments of `iterate`."""

    asking: Asking
    material: Material
    held_out: HeldOut
    config: IrlConfig
    steps: tuple[RewardStep, PolicyStep]
    seed: int
    folder: Path

    def append(self, name: str, line: Mapping[str, object]) -> None:
        """Only one of the processes that train writes."""
        if is_main():
            append_line(self.folder / name, line)

    def begin(self) -> Check:
        """The policy before the first iteration."""
        return self._check(0)

    def iteration(self, number: int) -> Iteration:
        """One of them; read back if it is done."""
        place = self.folder / f"iteration-{number}"
        if not agreed((place / DONE).is_file):
            self._do(number, place)
        stored = agreed(partial(read_json, place / DONE))
        restore_weights(self.asking.policy, load_state(place / WEIGHTS))
        step = None if stored["step"] is None else Summary(**stored["step"])
        check = Check(**stored["check"])
        return Iteration(**{**stored, "step": step, "check": check})

    def _do(self, number: int, place: Path) -> None:
        train_reward, improve = self.steps
        pairs = self._pairs(number, place)
        training, kept = hold_out(pairs, self.config.reward.holdout_fraction, self.seed)
        before = self.folder / f"iteration-{number - 1}" / "reward"
        goes_on = number > 1 and not self.config.reward.restart
        mixed = self._mixed(len(training))
        reward = train_reward(
            [*training, *mixed], number, before if goes_on else None, place / "reward"
        )
        gaps = _scores(reward, kept, "positive") - _scores(reward, kept, "negative")
        wins = float((gaps > 0).sum() + 0.5 * (gaps == 0).sum())
        low, high = wilson(wins, len(gaps))
        step = improve(reward, place / "policy") if low > 0.5 else None
        check = self._check(number)
        if not is_main():
            return
        save_state(place / WEIGHTS, policy_weights(self.asking.policy))
        found = Iteration(number, wins / len(gaps), (low, high), len(gaps), step, check)
        write_json(place / DONE, asdict(found))
        shutil.rmtree(place / "policy" / CHECKPOINTS, ignore_errors=True)  # of a finished step

    def _pairs(self, number: int, place: Path) -> list[Comparison]:
        """Demonstrations against samples of the policy, and of earlier ones if those count."""
        material, config = self.material, self.config.reward
        path, most = place / SAMPLES, config.samples_per_prompt
        seed = self.seed + 7_000_003 * number
        policy, engine = self.asking.policy, self.asking.engine
        write_rollouts(path, engine, policy, list(material.specs), most, seed)
        first = 1 if config.past else number
        found: list[Comparison] = []
        for each in range(first, number + 1):
            said = read_rollouts(self.folder / f"iteration-{each}" / SAMPLES)
            negatives = answers_of_rollouts(said)
            found += pair_sources(material.prompts, material.positives, negatives)
        return found

    def _mixed(self, count: int) -> list[Comparison]:
        wanted = round(self.config.reward.mix * count)
        mixed = self.material.mixed
        return [mixed[i % len(mixed)] for i in range(wanted)] if mixed else []

    def _check(self, number: int) -> Check:
        return self.held_out.check(self.asking, None, number, None)


def _scores(reward: Selector, pairs: Sequence[Comparison], side: str) -> np.ndarray:
    answers: list[Answer] = [getattr(pair, side) for pair in pairs]
    prompts = [pair.prompt for pair in pairs]
    texts = [each.completion for each in answers]
    return np.asarray(reward.score(prompts, texts, [each.finished for each in answers]))


def _line(found: Iteration) -> dict[str, object]:
    return {
        "round": found.number,
        "accuracy": found.accuracy,
        "ci95": list(found.ci95),
        "pairs": found.pairs,
        "step": None if found.step is None else asdict(found.step),
    }
