"""Extrapolated decoding on an enumerable MDP: every identity of docs/extrapolation-theory.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from demoalign.config import RatioConfig
from demoalign.lab.mdp import (
    Array,
    TextMDP,
    after,
    best_of_n,
    expected,
    kl,
    log_partition,
    log_ratio,
    prefix_sums,
    random_policy,
    renyi,
    sequence_sums,
    soft_optimal_policy,
    soft_values,
    tilt,
)
from demoalign.rewards.token_reward import token_rewards

MDP = TextMDP(4, 5)
EXACT = 1e-11
EVERY_LAMBDA = pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 2.5])
EVERY_KIND = pytest.mark.parametrize("kind", ["plain", "masked and clipped"])
EVERY_SEED = pytest.mark.parametrize("seed", range(3))


def logs(probabilities: object) -> Array:
    with np.errstate(divide="ignore"):
        found: Array = np.log(np.array(probabilities, dtype=np.float64))
    return found


def close(found: ArrayLike, wanted: ArrayLike) -> None:
    one, other = (np.asarray(each, dtype=np.float64) for each in (found, wanted))
    np.testing.assert_allclose(one, other, rtol=EXACT, atol=EXACT)


def pair(seed: int, mdp: TextMDP = MDP) -> tuple[Array, Array]:
    """log p and log q; in each state p never says one token, and in the first five nor does q."""
    generator = np.random.default_rng(seed)
    log_q = random_policy(mdp, generator, 1.5)
    log_p = tilt(log_q, generator.normal(size=log_q.shape))
    never = generator.integers(0, mdp.tokens, size=mdp.states)
    log_p[np.arange(mdp.states), never] = -np.inf
    log_q[np.arange(5), never[:5]] = -np.inf
    return tilt(log_p, np.zeros_like(log_p)), tilt(log_q, np.zeros_like(log_q))


def masked_and_clipped(log_p: Array, log_q: Array) -> Array:
    up, down = torch.from_numpy(log_p), torch.from_numpy(log_q)
    config = RatioConfig(clip=1.0, support=-3.0, memory=0)
    found: Array = token_rewards(up, down, down.amax(-1, keepdim=True), config).numpy()
    return found


def problem(seed: int, kind: str) -> tuple[Array, Array, Array]:
    """log p (S, V), a token reward (S, V), and the reward of the texts (C,), 0 where p is 0."""
    log_p, log_q = pair(seed)
    rewards = log_ratio(log_p, log_q) if kind == "plain" else masked_and_clipped(log_p, log_q)
    rewards = np.where(log_p > -np.inf, rewards, 0.0)
    return log_p, rewards, sequence_sums(MDP, rewards)


def states(values: Array) -> Array:
    """Sum (C,) of values (S,) over the states in which a text's tokens were chosen."""
    return sequence_sums(MDP, values[:, None])


def test_texts_by_hand() -> None:
    mdp = TextMDP(3, 2)
    assert mdp.prefixes() == [(), (0,), (1,)]
    assert mdp.completions() == [(2,), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert mdp.closes.tolist() == [[False, False, True], [True] * 3, [True] * 3]
    assert (mdp.states, mdp.inner, mdp.end) == (3, 1, 2)
    assert TextMDP(3, 1).completions() == [(0,), (1,), (2,)]
    assert TextMDP(2, 3).completions() == [(1,), (0, 1), (0, 0, 0), (0, 0, 1)]
    assert TextMDP(1, 3).completions()[0] == (0,)
    with pytest.raises(ValueError, match="at least 1"):
        TextMDP(3, 0)


def test_sums_by_hand() -> None:
    mdp, table = TextMDP(3, 2), np.array([[1.0, 2, 3], [10, 20, 30], [40, 50, 60]])
    assert prefix_sums(mdp, table).tolist() == [0, 1, 2]
    assert sequence_sums(mdp, table).tolist() == [3, 11, 21, 31, 42, 52, 62]
    assert sequence_sums(mdp, np.array([[1.0], [10], [40]])).tolist() == [1] + [11] * 3 + [41] * 3
    assert after(mdp, np.array([1.0, 5, 7])).tolist() == [[5, 7, 0], [0] * 3, [0] * 3]


def test_sums_are_those_of_the_enumerated_texts() -> None:
    table = np.random.default_rng(0).normal(size=(MDP.states, MDP.tokens))
    at = {prefix: i for i, prefix in enumerate(MDP.prefixes())}
    texts = MDP.completions()
    assert len(set(texts)) == len(texts) == sum(3**t for t in range(5)) + 3**5
    assert all(MDP.end not in text[:-1] for text in texts)
    assert all(text[-1] == MDP.end or len(text) == MDP.longest for text in texts)
    wanted = [sum(table[at[text[:t]], a] for t, a in enumerate(text)) for text in texts]
    close(sequence_sums(MDP, table), wanted)
    wanted = [sum(table[at[s[:t]], a] for t, a in enumerate(s)) for s in MDP.prefixes()]
    close(prefix_sums(MDP, table), wanted)
    lengths = sequence_sums(MDP, np.ones((MDP.states, 1)))
    assert lengths.tolist() == [len(text) for text in texts]


@EVERY_SEED
def test_texts_of_a_policy_have_probability_one(seed: int) -> None:
    for policy in pair(seed):
        assert np.exp(sequence_sums(MDP, policy)).sum() == pytest.approx(1, abs=EXACT)


def test_divergences_by_hand() -> None:
    p, q = logs([0.5, 0.5, 0]), logs([0.25, 0.5, 0.25])
    assert kl(p, q) == pytest.approx(math.log(2) / 2)
    assert renyi(p, q, 1) == kl(p, q)
    assert renyi(p, q, 2) == pytest.approx(math.log(1.5))
    assert renyi(p, q, 3) == pytest.approx(math.log(2 + 0.5) / 2)
    assert renyi(p, q, 0.5) == pytest.approx(-2 * math.log(math.sqrt(0.125) + 0.5))
    assert renyi(p, q, 0) == pytest.approx(-math.log(0.75))
    assert renyi(p, q, 1 + 1e-7) == pytest.approx(float(kl(p, q)), abs=1e-6)
    assert kl(q, p) == renyi(q, p, 1.5) == math.inf
    assert renyi(q, p, 0.5) == pytest.approx(renyi(p, q, 0.5))
    assert kl(p, p) == renyi(p, p, 3) == 0


@EVERY_SEED
def test_kl_of_texts_is_the_sum_over_states(seed: int) -> None:
    log_p, log_q = pair(seed)
    texts = sequence_sums(MDP, log_p)
    whole = kl(texts, sequence_sums(MDP, log_q))
    close(whole, expected(texts, states(kl(log_p, log_q))))
    by_reach = np.exp(prefix_sums(MDP, log_p)) @ kl(log_p, log_q)
    close(whole, by_reach)


def test_two_steps_by_hand() -> None:
    """Both first tokens are alike in p and q; only after token 1 is there anything to gain."""
    mdp = TextMDP(3, 2)
    log_p = logs([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.75, 0.25, 0]])
    log_q = logs([[0.5, 0.5, 0]] * 3)
    rewards = log_ratio(log_p, log_q)
    close(np.exp(soft_values(mdp, log_p, rewards)), [1.125, 1, 1.25])
    greedy = tilt(log_p, rewards)
    close(np.exp(greedy), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    best = soft_optimal_policy(mdp, log_p, rewards)
    close(np.exp(best), [[4 / 9, 5 / 9, 0], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    gap = kl(sequence_sums(mdp, greedy), sequence_sums(mdp, best))
    assert gap == pytest.approx(math.log(1.125) - 0.5 * math.log(1.25))


@EVERY_SEED
@pytest.mark.parametrize("beta", [0.4, 1.0, 3.0])
def test_sequence_optimum(seed: int, beta: float) -> None:
    """It is p^(1+1/beta) q^(-1/beta) / Z; any other pi loses beta KL(pi || optimum)."""
    log_p, rewards, totals = problem(seed, "plain")
    texts, other = sequence_sums(MDP, log_p), sequence_sums(MDP, pair(seed)[1])
    best, log_z = tilt(texts, totals, 1 / beta), log_partition(texts, totals, 1 / beta)
    said = texts > -np.inf
    powers = np.zeros_like(texts)
    powers[said] = np.exp(texts[said]) ** (1 + 1 / beta) * np.exp(other[said]) ** (-1 / beta)
    close(np.exp(log_z), powers.sum())
    close(np.exp(best), powers / powers.sum())
    top = expected(best, totals) - beta * kl(best, texts)
    close(top, beta * log_z)
    generator = np.random.default_rng(seed)
    rivals = [tilt(texts, generator.normal(size=texts.shape), scale) for scale in (0.1, 1, 5)]
    for rival in (*rivals, texts, sequence_sums(MDP, tilt(log_p, rewards, 1 / beta))):
        lost = top - (expected(rival, totals) - beta * kl(rival, texts))
        close(lost, beta * kl(rival, best))
        assert lost > 0


@EVERY_SEED
@EVERY_LAMBDA
def test_the_token_wise_constant_is_a_renyi_divergence(seed: int, lam: float) -> None:
    log_p, log_q = pair(seed)
    log_z = log_partition(log_p, log_ratio(log_p, log_q), lam)
    close(log_z, lam * renyi(log_p, log_q, 1 + lam))
    p, q = np.exp(log_p), np.exp(log_q)
    ratios = np.divide(p, q, out=np.zeros_like(p), where=p > 0)
    close(np.exp(log_z), (p * ratios**lam).sum(axis=-1))
    assert (log_z >= -EXACT).all()


@EVERY_KIND
@EVERY_LAMBDA
@EVERY_SEED
def test_distance_of_token_wise_decoding_from_the_optimum(seed: int, lam: float, kind: str) -> None:
    log_p, rewards, totals = problem(seed, kind)
    texts = sequence_sums(MDP, log_p)
    best, log_z = tilt(texts, totals, lam), log_partition(texts, totals, lam)
    greedy = sequence_sums(MDP, tilt(log_p, rewards, lam))
    passed = states(log_partition(log_p, rewards, lam))
    said = texts > -np.inf
    assert ((greedy > -np.inf) == said).all()
    close(best[said] - greedy[said], passed[said] - log_z)
    distance = kl(greedy, best)
    close(distance, log_z - expected(greedy, passed))
    assert distance >= -EXACT
    assert (distance > 1e-4) == (lam > 0)
    close(np.log(expected(greedy, np.exp(passed))), log_z)  # weights that make it the optimum


@EVERY_KIND
@pytest.mark.parametrize("lam", [0.3, 1.0, 2.5])
@EVERY_SEED
def test_token_wise_decoding_is_the_optimum_of_a_reward_less_the_constants(
    seed: int, lam: float, kind: str
) -> None:
    log_p, rewards, totals = problem(seed, kind)
    texts = sequence_sums(MDP, log_p)
    less = totals - states(log_partition(log_p, rewards, lam)) / lam
    close(log_partition(texts, less, lam), 0)
    close(tilt(texts, less, lam), sequence_sums(MDP, tilt(log_p, rewards, lam)))


@EVERY_KIND
@EVERY_LAMBDA
@EVERY_SEED
def test_backward_induction_gives_the_optimum(seed: int, lam: float, kind: str) -> None:
    log_p, rewards, totals = problem(seed, kind)
    texts = sequence_sums(MDP, log_p)
    values = soft_values(MDP, log_p, rewards, lam)
    close(values[0], log_partition(texts, totals, lam))
    best = soft_optimal_policy(MDP, log_p, rewards, lam)
    close(sequence_sums(MDP, best), tilt(texts, totals, lam))
    left_out = tilt(tilt(log_p, rewards, lam), after(MDP, values))
    close(left_out, best)


@pytest.mark.parametrize("state", [0, 2, 7, 60])
def test_soft_values_are_those_of_the_enumerated_rest(state: int) -> None:
    log_p, rewards, totals = problem(1, "plain")
    prefix = MDP.prefixes()[state]
    through = [text[: len(prefix)] == prefix for text in MDP.completions()]
    with np.errstate(invalid="ignore"):
        rest = (sequence_sums(MDP, log_p) - prefix_sums(MDP, log_p)[state])[through]
    earned = (totals - prefix_sums(MDP, rewards)[state])[through]
    assert prefix_sums(MDP, log_p)[state] > -np.inf
    wanted = np.log(expected(rest, np.exp(0.7 * earned)))
    close(soft_values(MDP, log_p, rewards, 0.7)[state], wanted)


@EVERY_SEED
def test_the_optimum_of_the_plain_ratio_ends_less_readily(seed: int) -> None:
    """V(s) >= lam KL of the rest >= 0, and ending forgoes it; a mask can turn this round."""
    log_p, rewards, _ = problem(seed, "plain")
    assert (soft_values(MDP, log_p, rewards, 1.5) >= -EXACT).all()
    best, greedy = soft_optimal_policy(MDP, log_p, rewards, 1.5), tilt(log_p, rewards, 1.5)
    inner = slice(MDP.inner)
    assert (best[inner, MDP.end] <= greedy[inner, MDP.end] + EXACT).all()
    log_p, rewards, _ = problem(seed, "masked and clipped")
    assert (soft_values(MDP, log_p, rewards, 1.5) < -0.1).any()


def gap(log_p: Array, log_q: Array, mdp: TextMDP = MDP, lam: float = 1.0) -> float:
    """KL from token-wise decoding to the sequence optimum."""
    rewards = log_ratio(log_p, log_q)
    best = tilt(sequence_sums(mdp, log_p), sequence_sums(mdp, rewards), lam)
    return float(kl(sequence_sums(mdp, tilt(log_p, rewards, lam)), best))


def everywhere(row: Sequence[float]) -> Array:
    return np.tile(logs(row), (MDP.states, 1))


def test_when_token_wise_decoding_is_exact() -> None:
    """Fixed length and the same divergence in every state; a common ratio is not enough."""
    p, q = everywhere([0.5, 0.3, 0.2, 0]), everywhere([0.2, 0.2, 0.6, 0])
    assert gap(p, q) == pytest.approx(0, abs=EXACT)
    order = np.array([*itertools.permutations(range(3))])[np.arange(MDP.states) % 6]
    order = np.column_stack([order, np.full(MDP.states, 3)])
    shuffled, other = (np.take_along_axis(each, order, axis=1) for each in (p, q))
    assert gap(shuffled, other) == pytest.approx(0, abs=EXACT)
    assert gap(everywhere([0.4, 0.2, 0.2, 0.2]), everywhere([0.2, 0.2, 0.4, 0.2])) > 1e-2
    # p / q is (2, 1, 1/2) in every state, but where q keeps to token 1 that matters less
    p[1::2], q[1::2] = logs([0.1, 0.85, 0.05, 0]), logs([0.05, 0.85, 0.1, 0])
    p[::2], q[::2] = logs([0.4, 0.4, 0.2, 0]), logs([0.2, 0.4, 0.4, 0])
    assert gap(p, q) > 1e-2


def test_alike_policies_and_lambda_zero_change_nothing() -> None:
    log_p, log_q = pair(0)
    nothing = log_ratio(log_p, log_p)
    assert (nothing == 0).all()
    for lam, rewards in ((3.0, nothing), (0.0, log_ratio(log_p, log_q))):
        close(tilt(log_p, rewards, lam), log_p)
        close(soft_optimal_policy(MDP, log_p, rewards, lam), log_p)
        close(soft_values(MDP, log_p, rewards, lam), np.zeros(MDP.states))
    close(renyi(log_p, log_p, 4), np.zeros(MDP.states))


def test_a_token_that_only_p_says_is_refused_unless_masked() -> None:
    mdp = TextMDP(3, 2)
    log_p, log_q = logs([[0.5, 0.25, 0.25]] * 3), logs([[0, 0.5, 0.5]] * 3)
    assert (renyi(log_p, log_q, 2) == math.inf).all()
    for find in (tilt, log_partition):
        with pytest.raises(ValueError, match="finite"):
            find(log_p, log_ratio(log_p, log_q))
    with pytest.raises(ValueError, match="finite"):
        soft_values(mdp, log_p, log_ratio(log_p, log_q))
    rewards = masked_and_clipped(log_p, log_q)
    close(rewards, np.tile([0, -math.log(2), -math.log(2)], (3, 1)))
    close(np.exp(tilt(log_p, rewards)), np.tile([2 / 3, 1 / 6, 1 / 6], (3, 1)))
    assert np.isfinite(soft_values(mdp, log_p, rewards)).all()


@EVERY_KIND
def test_small_lambda(kind: str) -> None:
    """To second order the distance is lam^2/2 Var_p of the sum over states of E_p[r | s]."""
    log_p, rewards, totals = problem(2, kind)
    texts, lam = sequence_sums(MDP, log_p), 1e-3
    foreseen = states(expected(log_p, rewards))

    def variance(values: Array) -> float:
        return float(expected(texts, values**2) - expected(texts, values) ** 2)

    best = tilt(texts, totals, lam)
    distance = kl(sequence_sums(MDP, tilt(log_p, rewards, lam)), best)
    assert 2 * distance / lam**2 == pytest.approx(variance(foreseen), rel=0.02)
    assert 2 * kl(best, texts) / lam**2 == pytest.approx(variance(totals), rel=0.02)


def test_best_of_n_against_all_draws() -> None:
    """Seven texts, two ties, one text that is never drawn."""
    p = np.array([0.1, 0.2, 0.05, 0.25, 0, 0.3, 0.1])
    scores = np.array([1.0, 2, 2, 0, 9, 1, 0.5])
    for n in (1, 2, 3):
        wanted = np.zeros(7)
        for draws in itertools.product(range(7), repeat=n):
            best = [i for i in draws if scores[i] == max(scores[j] for j in draws)]
            for i in best:
                wanted[i] += math.prod(p[j] for j in draws) / len(best)
        close(np.exp(best_of_n(logs(p), scores, n)), wanted)
    nearly = scores + 1e-13 * np.arange(7)
    close(best_of_n(logs(p), nearly, 3), best_of_n(logs(p), scores, 3))


def test_best_of_n_moves_less_than_its_bound() -> None:
    log_p, _, totals = problem(0, "plain")
    texts = sequence_sums(MDP, log_p)
    close(best_of_n(texts, totals, 1), texts)
    reached = []
    for n in (2, 8, 1000):
        chosen = best_of_n(texts, totals, n)
        assert 0 < kl(chosen, texts) < math.log(n) - (n - 1) / n
        reached.append(float(expected(chosen, totals)))
    assert sorted(reached) == reached
    most = totals[texts > -np.inf].max()
    assert expected(best_of_n(texts, totals, 10**9), totals) == pytest.approx(most, abs=1e-6)
