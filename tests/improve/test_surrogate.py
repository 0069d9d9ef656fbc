"""Lessons and losses of the optimisers: by hand, additive over parts, and right at the optimum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from demoalign.config import (
    AdversarialConfig,
    GrpoConfig,
    PolicyGradientConfig,
    PpoConfig,
    RlooConfig,
)
from demoalign.improve.experience import Experience
from demoalign.improve.policy_gradient import kl_penalised, rloo_advantages
from demoalign.improve.surrogate import Lesson, lesson_loss, lesson_of, share_of
from demoalign.policies.last_hidden import Row

EVERY: tuple[PolicyGradientConfig, ...] = (
    RlooConfig(level="trajectory"),
    RlooConfig(level="token"),
    GrpoConfig(level="trajectory"),
    GrpoConfig(level="token"),
    PpoConfig(level="token"),
    AdversarialConfig(level="token"),
)


def experience(seed: int = 0, lost: int | None = None, at_end: bool = False) -> Experience:
    """Six completions of one to four tokens, three of each of two prompts."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [4, 1, 3, 2, 4, 3]
    mask = torch.tensor([[float(t < n) for t in range(4)] for n in lengths])
    old, reference, rewards = (torch.randn(6, 4, generator=generator) * mask for _ in range(3))
    if at_end:
        last = torch.tensor(lengths)[:, None] - 1 == torch.arange(4)
        rewards = rewards.sum(-1, keepdim=True) * last
    if lost is not None:
        rewards[lost] = torch.nan
    rows = tuple(Row((0,), tuple(range(n))) for n in lengths)
    return Experience(rows, mask, old - 1, reference - 1, rewards, 3)


def test_rloo_of_whole_answers_is_the_reward_less_kl_against_the_others() -> None:
    config, said = RlooConfig(level="trajectory", beta=0.3), experience(at_end=True)
    totals = kl_penalised(said.rewards.sum(-1), said.old, said.reference, 0.3)
    wanted = rloo_advantages(totals.view(2, 3)).view(6, 1)
    torch.testing.assert_close(lesson_of(config, said).advantages, wanted)


def test_rloo_of_tokens_by_hand() -> None:
    said, beta = experience(), 0.5
    found = lesson_of(RlooConfig(level="token", beta=beta), said).advantages
    to_come = said.rewards - beta * (said.old - said.reference) * said.mask
    returns = [[float(to_come[b, t:].sum()) for t in range(4)] for b in range(6)]
    for b, t in ((0, 0), (0, 3), (2, 1), (4, 2)):
        others = [i for i in (range(3) if b < 3 else range(3, 6)) if i != b]
        wanted = returns[b][t] - (returns[others[0]][t] + returns[others[1]][t]) / 2
        assert float(found[b, t]) == pytest.approx(wanted, abs=1e-5)
    assert float(found[1, 1]) == 0  # padding


def test_grpo_of_tokens_by_hand() -> None:
    said = experience()
    found = lesson_of(GrpoConfig(level="token"), said).advantages
    returns = [[float(said.rewards[b, t:].sum()) for t in range(4)] for b in range(6)]
    for b, t in ((0, 0), (0, 2), (2, 1), (4, 2)):
        group = np.array(returns[:3] if b < 3 else returns[3:])
        wanted = (returns[b][t] - group[:, t].mean()) / (group[:, 0].std(ddof=1) + 1e-4)
        assert float(found[b, t]) == pytest.approx(wanted, abs=1e-5)
    assert float(found[1, 1]) == 0  # padding


def test_grpos_first_token_has_the_credit_of_the_whole() -> None:
    for lost in (None, 4):
        said = experience(lost=lost)
        tokens, whole = (
            lesson_of(GrpoConfig(level=level), said).advantages for level in ("token", "trajectory")
        )
        torch.testing.assert_close(tokens[:, 0], whole[:, 0])


def test_a_reward_at_the_end_is_the_same_by_token_until_others_have_ended() -> None:
    """Whole answers' advantages at every token up to the shortest answer's end."""
    said = experience(at_end=True)
    tokens, whole = (
        lesson_of(GrpoConfig(level=level), said).advantages for level in ("token", "trajectory")
    )
    torch.testing.assert_close(tokens[3:, :2], whole[3:].expand(3, 2))


@pytest.mark.parametrize("config", EVERY, ids=lambda each: f"{each.method}-{each.level}")
def test_what_is_not_scored_moves_nothing(config: PolicyGradientConfig) -> None:
    values = torch.zeros(6, 4)
    lesson = lesson_of(config, experience(lost=2), values)
    logprobs = (lesson.old + 0.01).requires_grad_()
    loss = lesson_loss(config, lesson, logprobs, values.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert torch.isfinite(gradient).all()
    assert float(gradient[2].abs().sum()) == 0
    assert float(gradient[3].abs().sum()) > 0


@pytest.mark.parametrize("config", EVERY, ids=lambda each: f"{each.method}-{each.level}")
def test_parts_add_up_to_the_whole(config: PolicyGradientConfig) -> None:
    said, values = experience(2), torch.linspace(-1, 1, 24).view(6, 4)
    lesson = lesson_of(config, said, values)
    logprobs, new = experience(3).old, values * 0.9
    whole = lesson_loss(config, lesson, logprobs, new)
    total = torch.zeros(())
    for rows in ([0, 3], [1], [2, 4, 5]):
        width = max(len(said.rows[i].completion) for i in rows)
        part = lesson.take(torch.tensor(rows), width, torch.device("cpu"))
        loss = lesson_loss(config, part, logprobs[rows, :width], new[rows, :width])
        total = total + loss * share_of(config, part, lesson)
    torch.testing.assert_close(total, whole)


REWARD = torch.tensor([0.0, 1.0, 0.5, -1.0, 2.0])
REFERENCE = torch.tensor([0.1, 0.3, 0.3, 0.2, 0.1]).log()
MANY = 4000


def learned(config: PolicyGradientConfig, steps: int = 300) -> Tensor:
    """The policy over five answers of one token that an optimiser ends at, from exact samples."""
    logits = REFERENCE.clone().requires_grad_()
    value = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([logits, value], lr=0.05)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        log_pi = logits.log_softmax(-1)
        shares = (torch.arange(MANY) + 0.5) / MANY  # every answer as often as it should be said
        said = torch.searchsorted(log_pi.detach().exp().cumsum(-1), shares).clamp(max=4)
        old, reference = log_pi.detach()[said][:, None], REFERENCE[said][:, None]
        rows = tuple(Row((0,), (int(i),)) for i in said)
        values = value.detach().expand(MANY, 1)
        experience = Experience(
            rows, torch.ones(MANY, 1), old, reference, REWARD[said][:, None], MANY
        )
        lesson: Lesson = lesson_of(config, experience, values)
        optimiser.zero_grad()
        loss = lesson_loss(config, lesson, log_pi[said][:, None], value.expand(MANY, 1))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return logits.detach().softmax(-1)


def optimum(beta: float) -> Tensor:
    """pi_ref exp(r / beta) / Z of ML-IRL's Eq. 3."""
    return (REFERENCE + REWARD / beta).softmax(-1)


@pytest.mark.parametrize(
    "config",
    [
        RlooConfig(level="trajectory", beta=1.0),
        RlooConfig(level="token", beta=1.0),
        PpoConfig(beta=1.0, decay=1.0),
    ],
    ids=lambda each: f"{each.method}-{each.level}",
)
def test_the_optimum_is_the_exact_one(config: Any) -> None:
    np.testing.assert_allclose(learned(config), optimum(1.0), atol=0.01)


@pytest.mark.parametrize("level", ["trajectory", "token"])
def test_grpos_optimum_is_that_of_the_standardised_reward(level: Any) -> None:
    """Its beta is in units of the reward's deviation under the policy that it ends at."""
    found = learned(GrpoConfig(level=level, beta=1.0))
    mean = (found * REWARD).sum()
    deviation = math.sqrt(float((found * (REWARD - mean).square()).sum()))
    np.testing.assert_allclose(found, optimum(deviation), atol=0.01)
