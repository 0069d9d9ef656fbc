"""An exact world for theory: texts as a tabular MDP that is small enough to enumerate.

A text is made of tokens 0..V-1, of which the last ends it, and has at most T tokens. A state is a
prefix that goes on, a completion is a state with the token that closes it::

    TextMDP(tokens=3, longest=2)
    states         ()    (0)    (1)
    completions    (2)   (0,0)  (0,1)  (0,2)  (1,0)  (1,1)  (1,2)

Shapes: S states, C completions, both in this order. A policy is a table (S, V) of
log-probabilities, a token reward a table (S, V); a distribution over whole texts is a vector (C,)
of log-probabilities. All in nats and float64. Sums over a text's tokens include the end token.
Derivations stand in docs/extrapolation-theory.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextMDP:
    """The tree of texts. State s goes on to s(V-1)+1, ..., s(V-1)+V-1, one for each plain token.

    Attributes:
        tokens: V, the end token included; at least 1.
        longest: T, most tokens of a completion, the end token included; at least 1.
    """

    tokens: int
    longest: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.longest < 1:
            raise ValueError(f"tokens and longest must be at least 1, found {self}")

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return self.tokens - 1

    @property
    def states(self) -> int:
        """S."""
        return self._shorter(self.longest)

    @property
    def inner(self) -> int:
        """How many states lead to other states: all that are shorter than T-1 tokens."""
        return self._shorter(self.longest - 1)

    @property
    def closes(self) -> NDArray[np.bool_]:
        """(S, V): whether a token closes the text, as the end token or as the T-th."""
        closes = np.ones((self.states, self.tokens), dtype=np.bool_)
        closes[: self.inner, : self.end] = False
        return closes

    def level(self, length: int) -> slice:
        """The states of this many tokens."""
        return slice(self._shorter(length), self._shorter(length + 1))

    def prefixes(self) -> list[tuple[int, ...]]:
        """S states as token ids."""
        lengths = range(self.longest)
        return [each for t in lengths for each in itertools.product(range(self.end), repeat=t)]

    def completions(self) -> list[tuple[int, ...]]:
        """C completions as token ids."""
        prefixes = self.prefixes()
        return [(*prefixes[s], int(a)) for s, a in np.argwhere(self.closes)]

    def _shorter(self, length: int) -> int:
        return sum(self.end**t for t in range(length))


def random_policy(mdp: TextMDP, generator: np.random.Generator, scale: float = 1.0) -> Array:
    """A policy (S, V) with independent normal logits of this standard deviation."""
    logits = generator.normal(scale=scale, size=(mdp.states, mdp.tokens))
    return tilt(np.zeros_like(logits), logits)


def prefix_sums(mdp: TextMDP, table: Array) -> Array:
    """Sum (S,) of a table (S, V) along each prefix; of log pi, the log-probability to get there."""
    sums = np.zeros(mdp.states)
    for length in range(mdp.longest - 1):
        here = mdp.level(length)
        sums[mdp.level(length + 1)] = (sums[here, None] + table[here, : mdp.end]).ravel()
    return sums


def sequence_sums(mdp: TextMDP, table: Array) -> Array:
    """Sum (C,) over each completion's tokens of a table (S, V), or of its states of one (S, 1)."""
    table = np.broadcast_to(table, (mdp.states, mdp.tokens))
    sums: Array = (prefix_sums(mdp, table)[:, None] + table)[mdp.closes]
    return sums


def log_ratio(log_p: Array, log_q: Array) -> Array:
    """log p - log q, any shape; 0 where p is 0, infinite where only q is."""
    return np.subtract(log_p, log_q, out=np.zeros_like(log_p), where=log_p > -np.inf)


def expected(log_p: Array, values: Array) -> Array:
    """Mean of values (..., K) under probabilities (..., K): (...); values count where p > 0."""
    mean: Array = (np.exp(log_p) * np.where(log_p > -np.inf, values, 0.0)).sum(axis=-1)
    return mean


def kl(log_p: Array, log_q: Array) -> Array:
    """KL(p || q) over the last axis: (S, V) gives one for each state, (C,) that of the texts."""
    return expected(log_p, log_ratio(log_p, log_q))


def renyi(log_p: Array, log_q: Array, order: float) -> Array:
    """Renyi divergence D_order(p || q) over the last axis; order 1 is KL (Renyi, 1961)."""
    if order == 1:
        return kl(log_p, log_q)
    return _log_sum(log_p + (order - 1) * log_ratio(log_p, log_q)) / (order - 1)


def log_partition(log_p: Array, rewards: Array, lam: float = 1.0) -> Array:
    """log Z = log E_p[exp(lam r)] over the last axis; arguments as in `tilt`."""
    return _log_sum(_tilted(log_p, rewards, lam))


def tilt(log_p: Array, rewards: Array, lam: float = 1.0) -> Array:
    """log of p exp(lam r) / Z, which maximises E_pi[r] - KL(pi || p) / lam.

    Given a policy and a token reward (S, V) it tilts every state on its own: token-wise decoding,
    which for r = log p - log q is p^(1+lam) q^(-lam). Given texts (C,) it is the sequence optimum.

    Args:
        log_p: (..., K).
        rewards: (..., K); finite wherever p > 0, and of no effect elsewhere.
        lam: 1 / beta, at least 0.

    Raises:
        ValueError: a reward is not finite where p > 0.
    """
    tilted = _tilted(log_p, rewards, lam)
    return tilted - _log_sum(tilted)[..., None]


def soft_values(mdp: TextMDP, log_p: Array, rewards: Array, lam: float = 1.0) -> Array:
    """V(s) = log E_p[exp(lam r of the rest)] (S,), by backward induction; V of () is log Z."""
    tilted = _tilted(log_p, rewards, lam)
    values = np.zeros(mdp.states)
    for length in reversed(range(mdp.longest)):
        here = mdp.level(length)
        values[here] = _log_sum((tilted + after(mdp, values))[here])
    return values


def after(mdp: TextMDP, values: Array) -> Array:
    """Value (S, V) of the state that each token leads to, from values (S,); 0 once closed."""
    following = np.zeros((mdp.states, mdp.tokens))
    following[: mdp.inner, : mdp.end] = values[1:].reshape(mdp.inner, mdp.end)
    return following


def soft_optimal_policy(mdp: TextMDP, log_p: Array, rewards: Array, lam: float = 1.0) -> Array:
    """The sequence optimum as a policy (S, V): p(a|s) exp(lam r(a|s) + V(s a)) / exp V(s)."""
    following = after(mdp, soft_values(mdp, log_p, rewards, lam))
    return tilt(_tilted(log_p, rewards, lam), following)


def best_of_n(log_p: Array, scores: Array, n: int) -> Array:
    """log-probability (C,) of each text to be the best of n draws: F(y)^n - F(y-)^n.

    F is the distribution function of the scores under p. Texts whose scores agree to nine
    decimals are tied, and of tied draws any is as likely to be kept as another.
    """
    groups = np.unique(np.round(scores, 9), return_inverse=True)[1]
    mass = np.bincount(groups, weights=np.exp(log_p))
    upper = np.cumsum(mass)
    with np.errstate(divide="ignore", invalid="ignore"):
        # log(F^n - (F - m)^n) without cancellation
        kept = n * np.log(upper) + np.log(-np.expm1(n * np.log1p(-np.minimum(mass / upper, 1))))
        within: Array = np.where(log_p > -np.inf, (kept - np.log(mass))[groups], 0.0)
    chosen = log_p + within
    return chosen - _log_sum(chosen)[..., None]


def _tilted(log_p: Array, rewards: Array, lam: float) -> Array:
    """log p + lam r, where a reward that p never earns counts nothing."""
    counted = np.where(log_p > -np.inf, rewards, 0.0)
    if not np.isfinite(counted).all():
        raise ValueError("rewards must be finite wherever the policy has support")
    tilted: Array = log_p + lam * counted
    return tilted


def _log_sum(values: Array) -> Array:
    sums: Array = np.logaddexp.reduce(values, axis=-1)
    return sums
