"""Advantages and losses by hand and against an exact gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from demoalign.improve.policy_gradient import (
    SCALE_FLOOR,
    gae,
    grpo_advantages,
    kl_penalised,
    kl_to_reference,
    masked_mean,
    returns_to_go,
    rloo_advantages,
    sequence_loss,
    token_loss,
    value_loss,
    whitened,
)
from demoalign.lab.mdp import TextMDP
from tests.lab.exact import Exact, close, gradient

NAN = float("nan")
MASK = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)


def tokens(seed: int, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(MASK.shape, generator=generator, dtype=torch.float64)
    return (drawn * scale - 1) * MASK


# Advantages


def test_rloo_by_hand() -> None:
    found = rloo_advantages(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]))
    close(found, torch.tensor([[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]]))


def test_grpo_by_hand() -> None:
    found = grpo_advantages(torch.tensor([[1.0, 3.0]], dtype=torch.float64))
    size = 1 / (2**0.5 + SCALE_FLOOR)
    close(found, torch.tensor([[-size, size]], dtype=torch.float64))
    assert grpo_advantages(torch.full((1, 4), 7.0)).abs().max() == 0


@pytest.mark.parametrize("advantages", [rloo_advantages, grpo_advantages])
def test_what_is_not_scored_moves_nothing_and_is_no_baseline(advantages: object) -> None:
    assert callable(advantages)
    whole = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    gap = torch.tensor([[1.0, NAN, 2.0, 6.0]], dtype=torch.float64)
    close(advantages(gap)[:, [0, 2, 3]], advantages(whole))
    assert advantages(gap)[0, 1] == 0
    lonely = torch.tensor([[NAN, 5.0], [NAN, NAN]])
    assert advantages(lonely).abs().max() == 0


def test_returns_to_go_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 9.0]]).double()
    mask = torch.tensor([[1.0, 1, 1, 0]]).double()
    close(returns_to_go(rewards, mask), torch.tensor([[7.0, 6, 4, 0]]).double())


def test_gae_by_hand_and_at_its_ends() -> None:
    rewards = torch.tensor([[0.5, 0.0, 2.0, 9.0]]).double()
    values = torch.tensor([[1.0, 3.0, -1.0, 8.0]]).double()
    mask = torch.tensor([[1.0, 1, 1, 0]]).double()
    errors = [0.5 + 3 - 1, 0 - 1 - 3, 2 + 1]
    decay = 0.5
    wanted = [
        errors[0] + decay * (errors[1] + decay * errors[2]),
        errors[1] + decay * errors[2],
        errors[2],
        0,
    ]
    close(gae(rewards, values, mask, decay), torch.tensor([wanted]).double())
    close(gae(rewards, values, mask, 0.0), torch.tensor([[*errors, 0]]).double())
    close(gae(rewards, values, mask, 1.0), returns_to_go(rewards, mask) - values * mask)


def test_whitening() -> None:
    found = whitened(tokens(0), MASK)[MASK.bool()]
    assert float(found.mean()) == pytest.approx(0, abs=1e-9)
    assert float(found.std()) == pytest.approx(1, abs=1e-2)
    assert whitened(torch.ones(1, 1), torch.ones(1, 1)).item() == 0


# Losses


def test_kl_by_hand() -> None:
    logprobs, reference = tokens(0), tokens(1)
    gap = reference - logprobs
    close(kl_to_reference(logprobs, reference), gap.exp() - 1 - gap)
    assert (kl_to_reference(logprobs, reference) >= 0).all()
    rewards = torch.tensor([1.0, 2.0, 3.0]).double()
    close(kl_penalised(rewards, logprobs, reference, 0.5), rewards + 0.5 * gap.sum(-1))


def test_the_kl_penaltys_mean_gradient_is_the_divergences() -> None:
    """Over all tokens of one state; without importance weights it is the other divergence's."""
    world = Exact(TextMDP(5, 1))
    logits = world.logits(0).requires_grad_()
    log_q, log_ref = world.policy(logits)[0], world.policy(world.logits(1))[0]
    old = log_q.detach()
    backward = (log_q.exp() * (log_q - log_ref)).sum()
    forward = (log_ref.exp() * (log_ref - log_q)).sum()
    weighted = (old.exp() * kl_to_reference(log_q, log_ref, old)).sum()
    plain = (old.exp() * kl_to_reference(log_q, log_ref)).sum()
    close(weighted, backward)
    close(plain, backward)
    close(gradient(weighted, logits), gradient(backward, logits))
    close(gradient(plain, logits), gradient(forward, logits))
    assert (gradient(forward, logits) - gradient(backward, logits)).abs().max() > 0.01


def test_clipping_takes_the_worse_of_both() -> None:
    old = torch.zeros(4, 1, dtype=torch.float64)
    moved = torch.tensor([0.5, 0.5, -0.5, -0.5]).double()[:, None].requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    found = gradient(sequence_loss(moved, old, advantages, 0.2), moved).squeeze(1)
    up, down = torch.tensor(0.5).double().exp() / 4, torch.tensor(-0.5).double().exp() / 4
    close(found, torch.stack([torch.zeros_like(up), up, -down, torch.zeros_like(up)]))
    mask = torch.ones_like(old)
    close(
        token_loss(moved, old, advantages[:, None], mask, 0.2),
        sequence_loss(moved, old, advantages, 0.2),
    )


def test_means_by_completion_and_by_token() -> None:
    values = torch.arange(12).double().reshape(3, 4)
    close(masked_mean(values, MASK, by_completion=True), torch.tensor(5, dtype=torch.float64))
    close(masked_mean(values, MASK, by_completion=False), torch.tensor(50 / 9, dtype=torch.float64))


def test_value_loss_by_hand() -> None:
    one = torch.ones(1, 2)
    found = value_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]), 2 * one, one, 0.5)
    # the second has moved too far: its clipped value 1.5 is nearer, the worse error counts
    assert found.item() == pytest.approx((1 + 1) / 2 / 2)


# The gradient


def test_rloos_mean_gradient_is_the_exact_one() -> None:
    """Over all pairs of texts, weighted by their probability: the objective's own gradient."""
    world = Exact(TextMDP(2, 3))
    logits = world.logits(0).requires_grad_()
    log_q = world.texts(world.policy(logits))
    reference = world.texts(world.policy(world.logits(1)))
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.0]).double()[: len(log_q)]
    beta, mass = 0.7, log_q.detach().exp()
    objective = (log_q.exp() * (rewards - beta * (log_q - reference))).sum()
    wanted = -gradient(objective, logits)
    found = torch.zeros_like(wanted)
    for pair in itertools.product(range(len(log_q)), repeat=2):
        chosen = log_q[list(pair)][:, None]
        penalised = kl_penalised(
            rewards[list(pair)], chosen.detach(), reference[list(pair)][:, None], beta
        )
        advantages = rloo_advantages(penalised[None]).flatten()
        loss = sequence_loss(chosen, chosen.detach(), advantages, 0.2)
        found += mass[pair[0]] * mass[pair[1]] * gradient(loss, logits)
    close(found, wanted)
