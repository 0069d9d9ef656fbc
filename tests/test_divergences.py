"""Each divergence against exact enumeration on a small MDP, with autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from demoalign.divergences import (
    DivergenceName,
    conjugate,
    critic,
    divergence,
    equal_offset,
    generator,
    offset,
    policy_reward,
)
from demoalign.lab.mdp import TextMDP
from tests.lab.exact import LOG2, Exact, close, gradient

ALPHAS = (-1.0, -0.3, 0.0, 0.25, 0.5, 0.9, 1.0, 1.5, 2.0)
EACH: list[tuple[DivergenceName, float | None]] = [
    ("airl", None),
    ("gail", None),
    ("fairl", None),
    *(("alpha", alpha) for alpha in ALPHAS),
]
EVERY = pytest.mark.parametrize(("name", "alpha"), EACH)
TEXTS = Exact(TextMDP(3, 4))
RATIOS = torch.linspace(-3, 3, 25, dtype=torch.float64)


def two(world: Exact = TEXTS) -> tuple[Tensor, Tensor]:
    """Logits of a demonstrator and of a policy that can be differentiated."""
    return world.logits(0), world.logits(1).requires_grad_()


# The table


def test_generators_by_hand() -> None:
    u = RATIOS.exp()
    close(generator("airl", RATIOS), -u.log())
    close(generator("gail", RATIOS), -(u + 1) * ((1 + u) / 2).log() + u * u.log())
    close(generator("fairl", RATIOS), u * u.log())
    for a in (-1.0, 0.25, 0.5, 1.5, 2.0):
        wanted = (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1))
        close(generator("alpha", RATIOS, a), wanted)


@EVERY
def test_reward_critic_and_conjugate_follow_from_the_generator(
    name: DivergenceName, alpha: float | None
) -> None:
    u = RATIOS.exp().requires_grad_()
    value = generator(name, u.log(), alpha)
    slope = gradient(value.sum(), u)
    close(critic(name, RATIOS, alpha), slope)
    wanted = u.detach() * slope - value.detach()  # f*(f'(u)), as f is convex
    close(conjugate(name, slope, alpha), wanted)
    close(policy_reward(name, RATIOS, alpha) + offset(name, alpha), wanted)


@EVERY
def test_the_conjugate_is_a_supremum(name: DivergenceName, alpha: float | None) -> None:
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    values = critic(name, RATIOS, alpha)[:, None] * grid.exp() - generator(name, grid, alpha)
    found, best = conjugate(name, critic(name, RATIOS, alpha), alpha), values.amax(1)
    assert (found >= best - 1e-9).all()
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-3)


def test_alpha_goes_over_into_the_kl_divergences() -> None:
    for near in (0.0, 1e-7, -1e-7):
        reward = policy_reward("alpha", RATIOS, near)
        torch.testing.assert_close(reward, policy_reward("fairl", RATIOS) - 1, rtol=1e-5, atol=1e-5)
        reward = policy_reward("alpha", RATIOS, 1 + near)
        torch.testing.assert_close(reward, policy_reward("airl", RATIOS), rtol=1e-5, atol=1e-5)


def test_the_rewards_by_hand() -> None:
    h = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    close(policy_reward("airl", h), h)
    close(policy_reward("gail", h), -torch.log(1 - torch.sigmoid(h)))
    close(policy_reward("fairl", h), h.exp())
    close(policy_reward("alpha", h, 0.5), 2 * ((h / 2).exp() - 1))
    close(policy_reward("alpha", h, 2.0), 1 - (-h).exp())


@pytest.mark.parametrize(
    ("name", "alpha", "said"),
    [("kl", None, "airl, gail"), ("alpha", None, "needs a number"), ("gail", 0.5, "alpha only")],
)
def test_bad_names_are_told(name: DivergenceName, alpha: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy_reward(name, RATIOS, alpha)


# The divergences


def test_divergences_are_those_of_the_table() -> None:
    demonstrator, logits = two()
    log_p, log_q = TEXTS.texts(TEXTS.policy(demonstrator)), TEXTS.texts(TEXTS.policy(logits))
    p, q, middle = log_p.exp(), log_q.exp(), torch.logaddexp(log_p, log_q) - LOG2
    close(divergence("airl", log_p, log_q), (q * (log_q - log_p)).sum())
    close(divergence("fairl", log_p, log_q), (p * (log_p - log_q)).sum())
    js = ((p * (log_p - middle)).sum() + (q * (log_q - middle)).sum()) / 2
    close(divergence("gail", log_p, log_q), 2 * js)
    close(divergence("alpha", log_p, log_q, 1.0), divergence("airl", log_p, log_q))
    close(divergence("alpha", log_p, log_q, 0.0), divergence("fairl", log_p, log_q))


@EVERY
def test_divergences_are_positive_and_zero_between_equals(
    name: DivergenceName, alpha: float | None
) -> None:
    demonstrator, logits = two()
    log_p, log_q = TEXTS.texts(TEXTS.policy(demonstrator)), TEXTS.texts(TEXTS.policy(logits))
    assert divergence(name, log_p, log_q, alpha) > 0.01
    close(divergence(name, log_p, log_p, alpha), torch.zeros((), dtype=torch.float64))


@EVERY
@pytest.mark.parametrize("level", ["trajectory", "token"])
def test_the_bound_is_tight_at_the_critic_and_below_elsewhere(
    name: DivergenceName, alpha: float | None, level: str
) -> None:
    """Eq. 23 and 24, between trajectory distributions and between occupancy measures."""
    measure = TEXTS.texts if level == "trajectory" else TEXTS.occupancy
    demonstrator, logits = two()
    log_p, log_q = measure(TEXTS.policy(demonstrator)), measure(TEXTS.policy(logits)).detach()
    best = log_p - log_q

    def bound(log_ratio: Tensor) -> Tensor:
        value = critic(name, log_ratio, alpha)
        return (log_p.exp() * value - log_q.exp() * conjugate(name, value, alpha)).sum()

    close(bound(best), divergence(name, log_p, log_q, alpha))
    noise = torch.randn(best.shape, generator=torch.Generator().manual_seed(2), dtype=best.dtype)
    for size in (0.01, 0.3, -0.3):
        assert bound(best + size * noise) < bound(best)


@EVERY
def test_policy_gradient_of_the_reward_is_minus_the_divergences_gradient(
    name: DivergenceName, alpha: float | None
) -> None:
    """Eq. 25 at the trajectory level, whatever constant the reward has."""
    demonstrator, logits = two()
    log_p, log_q = TEXTS.texts(TEXTS.policy(demonstrator)), TEXTS.texts(TEXTS.policy(logits))
    wanted = -gradient(divergence(name, log_p, log_q, alpha), logits)
    for constant in (0.0, 3.0):
        reward = policy_reward(name, (log_p - log_q).detach(), alpha) + constant
        close(gradient((log_q.exp() * reward).sum(), logits), wanted)


@EVERY
def test_policy_gradient_at_the_token_level(name: DivergenceName, alpha: float | None) -> None:
    """Eq. 25 over occupancy measures: with the offset, which pays or charges for every token."""
    demonstrator, logits = two()
    log_p = TEXTS.occupancy(TEXTS.policy(demonstrator))
    log_q = TEXTS.occupancy(TEXTS.policy(logits))
    wanted = -gradient(divergence(name, log_p, log_q, alpha), logits)
    bare = policy_reward(name, (log_p - log_q).detach(), alpha)
    found = gradient((log_q.exp() * (bare + offset(name, alpha))).sum(), logits)
    close(found, wanted)
    if offset(name, alpha):
        without = gradient((log_q.exp() * bare).sum(), logits)
        assert (without - wanted).abs().max() > 1e-3


def balanced(name: DivergenceName, log_p: Tensor, log_q: Tensor, alpha: float | None) -> Tensor:
    """D_f with f(u) - f'(1) (u - 1) in f's place."""
    slope = float(critic(name, torch.zeros((), dtype=torch.float64), alpha))
    return divergence(name, log_p, log_q, alpha) - slope * (log_p.exp() - log_q.exp()).sum()


@EVERY
def test_between_occupancy_measures_the_equal_offset_makes_a_divergence(
    name: DivergenceName, alpha: float | None
) -> None:
    """Its policy gradient is minus that of f less its slope at 1, which is smallest at equals."""
    demonstrator, logits = two()
    log_p = TEXTS.occupancy(TEXTS.policy(demonstrator))
    log_q = TEXTS.occupancy(TEXTS.policy(logits))
    wanted = -gradient(balanced(name, log_p, log_q, alpha), logits)
    reward = policy_reward(name, (log_p - log_q).detach(), alpha) + equal_offset(name, alpha)
    close(gradient((log_q.exp() * reward).sum(), logits), wanted)
    close(policy_reward(name, RATIOS * 0, alpha) + equal_offset(name, alpha), RATIOS * 0)

    for scale in (0.5, 1.0, 2.0):  # masses that differ by as much as lengths may
        assert balanced(name, log_p, log_q + math.log(scale), alpha) > 0.01


@EVERY
def test_as_printed_two_divergences_are_not_smallest_at_the_demonstrator(
    name: DivergenceName, alpha: float | None
) -> None:
    """Between occupancy measures: their gradient there is that of the mean length."""
    same = TEXTS.logits(0).requires_grad_()
    log_p = TEXTS.occupancy(TEXTS.policy(TEXTS.logits(0)))
    log_q = TEXTS.occupancy(TEXTS.policy(same))
    nothing = torch.zeros_like(same)
    close(gradient(balanced(name, log_p, log_q, alpha), same), nothing)
    printed = gradient(divergence(name, log_p, log_q, alpha), same)
    length = gradient(log_q.exp().sum(), same)
    close(printed, {"airl": length, "fairl": -length}.get(name, nothing))


@EVERY
def test_constants_do_not_matter_among_texts_of_one_length(
    name: DivergenceName, alpha: float | None
) -> None:
    world = Exact(TextMDP(3, 4), fixed_length=True)
    demonstrator, logits = two(world)
    log_p = world.occupancy(world.policy(demonstrator))
    log_q = world.occupancy(world.policy(logits))
    live = log_q > -500  # what no text of this length contains has no mass
    log_p, log_q = log_p[live], log_q[live]
    reward = policy_reward(name, (log_p - log_q).detach(), alpha) + 5
    wanted = -gradient(divergence(name, log_p, log_q, alpha), logits)
    torch.testing.assert_close(
        gradient((log_q.exp() * reward).sum(), logits), wanted, rtol=1e-7, atol=1e-9
    )


# The discriminator


@pytest.mark.parametrize("level", ["trajectory", "token"])
def test_the_optimal_discriminators_logit_is_the_log_ratio(level: str) -> None:
    """Eq. 9, 11, 12, 31 and 33: stationary, and lower wherever the logit is another."""
    measure = TEXTS.texts if level == "trajectory" else TEXTS.occupancy
    demonstrator, logits = two()
    log_p, log_q = measure(TEXTS.policy(demonstrator)), measure(TEXTS.policy(logits)).detach()
    log_sigmoid = torch.nn.functional.logsigmoid

    def objective(logit: Tensor) -> Tensor:
        return (log_p.exp() * log_sigmoid(logit) + log_q.exp() * log_sigmoid(-logit)).sum()

    best = (log_p - log_q).requires_grad_()
    close(torch.sigmoid(best), log_p.exp() / (log_p.exp() + log_q.exp()))
    close(gradient(objective(best), best), torch.zeros_like(best))
    for shift in (-0.5, 0.5):
        assert objective(best + shift) < objective(best)


def test_the_minimax_value_is_the_jensen_shannon_divergence() -> None:
    """Eq. 34 to 36: max over D of the discriminator's objective is 2 JS - 2 log 2."""
    demonstrator, logits = two()
    log_p, log_q = TEXTS.texts(TEXTS.policy(demonstrator)), TEXTS.texts(TEXTS.policy(logits))
    share = torch.sigmoid(log_p - log_q)
    value = (log_p.exp() * share.log() + log_q.exp() * (1 - share).log()).sum()
    close(value, divergence("gail", log_p, log_q) - 2 * LOG2)
    assert math.isclose(2 * LOG2, -2 * offset("gail"))


def test_the_minimax_value_between_pairs_pays_for_every_token() -> None:
    """Eq. 35: 2 JS less log 2 times both mean lengths, so that its minimum is not Eq. 34's."""
    demonstrator, logits = two()
    log_p = TEXTS.occupancy(TEXTS.policy(demonstrator))
    log_q = TEXTS.occupancy(TEXTS.policy(logits))
    share = torch.sigmoid(log_p - log_q).detach()

    def played() -> Tensor:
        return (log_p.exp() * share.log() + log_q.exp() * (1 - share).log()).sum()

    lengths = log_p.exp().sum() + log_q.exp().sum()
    both = divergence("gail", log_p, log_q)
    close(played(), both - lengths * LOG2)
    paid = gradient(lengths * LOG2, logits)
    close(gradient(played(), logits), gradient(both, logits) - paid)
    assert paid.abs().max() > 1e-3
