"""The f-divergences between demonstrator and policy, and the reward that each gives the policy.

D_f(P || Q) = sum q f(p / q) with P the demonstrator's distribution and Q the policy's (appendix D).
With the log-ratio h = log p - log q, which is the optimal discriminator's logit (Eq. 9, 12 and 31),

    critic     T*(h) = f'(e^h)        makes the bound of Eq. 23 tight
    reward     r(h) = f*(f'(e^h)) = e^h f'(e^h) - f(e^h)

and minus the gradient of D_f in the policy's parameters is the policy gradient of r, held fixed:
grad D_f = sum grad q (f - e^h f'). Here f* is the conjugate, f*(t) = sup_u (u t - f(u)).

=====  ====================  =============================  ================================
name   D_f(P || Q)           f(u)                           r(h), up to a constant
=====  ====================  =============================  ================================
airl   KL(Q || P), reverse   -log u                         h
gail   2 JS(P, Q)            u log u - (u+1) log((u+1)/2)   softplus(h) = -log(1-D)
fairl  KL(P || Q), forward   u log u                        exp(h)
alpha  D_alpha(P || Q)       see `generator`                (exp((1-alpha) h) - 1)/(1-alpha)
=====  ====================  =============================  ================================

The paper calls gail's divergence JS; with its f it is twice the Jensen-Shannon divergence.
alpha = 1 is reverse KL and alpha = 0 forward KL. A constant in the reward does not matter between
distributions, whose masses sum to 1: trajectories. Occupancy measures of texts sum to the mean
length, so that at the token level a constant pays for every token: see `offset` and
`equal_offset`. All functions are elementwise and differentiable; h, T and what they give are in
nats.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

DivergenceName = Literal["airl", "gail", "fairl", "alpha"]
DIVERGENCES: tuple[DivergenceName, ...] = get_args(DivergenceName)


def policy_reward(name: DivergenceName, log_ratio: Tensor, alpha: float | None = None) -> Tensor:
    """r(h) of the table: what the policy earns for what it said.

    Args:
        name: which divergence.
        log_ratio: h, any shape; a discriminator's logits.
        alpha: of ``alpha``, any real number; None for the others.

    Returns:
        The reward, of the same shape. ``fairl`` and ``alpha`` < 1 grow exponentially in h: clip h.

    Raises:
        ValueError: no such divergence, or alpha is missing or not wanted.
    """
    order = _order(name, alpha)
    if name == "airl":
        return log_ratio
    if name == "gail":
        return softplus(log_ratio)
    return log_ratio.exp() if name == "fairl" else _grow(log_ratio, 1 - order)


def offset(name: DivergenceName, alpha: float | None = None) -> float:
    """f*(f'(e^h)) - r(h): the constant that `policy_reward` leaves out.

    It has to be added where masses do not sum to 1, as those of state-action pairs of texts of
    different lengths.
    """
    _order(name, alpha)
    return {"airl": -1.0, "gail": -math.log(2)}.get(name, 0.0)


def equal_offset(name: DivergenceName, alpha: float | None = None) -> float:
    """-r(0): with it nothing is earned by what both say equally often.

    It belongs to f(u) - f'(1) (u - 1), which between distributions has the divergence of f. Of
    masses that do not sum to 1, as occupancy measures', it makes a divergence too, never below 0
    and 0 between equals only; f as the paper prints it does so for gail and alpha, but not for
    airl and fairl.
    """
    _order(name, alpha)
    return {"gail": -math.log(2), "fairl": -1.0}.get(name, 0.0)


def generator(name: DivergenceName, log_ratio: Tensor, alpha: float | None = None) -> Tensor:
    """f(e^h) of appendix D; for ``alpha`` (u^(1-a) - (1-a) u - a) / (a (a-1)) with its limits.

    The limits are -log u + u - 1 at a = 1 and u log u - u + 1 at a = 0: the KL divergences with a
    term that vanishes between distributions.
    """
    order = _order(name, alpha)
    ratio = log_ratio.exp()
    if name == "airl":
        return -log_ratio
    if name == "fairl":
        return ratio * log_ratio
    if name == "gail":
        return ratio * log_ratio - (ratio + 1) * (softplus(log_ratio) - math.log(2))
    return ratio * _grow(log_ratio, -order) - _grow(log_ratio, 1 - order)


def critic(name: DivergenceName, log_ratio: Tensor, alpha: float | None = None) -> Tensor:
    """T* = f'(e^h), the critic that makes Eq. 23 tight."""
    order = _order(name, alpha)
    if name == "airl":
        return -(-log_ratio).exp()
    if name == "fairl":
        return log_ratio + 1
    if name == "gail":
        return math.log(2) - softplus(-log_ratio)
    return _grow(log_ratio, -order)


def conjugate(name: DivergenceName, value: Tensor, alpha: float | None = None) -> Tensor:
    """f*(t) = sup_u (u t - f(u)); NaN or infinite where the supremum is.

    Its domain is t < 0 for ``airl``, t < log 2 for ``gail`` and alpha t < 1 for ``alpha``.
    """
    order = _order(name, alpha)
    if name == "airl":
        return -1 - (-value).log()
    if name == "fairl":
        return (value - 1).exp()
    if name == "gail":
        return -torch.log(2 - value.exp())
    log_ratio = value if order == 0 else -torch.log1p(-order * value) / order
    return _grow(log_ratio, 1 - order)


def divergence(
    name: DivergenceName, log_p: Tensor, log_q: Tensor, alpha: float | None = None
) -> Tensor:
    """D_f(P || Q) over the last axis, summed where q > 0.

    Args:
        name: which divergence.
        log_p: (..., K) of the demonstrator; a mass where q has none is not counted.
        log_q: (..., K) of the policy.
        alpha: of ``alpha``.

    Returns:
        (...) nats.
    """
    known = log_q > -math.inf
    log_ratio = torch.where(known, log_p - torch.where(known, log_q, 0.0), 0.0)
    terms = log_q.exp() * generator(name, log_ratio, alpha)
    return torch.where(known, terms, 0.0).sum(-1)


def _order(name: str, alpha: float | None) -> float:
    if name not in DIVERGENCES:
        raise ValueError(f"divergence: must be one of {', '.join(DIVERGENCES)}, found {name!r}")
    if (name == "alpha") != (alpha is not None):
        rule = "needs a number" if name == "alpha" else f"belongs to alpha only, not to {name}"
        raise ValueError(f"alpha: {rule}, found {alpha}")
    if alpha is not None and not math.isfinite(alpha):
        raise ValueError(f"alpha: must be finite, found {alpha}")
    return 0.0 if alpha is None else alpha


def _grow(log_ratio: Tensor, rate: float) -> Tensor:
    """(exp(rate h) - 1) / rate, which is h at rate 0."""
    return log_ratio if rate == 0 else torch.expm1(rate * log_ratio) / rate
