"""What each optimiser makes of a round: advantages, and the loss of a part of it."""

from __future__ import annotations

from dataclasses import dataclass

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
from demoalign.improve.policy_gradient import (
    gae,
    grpo_advantages,
    grpo_credits,
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


@dataclass(frozen=True, slots=True)
class Lesson:
    """Completions with what they teach; B, T as in `Experience`.

    Attributes:
        mask, old, reference: (B, T).
        advantages: (B, 1) of whole completions, or (B, T).
        values: (B, T) that the value function gave before learning, None without one.
        targets: (B, T) that it is to give.
    """

    mask: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    values: Tensor | None = None
    targets: Tensor | None = None

    def take(self, rows: Tensor, width: int, device: torch.device) -> Lesson:
        """Some of the rows, cut to their longest completion."""

        def cut(values: Tensor) -> Tensor:
            return values[rows, :width].to(device)

        optional = [None if each is None else cut(each) for each in (self.values, self.targets)]
        parts = map(cut, (self.mask, self.old, self.reference, self.advantages))
        return Lesson(*parts, *optional)


def lesson_of(
    config: PolicyGradientConfig, said: Experience, values: Tensor | None = None
) -> Lesson:
    """Advantages of a round's completions, 0 where there is no reward.

    Args:
        config: of the optimiser.
        said: the round.
        values: (B, T) of the value function, for ppo.
    """
    if isinstance(config, PpoConfig):
        assert values is not None
        return _with_values(config, said, values)
    given = (said.counted, said.old, said.reference)
    if isinstance(config, GrpoConfig):
        return Lesson(*given, _standardised(config, said))
    return Lesson(*given, _against_others(config, said))


def lesson_loss(
    config: PolicyGradientConfig, lesson: Lesson, logprobs: Tensor, values: Tensor | None = None
) -> Tensor:
    """The loss (mean over completions, or over tokens for ppo) of a lesson.

    Args:
        config: of the optimiser.
        lesson: all or some of the round's completions.
        logprobs: (B, T) under the policy that learns, with gradients.
        values: (B, T) of the value function, with gradients, for ppo.
    """
    mask = lesson.mask
    if isinstance(config, PpoConfig):
        assert values is not None
        assert lesson.values is not None
        assert lesson.targets is not None
        surrogate = token_loss(
            logprobs, lesson.old, lesson.advantages, mask, config.clip, by_completion=False
        )
        error = value_loss(values, lesson.values, lesson.targets, mask, config.value_clip)
        return surrogate + error
    if isinstance(config, GrpoConfig):
        surrogate = token_loss(logprobs, lesson.old, lesson.advantages, mask, config.clip)
        penalty = kl_to_reference(logprobs, lesson.reference, lesson.old)
        return surrogate + config.beta * masked_mean(penalty, mask, by_completion=True)
    if config.level == "token":
        count = len(mask) / mask.sum().clamp(min=1)
        whole = token_loss(
            logprobs, lesson.old, lesson.advantages, mask, config.clip, by_completion=False
        )
        return whole / count
    return sequence_loss(logprobs, lesson.old, lesson.advantages.squeeze(-1), config.clip)


def share_of(config: PolicyGradientConfig, part: Lesson, whole: Lesson) -> float:
    """What the loss of a part counts in the mean over the whole."""
    if isinstance(config, PpoConfig):
        return float(part.mask.sum() / whole.mask.sum().clamp(min=1))
    return len(part.mask) / len(whole.mask)


def _against_others(config: RlooConfig | AdversarialConfig, said: Experience) -> Tensor:
    """(B, 1), or (B, T): reward to come less the mean of the other samples' at the same token."""
    groups = (-1, said.per_prompt)
    if config.level != "token":
        rewards = kl_penalised(said.rewards.sum(-1), said.old, said.reference, config.beta)
        return rloo_advantages(rewards.view(groups)).view(-1, 1)
    penalised = said.rewards - config.beta * (said.old - said.reference)
    returns = returns_to_go(penalised, said.mask)
    returns = torch.where(said.scored[:, None], returns, torch.nan)
    by_place = returns.T.reshape(-1, said.per_prompt)
    found = rloo_advantages(by_place).view(said.mask.shape[1], -1).T
    return found * said.counted


def _standardised(config: GrpoConfig, said: Experience) -> Tensor:
    """(B, 1), or (B, T) with credit for what is to come."""
    if config.level != "token":
        totals = said.rewards.sum(-1).view(-1, said.per_prompt)
        return grpo_advantages(totals).view(-1, 1)
    returns = returns_to_go(said.rewards, said.mask)
    returns = torch.where(said.scored[:, None], returns, torch.nan)
    found = grpo_credits(returns.view(-1, said.per_prompt, said.mask.shape[1]))
    return found.view(said.mask.shape) * said.counted


def _with_values(config: PpoConfig, said: Experience, values: Tensor) -> Lesson:
    mask = said.counted
    rewards = said.rewards - config.beta * (said.old - said.reference)
    rewards = torch.where(mask.bool(), rewards, 0.0)
    advantages = gae(rewards, values, mask, config.decay)
    targets = (advantages + values) * mask
    return Lesson(
        mask, said.old, said.reference, whitened(advantages, mask), values * mask, targets
    )
