"""The token-level reward in closed form: pure maths on the log-probabilities of two policies.

The ratio log p - log q of a token is Eq. 9 and 12, token by token. It says what p has learned
where q knows its way. It does not where q finds the token all but impossible, nor right after
such a token: there q has never been, guesses, and every token that p is sure of looks good. So
tokens count inside q's support only, and only once q has been inside for a while.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.config import RatioConfig
from demoalign.policies.within import log_masses

Array = NDArray[np.float64]


def token_rewards(
    logprobs: Tensor,
    reference: Tensor,
    highest: Tensor,
    config: RatioConfig,
    excess: Tensor | None = None,
) -> Tensor:
    """Rewards (..., T) of a completion's tokens, 0 for those that do not count.

    Args:
        logprobs: (..., T) log p of each token, nats.
        reference: (..., T) log q of each token.
        highest: (..., T) log q of the likeliest token at each place.
        config: form, clip, support and memory. ``log_ratio`` is log p - log q;
            ``jensen_shannon`` is log(2 p / (p + q)), which is at most log 2.
        excess: (..., T) log p(S) - log q(S), where S is q's support at each place; what
            ``conditional`` takes off log p - log q.

    Raises:
        ValueError: conditional, without the excess.
    """
    inside = inside_support(reference, highest, config)
    counts = inside & (tokens_since_outside(inside) >= config.memory)
    delta = logprobs - reference
    if config.conditional:
        if excess is None:
            raise ValueError("ratio.conditional: needs what both policies give to q's support")
        delta = delta - excess
    return shaped(delta, config).masked_fill(~counts, 0.0)


def next_rewards(
    logprobs: Tensor,
    reference: Tensor,
    since: Tensor,
    config: RatioConfig,
    where: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Rewards that possible next tokens would get, as `token_rewards` gives them.

    Args:
        logprobs: (B, V) log p.
        reference: (B, V) log q.
        since: (B,) tokens since the last one outside q's support.
        config: as there.
        where: rows and tokens (N,) that are asked about; None for all.

    Returns:
        (N,), or (B, V) for all.
    """
    highest = reference.amax(-1, keepdim=True)
    excess = torch.zeros_like(highest)
    if config.conditional:
        support = inside_support(reference, highest, config)
        own, its = log_masses(support, logprobs, reference)
        excess = (own - its)[:, None]
    is_back = (since >= config.memory)[:, None]
    if where is not None:
        logprobs, reference = logprobs[where], reference[where]
        highest, excess, is_back = (each[where[0], 0] for each in (highest, excess, is_back))
    counts = inside_support(reference, highest, config) & is_back
    return shaped(logprobs - reference - excess, config).masked_fill(~counts, 0.0)


def shaped(delta: Tensor, config: RatioConfig) -> Tensor:
    """The log-ratios in the form that is asked for, clipped; any shape."""
    if config.form == "jensen_shannon":
        delta = math.log(2) - torch.nn.functional.softplus(-delta)
    return delta if config.clip is None else delta.clamp(-config.clip, config.clip)


def inside_support(reference: Tensor, highest: Tensor, config: RatioConfig) -> Tensor:
    """Whether q can say tokens: log q and that of the likeliest one in their place; any shape."""
    limit = config.threshold
    inside = torch.ones_like(reference, dtype=torch.bool) if limit is None else reference > limit
    if config.min_p is not None:
        inside &= reference >= highest + math.log(config.min_p)
    return inside


def support_of(logprobs: Sequence[float], outside: float) -> float:
    """The limit (nats) below which a share of q's own tokens lies.

    Args:
        logprobs: log q of tokens that q itself has sampled, without truncation.
        outside: the share.
    """
    return float(np.quantile(np.asarray(logprobs, dtype=np.float64), outside))


def tokens_since_outside(inside: Tensor) -> Tensor:
    """(..., T) how many tokens lie between each token and the last one outside before it.

    Where there is none before, more than any `RatioConfig.memory`.
    """
    steps = torch.arange(inside.shape[-1], device=inside.device)
    if not len(steps):
        return torch.zeros_like(inside, dtype=torch.long)
    last = torch.where(inside, NEVER, steps).cummax(-1).values
    before = torch.nn.functional.pad(last[..., :-1], (1, 0), value=NEVER)
    return steps - 1 - before


NEVER = -(2**30)
"""The place of a token that never was."""


def paid_once(rewards: Array, ids: Sequence[int], size: int | None) -> Array:
    """Rewards (T,) of a text's tokens, minus their size where the text says something again.

    A sum over tokens would pay for a good sentence as often as it is said. -|r| and not 0, since
    what is said again also keeps worse from being said.

    Args:
        rewards: (T,) of each token.
        ids: (T,) the tokens.
        size: as in `repeated`; None leaves the rewards alone.
    """
    return rewards if size is None else np.where(repeated(ids, size), -np.abs(rewards), rewards)


def repeated(ids: Sequence[int], size: int) -> NDArray[np.bool_]:
    """(T,) which tokens belong to a run of ``size`` tokens that begins earlier in the text too."""
    found, seen = np.zeros(len(ids), dtype=np.bool_), set[tuple[int, ...]]()
    for end in range(size, len(ids) + 1):
        run = tuple(ids[end - size : end])
        if run in seen:
            found[end - size : end] = True
        seen.add(run)
    return found
