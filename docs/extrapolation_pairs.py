"""Extrapolated decoding against the exact optimum on random policy pairs, by enumeration.

    python docs/extrapolation_pairs.py > docs/results/extrapolation-theory.json

About a minute on one core. docs/extrapolation-theory.md says what is computed and why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from demoalign.config import RatioConfig
from demoalign.intervals import bootstrap_mean
from demoalign.lab import mdp as world
from demoalign.lab.mdp import Array, TextMDP
from demoalign.rewards.token_reward import token_rewards

SEEDS = range(20)
MDP = TextMDP(tokens=5, longest=6)
SPREAD, CHANGE = 1.5, 1.0
"""Standard deviations of log q's logits, and of what is added to them for log p."""
SUPPORT = -6.0
HABIT_STATES, HABIT_P, HABIT_LOG_Q = 0.2, 0.3, -8.0
WORLDS = ("free", "fixed", "habits")
REWARDS = {
    "plain": RatioConfig(clip=None, support=None, memory=0),
    "masked": RatioConfig(clip=1.0, support=SUPPORT, memory=0),
}
LAMBDAS = [2 ** (k / 2) for k in range(-6, 7)]
CHECKED = (0.5, 1.0, 2.0, 4.0)
SIZES = [2**k for k in range(11)]
LONGEST = range(2, 9)

Row = dict[str, Any]


def main() -> None:
    """Print everything as one JSON object."""
    sys.stdout.write(json.dumps(compute()) + "\n")


class Problem:
    """One pair of policies with a reward: everything about its texts (C,)."""

    def __init__(self, mdp: TextMDP, log_p: Array, log_q: Array, reward: str) -> None:
        up, down = torch.from_numpy(log_p), torch.from_numpy(log_q)
        found = token_rewards(up, down, down.amax(-1, keepdim=True), REWARDS[reward]).numpy()
        self.mdp, self.log_p, self.log_q, self.is_plain = mdp, log_p, log_q, reward == "plain"
        self.rewards = np.where(log_p > -np.inf, found, 0.0)
        self.texts = world.sequence_sums(mdp, log_p)
        self.totals = world.sequence_sums(mdp, self.rewards)
        self.lengths = world.sequence_sums(mdp, np.ones((mdp.states, 1)))
        self.outside = world.sequence_sums(mdp, np.where(log_q > SUPPORT, 0.0, 1.0))

    def optimum(self, lam: float) -> Array:
        """log pi* of the texts."""
        return world.tilt(self.texts, self.totals, lam)

    def token_wise(self, lam: float) -> Array:
        """log pi_tok of the texts."""
        return world.sequence_sums(self.mdp, world.tilt(self.log_p, self.rewards, lam))

    def passed(self, lam: float) -> Array:
        """Sum of log Z(s_t) along the texts."""
        log_z = world.log_partition(self.log_p, self.rewards, lam)
        return world.sequence_sums(self.mdp, log_z[:, None])

    def reward(self, policy: Array) -> float:
        """E[r]."""
        return float(world.expected(policy, self.totals))

    def moved(self, policy: Array) -> float:
        """KL to p."""
        return float(world.kl(policy, self.texts))

    def equally_far(self, policy: Array) -> Array:
        """The optimum that is as far from p as this policy, or the farthest below."""
        target, low, high = self.moved(policy), 0.0, 64.0
        for _ in range(40):
            middle = (low + high) / 2
            if self.moved(self.optimum(middle)) < target:
                low = middle
            else:
                high = middle
        return self.optimum(low)

    def kept(self, policy: Array, equally_far: Array) -> float:
        """Share of the reward gain of the optimum that is as far from p."""
        start = self.reward(self.texts)
        return (self.reward(policy) - start) / (self.reward(equally_far) - start)

    def foreseen(self) -> float:
        """Var of the sum of E_p[r | s_t] as a share of Var of the reward, under p."""
        means = world.expected(self.log_p, self.rewards)
        sums = world.sequence_sums(self.mdp, means[:, None])
        least, whole = (self.mean(each**2) - self.mean(each) ** 2 for each in (sums, self.totals))
        return least / whole

    def mean(self, values: Array) -> float:
        """E_p of values (C,)."""
        return float(world.expected(self.texts, values))


def make_pair(mdp: TextMDP, seed: int, kind: str) -> tuple[Array, Array]:
    """log p and log q (S, V) of a random pair; the kind is one of WORLDS."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=SPREAD, size=(mdp.states, mdp.tokens))
    if kind == "fixed":
        logits[:, mdp.end] = -np.inf
    log_q = world.tilt(logits, np.zeros_like(logits))
    log_p = world.tilt(log_q, generator.normal(scale=CHANGE, size=logits.shape))
    if kind == "habits":
        rows = np.flatnonzero(generator.random(mdp.states) < HABIT_STATES)
        tokens = generator.integers(0, mdp.end, size=len(rows))
        for table, share in ((log_q, np.exp(HABIT_LOG_Q)), (log_p, HABIT_P)):
            others = np.log1p(-np.exp(table[rows, tokens]))
            table[rows] += (np.log1p(-share) - others)[:, None]
            table[rows, tokens] = np.log(share)
    return log_p, log_q


def compute() -> Row:
    """Everything that is stored."""
    starts: list[Row] = []
    rows: list[Row] = []
    best: list[Row] = []
    errors: dict[str, float] = {}
    for kind in WORLDS:
        for reward in REWARDS:
            problems = [Problem(MDP, *make_pair(MDP, seed, kind), reward) for seed in SEEDS]
            what = {"world": kind, "reward": reward}
            starts.append({**what, **_means(_start(each) for each in problems)})
            for lam in LAMBDAS:
                rows.append({**what, "lambda": lam, **_means(_one(p, lam) for p in problems)})
            best += [{**what, "n": n, **_best(problems, n)} for n in SIZES]
            for problem in problems:
                for lam in CHECKED:
                    for name, error in _errors(problem, lam).items():
                        errors[name] = max(errors.get(name, 0.0), error)
    longest = [_growth(kind, longest) for kind in ("free", "fixed") for longest in LONGEST]
    settings = {
        "tokens": MDP.tokens,
        "longest": MDP.longest,
        "texts": len(MDP.completions()),
        "seeds": list(SEEDS),
        "spread": SPREAD,
        "change": CHANGE,
        "habit_states": HABIT_STATES,
        "habit_p": HABIT_P,
        "habit_log_q": HABIT_LOG_Q,
        "clip": REWARDS["masked"].clip,
        "support": SUPPORT,
    }
    found = {"schema": 1, "settings": settings, "starts": starts, "rows": rows}
    return {**found, "best_of_n": best, "longest": longest, "largest_error": errors}


def _start(problem: Problem) -> dict[str, float]:
    """What p itself does."""
    return {
        "reward_start": problem.reward(problem.texts),
        "length_start": problem.mean(problem.lengths),
        "outside_start": problem.mean(problem.outside),
        "foreseen": problem.foreseen(),
    }


def _one(problem: Problem, lam: float) -> dict[str, float]:
    optimum, token, passed = problem.optimum(lam), problem.token_wise(lam), problem.passed(lam)
    log_z, equally_far = world.log_partition(token, passed), problem.equally_far(token)
    return {
        "distance": float(world.kl(token, optimum)),
        "distance_equally_far": float(world.kl(token, equally_far)),
        "kept": problem.kept(token, equally_far),
        "effective": float(np.exp(2 * log_z - world.log_partition(token, passed, 2))),
        "reward_optimum": problem.reward(optimum),
        "reward_token": problem.reward(token),
        "kl_optimum": problem.moved(optimum),
        "kl_token": problem.moved(token),
        "length_optimum": float(world.expected(optimum, problem.lengths)),
        "length_token": float(world.expected(token, problem.lengths)),
        "outside_optimum": float(world.expected(optimum, problem.outside)),
        "outside_token": float(world.expected(token, problem.outside)),
    }


def _best(problems: Sequence[Problem], n: int) -> Row:
    found = [world.best_of_n(each.texts, each.totals, n) for each in problems]
    pairs = list(zip(problems, found, strict=True))
    means: Row = _means({"expected": p.reward(one), "kl": p.moved(one)} for p, one in pairs)
    if n == 1:
        return means
    kept = _means({"kept": p.kept(one, p.equally_far(one))} for p, one in pairs)
    return {**means, **kept}


def _growth(kind: str, longest: int) -> Row:
    """Distance at lambda 1, plain reward, with texts of up to so many tokens; V = 4."""
    mdp = TextMDP(4, longest)
    problems = [Problem(mdp, *make_pair(mdp, seed, kind), "plain") for seed in SEEDS]
    means = _means(
        {"distance": float(world.kl(each.token_wise(1.0), each.optimum(1.0)))} for each in problems
    )
    return {"world": kind, "tokens": mdp.tokens, "longest": longest, **means}


def _errors(problem: Problem, lam: float) -> dict[str, float]:
    """How far each identity is from holding, in nats, at the worst text or state."""
    optimum, token, passed = problem.optimum(lam), problem.token_wise(lam), problem.passed(lam)
    said = problem.texts > -np.inf
    log_z = world.log_partition(problem.texts, problem.totals, lam)
    each_z = world.log_partition(problem.log_p, problem.rewards, lam)
    p, q = np.exp(problem.log_p), np.exp(problem.log_q)
    powers = np.power(q, -lam, out=np.zeros_like(q), where=p > 0) * p ** (1 + lam)
    distance = world.kl(token, optimum)
    best, ours = (problem.reward(one) - problem.moved(one) / lam for one in (optimum, token))
    induced = world.soft_optimal_policy(problem.mdp, problem.log_p, problem.rewards, lam)
    value = world.soft_values(problem.mdp, problem.log_p, problem.rewards, lam)[0]
    less = world.tilt(problem.texts, problem.totals - passed / lam, lam)
    differences = {
        "partition": each_z - np.log(powers.sum(axis=-1)) if problem.is_plain else 0.0,
        "value": best - log_z / lam,
        "gap": optimum[said] - token[said] - passed[said] + log_z,
        "distance": distance - log_z + world.expected(token, passed),
        "regret": best - ours - distance / lam,
        "less": less[said] - token[said],
        "induction": np.append(
            (world.sequence_sums(problem.mdp, induced)[said] - optimum[said]), value - log_z
        ),
        "weights": world.log_partition(token, passed) - log_z,
    }
    return {name: float(np.abs(each).max()) for name, each in differences.items()}


def _means(found: Iterable[dict[str, float]]) -> Row:
    every = list(found)
    means: Row = {}
    for name in every[0]:
        values = np.array([each[name] for each in every])
        bounds = [_round(bound) for bound in bootstrap_mean(values)]
        means[name] = {"value": _round(float(values.mean())), "ci95": bounds}
    return means


def _round(value: float) -> float:
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
