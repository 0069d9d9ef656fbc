"""Policy gradients on sampled completions: advantages and losses as pure tensor functions.

The objective is ML-IRL's Eq. 3 and 5b, E[r(x, y)] - beta KL(pi || pi_ref). P prompts have K
completions each; B = P K completions of up to T tokens are padded on the right, with a mask (B, T)
that is 1 on their tokens. Rewards and KL are in the reward's unit, log-probabilities in nats. An
answer that could not be scored has the reward NaN: it is left out of its group's baseline and moves
nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_FLOOR = 1e-4
"""Added to standard deviations by which advantages are divided."""


def kl_penalised(rewards: Tensor, logprobs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """r - beta (log pi - log pi_ref), whose mean is the objective.

    Args:
        rewards: (B,) of whole completions.
        logprobs, reference: (B, T) of sampled tokens, 0 on padding.
        beta: weight of the KL divergence.
    """
    return rewards - beta * (logprobs - reference).sum(-1)


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the other completions of the prompt (Ahmadian et al., 2024).

    Args:
        rewards: (P, K).

    Returns:
        (P, K); 0 for what is not scored, and where a prompt has only one scored completion.
    """
    scored = rewards.isfinite()
    others = scored.sum(-1, keepdim=True) - 1
    total = torch.where(scored, rewards, 0.0).sum(-1, keepdim=True)
    advantages = rewards - (total - rewards) / others
    return torch.where(scored & (others > 0), advantages, 0.0)


def grpo_advantages(rewards: Tensor) -> Tensor:
    """Reward standardised within its prompt (Shao et al., 2024); arguments as `rloo_advantages`."""
    return _centred(rewards) / (_deviations(rewards)[:, None] + SCALE_FLOOR)


def grpo_credits(returns: Tensor) -> Tensor:
    """What is still to come, less the others' mean at the same token, in the unit of the whole.

    At the first token it is `grpo_advantages` of whole completions; a later token is not credited
    with what was earned before it. Process supervision (Shao et al., 2024, section 4.1.3) takes
    the mean from every step's reward instead, which pays for length: a step that earns nothing is
    punished where the mean is above 0.

    Args:
        returns: (P, K, T) sums of this and all later rewards, 0 behind the end, NaN in completions
            that are not scored.

    Returns:
        (P, K, T); 0 for what is not scored, and where a prompt has only one scored completion.
    """
    return _centred(returns.mT).mT / (_deviations(returns[..., 0])[:, None, None] + SCALE_FLOOR)


def _centred(rewards: Tensor) -> Tensor:
    """(..., K) less the mean of what is scored; 0 for what is not, or has no other."""
    scored = rewards.isfinite()
    count = scored.sum(-1, keepdim=True)
    mean = torch.where(scored, rewards, 0.0).sum(-1, keepdim=True) / count
    return torch.where(scored & (count > 1), rewards - mean, 0.0)


def _deviations(rewards: Tensor) -> Tensor:
    """(...) standard deviation of what is scored of (..., K); 0 of fewer than two."""
    count = rewards.isfinite().sum(-1)
    return (_centred(rewards).square().sum(-1) / (count - 1).clamp(min=1)).sqrt()


def returns_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Sum of this and all later token rewards (B, T), 0 on padding."""
    counted = torch.where(mask.bool(), rewards, 0.0)
    return counted.flip(-1).cumsum(-1).flip(-1) * mask


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, decay: float = 0.95, discount: float = 1.0
) -> Tensor:
    """Generalised advantages (Schulman et al., 2016, Eq. 16): sum of (discount decay)^k delta_t+k.

    Args:
        rewards: (B, T) of each token; a completion's reward stands on its last token.
        values: (B, T) V of the state before each token; nothing follows the last token.
        mask: (B, T).
        decay: lambda; 1 gives returns minus values, 0 one-step errors.
        discount: gamma.

    Returns:
        (B, T), 0 on padding. Advantages plus values are the targets of the value function.
    """
    following = torch.cat([values[:, 1:] * mask[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    errors = (rewards + discount * following - values) * mask
    running = torch.zeros_like(errors[:, 0])
    found = torch.zeros_like(errors)
    for step in reversed(range(errors.shape[1])):
        running = (errors[:, step] + discount * decay * running) * mask[:, step]
        found[:, step] = running
    return found


def whitened(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages (B, T) with mean 0 and deviation 1 over all tokens, 0 on padding."""
    kept = advantages[mask.bool()]
    if kept.numel() < 2:
        return torch.zeros_like(advantages)
    return (advantages - kept.mean()) / (kept.std() + SCALE_FLOOR) * mask


def sequence_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clipped surrogate with one importance ratio for a completion; RLOO's loss.

    Args:
        logprobs: (B, T) under the policy that learns, 0 on padding.
        old: (B, T) under the policy that sampled, 0 on padding.
        advantages: (B,).
        clip: how far from 1 the ratio may move with profit.

    Returns:
        Scalar, the mean over completions of -min(w A, clip(w) A).
    """
    ratio = (logprobs - old).sum(-1).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def token_loss(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    *,
    by_completion: bool = True,
) -> Tensor:
    """Clipped surrogate with a ratio for each token (PPO, Schulman et al., 2017, Eq. 7).

    Args:
        logprobs, old: (B, T).
        advantages: (B, T), or (B, 1) of whole completions.
        mask: (B, T).
        clip: as in `sequence_loss`.
        by_completion: mean over a completion's tokens, then over completions (GRPO's loss);
            False for the mean over all tokens (PPO's).

    Returns:
        Scalar.
    """
    ratio = (logprobs - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    return masked_mean(losses, mask, by_completion=by_completion)


def kl_to_reference(logprobs: Tensor, reference: Tensor, old: Tensor | None = None) -> Tensor:
    """Estimate of the KL divergence on each sampled token that is never negative; GRPO's penalty.

    w (exp(log pi_ref - log pi) - (log pi_ref - log pi) - 1) with w = pi / pi_old, whose mean over
    pi_old's tokens is KL(pi || pi_ref) in value and in gradient, as TRL has it by default. Without
    w the value is the same where pi is pi_old, but the gradient is that of KL(pi_ref || pi).

    Args:
        logprobs, reference: (B, T) under the policy that learns and under the reference.
        old: (B, T) under the policy that sampled; None leaves w out.

    Returns:
        (B, T) nats.
    """
    gap = reference - logprobs
    penalty = gap.exp() - gap - 1
    return penalty if old is None else (logprobs - old).exp() * penalty


def value_loss(values: Tensor, old: Tensor, targets: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error of the value function (B, T), which may move by ``clip`` at a time."""
    near = old + (values - old).clamp(-clip, clip)
    losses = torch.maximum((values - targets).square(), (near - targets).square())
    return masked_mean(losses, mask, by_completion=False) / 2


def masked_mean(values: Tensor, mask: Tensor, *, by_completion: bool) -> Tensor:
    """Mean of (B, T) over completions' own means, or over all tokens."""
    kept = torch.where(mask.bool(), values, 0.0)
    if by_completion:
        return (kept.sum(-1) / mask.sum(-1).clamp(min=1)).mean()
    return kept.sum() / mask.sum().clamp(min=1)
