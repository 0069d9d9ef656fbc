"""What a policy that learns says on held-out prompts, and who looks on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from demoalign.config import CheckConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.improve.experience import Said
from demoalign.improve.watch import Check, distinct_pairs, distinct_within
from demoalign.intervals import bootstrap_mean
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import completion_logprobs
from demoalign.policies.policy import Policy
from demoalign.processes import agreed, joined, mine
from demoalign.records import Prompt, Rollout
from demoalign.rollouts.engine import Engine, PromptSpec

Array = NDArray[np.float64]

View = Callable[[Sequence[Prompt], Sequence[str], Sequence[bool]], Sequence[float | None] | Array]
"""What somebody who only looks on makes of prompts, completions, and whether they have ended (B,).

None or NaN is for what is not scored.
"""

Judge = Callable[[Said], Array]
"""Rewards (B,) of whole completions; NaN for none."""


@dataclass(frozen=True, slots=True)
class Lookers:
    """Who looks on: a witness whose view may stop the training, and the golden reward, which not.

    Attributes:
        witness: scores completions, or None.
        named: what the witness is called.
        golden: scores completions for the curves, or None.
    """

    witness: View | None = None
    named: str = ""
    golden: View | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """A policy that learns, and how it is asked.

    Attributes:
        policy: learns.
        reference: the policy that it is held against (the SFT policy).
        engine: samples at temperature 1, without truncation.
    """

    policy: Policy
    reference: Policy
    engine: Engine

    def say(self, specs: Sequence[PromptSpec], count: int, seed: int) -> Said:
        """Sample ``count`` completions of each prompt, and read them with the reference."""
        tokenizer = self.policy.backbone.tokenizer
        ids = {spec.id: tuple(render_prompt(tokenizer, spec.prompt)) for spec in specs}

        def row_of(rollout: Rollout) -> Row:
            return Row(ids[rollout.prompt_id], tuple(rollout.token_ids))

        own = list(self.engine.sample(self.policy, mine(specs), count, seed))
        known = completion_logprobs(self.reference, [row_of(each) for each in own])
        pairs = [(rollout, each.values) for rollout, each in zip(own, known, strict=True)]
        by_prompt = joined([pairs[i : i + count] for i in range(0, len(pairs), count)])
        rollouts, reference = zip(*(pair for each in by_prompt for pair in each), strict=True)
        prompts = {spec.id: spec.prompt for spec in specs}
        return Said(
            prompts=tuple(prompts[each.prompt_id] for each in rollouts),
            rollouts=rollouts,
            rows=tuple(map(row_of, rollouts)),
            reference=reference,
            per_prompt=count,
        )

    def greedy(self, specs: Sequence[PromptSpec]) -> list[str]:
        """The likeliest answer to each prompt, token by token."""
        own = self.engine.sample(self.policy, mine(specs), 1, 0, greedy=True)
        return joined([rollout.completion for rollout in own])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Prompts that nothing learns from.

    Attributes:
        specs: P prompts.
        config: how often they are answered, and the rules' numbers.
        seed: of the rollouts, the same at every check.
        lookers: who looks on.
    """

    specs: Sequence[PromptSpec]
    config: CheckConfig
    seed: int
    lookers: Lookers = field(default_factory=Lookers)

    def check(
        self,
        asking: Asking,
        judge: Judge | None,
        rounds: int,
        beta: float | None,
        *,
        by_deviation: bool = False,
    ) -> Check:
        """Have the policy answer.

        Args:
            asking: the policy.
            judge: the reward that it learns; None if that changes from check to check.
            rounds: that it has learned.
            beta: of the objective E[r] - beta KL, which is watched where there is no witness;
                None if the reward changes, so that there is none to watch.
            by_deviation: whether beta is in units of the reward's deviation within a prompt, as
                grpo's is.
        """
        said = asking.say(self.specs, self.config.samples, self.seed)
        rewards = None if judge is None else judge(said)
        texts = [each.completion for each in said.rollouts]
        means: dict[str, float | None] = {
            **facts_of(said),
            "reward": None if rewards is None else mean_known(rewards),
            "distinct": distinct_pairs(texts),
            "greedy_distinct": distinct_within(asking.greedy(self.specs)),
        }
        views = {"witness": self.lookers.witness, "golden": self.lookers.golden}
        seen: dict[str, Array] = {
            "kl": said.kl,
            "tokens": np.array([len(each.token_ids) for each in said.rollouts], dtype=np.float64),
            "cut": 1 - np.array(said.finished, dtype=np.float64),
        }
        if rewards is not None:
            seen["reward"] = rewards
        for name, view in views.items():
            if view is not None:
                asked = partial(view, said.prompts, texts, said.finished)
                found = asked() if name == "witness" else agreed(asked)  # nobody shares golden ones
                seen[name] = np.array([np.nan if v is None else v for v in found], dtype=np.float64)
                means[name] = mean_known(seen[name])
        watched = seen.get("witness")
        if watched is None and beta is not None and rewards is not None:
            unit = self._deviation(rewards) if by_deviation else 1.0
            watched = rewards - beta * unit * said.kl
        return Check(rounds, means, self._by_prompt(watched), self._intervals(seen))

    def _intervals(self, seen: Mapping[str, Array]) -> dict[str, tuple[float, float]]:
        """95 % of each measure's mean, over prompts."""
        found = {}
        for name, values in seen.items():
            known = [each for each in self._by_prompt(values) if each is not None]
            if known:
                found[name] = bootstrap_mean(np.array(known), self.seed)
        return found

    def _deviation(self, rewards: Array) -> float:
        """Mean standard deviation of a prompt's answers; of all answers if there is one of each."""
        grid = rewards.reshape(-1, self.config.samples)
        if grid.shape[1] < 2:
            return float(np.nanstd(grid))
        known = grid[np.isfinite(grid).sum(1) > 1]
        return float(np.nanstd(known, axis=1, ddof=1).mean()) if len(known) else 1.0

    def _by_prompt(self, values: Array | None) -> tuple[float | None, ...]:
        """(P,) mean of each prompt's answers that have a value; None where none has."""
        if values is None:
            return ()
        return tuple(mean_known(row) for row in values.reshape(-1, self.config.samples))

    @property
    def watched(self) -> str:
        """What decides, in words."""
        return f"the reward {self.lookers.named}" if self.lookers.witness else "E[r] - beta KL"


def facts_of(said: Said) -> dict[str, float | None]:
    """What is known of completions without any reward; means over them, nats and tokens."""
    own = [np.array(each.token_logprobs or ()) for each in said.rollouts]
    lengths = [len(each.token_ids) for each in said.rollouts]
    return {
        "kl": mean_known(said.kl),
        "entropy": -float(sum(each.sum() for each in own)) / max(1, sum(lengths)),
        "tokens": float(np.mean(lengths)),
        "cut": 1 - float(np.mean(said.finished)),
    }


def mean_known(values: Array) -> float | None:
    """Mean of what is a number; None of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
