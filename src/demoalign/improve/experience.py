"""What one round of sampling gives the policy to learn from, as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.policies.last_hidden import Row
from demoalign.policies.learning import completion_mask
from demoalign.records import Prompt, Rollout
from demoalign.rewards.token_reward import paid_once

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """B completions of the policy, K of each prompt one after the other.

    Attributes:
        prompts: (B) of the completions.
        rollouts: (B) as sampled.
        rows: (B) token ids of prompts and completions.
        reference: (B) log-probabilities (T,) of the tokens under the reference policy, nats.
        per_prompt: K.
    """

    prompts: tuple[Prompt, ...]
    rollouts: tuple[Rollout, ...]
    rows: tuple[Row, ...]
    reference: tuple[Array, ...]
    per_prompt: int

    @property
    def finished(self) -> list[bool]:
        """Which of them ended by themselves."""
        return [rollout.finish_reason == "stop" for rollout in self.rollouts]

    @property
    def kl(self) -> Array:
        """(B,) log pi - log pi_ref of whole completions, whose mean estimates KL(pi || pi_ref)."""
        own = [sum(rollout.token_logprobs or ()) for rollout in self.rollouts]
        gaps: Array = np.array(own) - np.array([each.sum() for each in self.reference])
        return gaps

    def once(self, rewards: Sequence[Array], size: int | None) -> list[Array]:
        """Rewards (T,) of tokens, below 0 for what an answer says again (see `paid_once`)."""
        return [
            paid_once(each, row.completion, size)
            for row, each in zip(self.rows, rewards, strict=True)
        ]

    def shaped(
        self, rewards: Sequence[Array], clip: float | None, unfinished: float
    ) -> list[Array]:
        """Rewards cut to [-clip, clip], less for completions that did not end by themselves."""
        found = [each.copy() if clip is None else each.clip(-clip, clip) for each in rewards]
        for each, is_finished in zip(found, self.finished, strict=True):
            if not is_finished:
                each[-1:] -= unfinished
        return found


@dataclass(frozen=True, slots=True)
class Experience:
    """The same as tensors of B completions and up to T tokens, 0 on padding.

    Attributes:
        rows: token ids.
        mask: (B, T) 1 on tokens.
        old: (B, T) log-probabilities under the policy that sampled.
        reference: (B, T) under the reference policy.
        rewards: (B, T) of each token; an answer's own reward stands on its last token. NaN in
            rows that could not be scored.
        per_prompt: K.
    """

    rows: tuple[Row, ...]
    mask: Tensor
    old: Tensor
    reference: Tensor
    rewards: Tensor
    per_prompt: int

    @property
    def scored(self) -> Tensor:
        """(B,) which rows have a reward."""
        return self.rewards.isfinite().all(-1)

    @property
    def counted(self) -> Tensor:
        """(B, T) 1 on tokens of rows that have a reward."""
        return self.mask * self.scored[:, None]


def experience_of(
    said: Said, rewards: Sequence[Array], beginning: Tensor | None = None
) -> Experience:
    """Tensors of what was said.

    Args:
        said: B completions.
        rewards: of each, (T,) of its tokens or (1,) of the whole; NaN if it was not scored.
        beginning: (B, T) log-probabilities to use for `Experience.old`, by default those that were
            noted in sampling.
    """
    mask = completion_mask(said.rows, torch.device("cpu"))
    old = _padded([each.token_logprobs or [] for each in said.rollouts], mask)
    at_end = [
        np.concatenate([np.zeros(len(row.completion) - len(each)), each])
        for row, each in zip(said.rows, rewards, strict=True)
    ]
    return Experience(
        rows=said.rows,
        mask=mask.float(),
        old=old if beginning is None else beginning,
        reference=_padded(said.reference, mask),
        rewards=_padded(at_end, mask),
        per_prompt=said.per_prompt,
    )


def _padded(values: Sequence[Sequence[float] | Array], mask: Tensor) -> Tensor:
    """(B, T) of ragged rows; a row that holds NaN is NaN everywhere."""
    filled = torch.zeros(mask.shape)
    for place, row in enumerate(values):
        filled[place, : len(row)] = torch.as_tensor(np.asarray(row), dtype=torch.float32)
    lost = filled.isnan().any(-1)
    return torch.where(lost[:, None], torch.nan, filled)
