"""Pairs for training: a prompt computed once for both of its completions, or twice.

Packed, a pair is one row [shared | rest of the positive | rest of the negative]. The negative's
positions continue where the shared part ends, and the attention mask hides the positive's rest
from it, so that every hidden state is the one that the completion has in a row of its own.
Stacked, a pair is two rows. Both forms are read at the last token of each completion and give
the same rewards and gradients; `demoalign.rewards.forms` chooses between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from demoalign.rewards.scorers import Scorer, SharedScorer
from demoalign.rewards.scoring import pad_right

Batch = dict[str, Tensor]
"""Keyword arguments of `PairScorer.forward`, and ``targets`` for the loss alone."""


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """Token ids of prompt + positive and of prompt + negative.

    Attributes:
        targets: what a student is to say of the two, if it is one that learns.
    """

    positive: list[int]
    negative: list[int]
    targets: tuple[float, float] | None = None

    @property
    def shared(self) -> int:
        """Tokens that both begin with; each keeps its last token for itself."""
        most = min(len(self.positive), len(self.negative)) - 1
        both = zip(self.positive[:most], self.negative[:most], strict=True)
        return next((i for i, (up, down) in enumerate(both) if up != down), most)

    @property
    def packed(self) -> list[int]:
        """The positive followed by what the negative does not share with it."""
        return self.positive + self.negative[self.shared :]


@dataclass(frozen=True, slots=True)
class StackedCollator:
    """B pairs as (2B, T): positives first, negatives second; targets, if there are any, (2, B)."""

    pad_token_id: int

    def __call__(self, pairs: Sequence[RenderedPair]) -> Batch:
        """Input ids and attention mask (2B, T), ends (2B, 1)."""
        rows = [pair.positive for pair in pairs] + [pair.negative for pair in pairs]
        ids, mask = pad_right(rows, self.pad_token_id)
        ends = torch.tensor([[len(row) - 1] for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "ends": ends, **_targets(pairs)}


@dataclass(frozen=True, slots=True)
class PackedCollator:
    """B pairs as (B, T), each a single row."""

    pad_token_id: int

    def __call__(self, pairs: Sequence[RenderedPair]) -> Batch:
        """Input ids and position ids (B, T), attention mask (B, 1, T, T), ends (B, 2)."""
        ids, _ = pad_right([pair.packed for pair in pairs], self.pad_token_id)
        shared = torch.tensor([pair.shared for pair in pairs])
        switch = torch.tensor([len(pair.positive) for pair in pairs])
        lengths = torch.tensor([len(pair.negative) for pair in pairs])
        return {
            "input_ids": ids,
            "attention_mask": packed_mask(shared, switch, ids.shape[1]),
            "position_ids": packed_positions(shared, switch, lengths, ids.shape[1]),
            "ends": torch.stack([switch - 1, switch + lengths - shared - 1], dim=-1),
            **_targets(pairs),
        }


def _targets(pairs: Sequence[RenderedPair]) -> Batch:
    """``targets`` (2, B) of positives and of negatives, if the pairs have any."""
    known = [pair.targets for pair in pairs if pair.targets is not None]
    return {"targets": torch.tensor(known).T} if known else {}


Collator = StackedCollator | PackedCollator


def packed_mask(shared_B: Tensor, switch_B: Tensor, length: int) -> Tensor:
    """Which keys each query may read: all up to itself, but no positive from a negative.

    Args:
        shared_B: (B,) tokens that the completions share.
        switch_B: (B,) column at which the negative's own tokens begin.
        length: T, columns of the padded rows. Padding stands last, so no token reads it.

    Returns:
        (B, 1, T, T) bool, queries before keys.
    """
    steps = torch.arange(length)
    queries, keys = steps[:, None], steps[None, :]
    shared, switch = shared_B[:, None, None], switch_B[:, None, None]
    of_positive = (keys >= shared) & (keys < switch)
    return ((keys <= queries) & ~((queries >= switch) & of_positive))[:, None]


def packed_positions(shared_B: Tensor, switch_B: Tensor, lengths_B: Tensor, length: int) -> Tensor:
    """(B, T) position ids: the negative, ``lengths_B`` tokens with its prompt, goes on at
    the end of the shared part. Padding repeats the last position, to stay in the context.
    """
    steps = torch.arange(length).expand(len(shared_B), -1)
    shared, switch = shared_B[:, None], switch_B[:, None]
    of_negative = (steps - switch + shared).minimum(lengths_B[:, None] - 1)
    return steps.where(steps < switch, of_negative)


class PairScorer(nn.Module):
    """A scorer read at given places of a batch: what a training step runs.

    Attributes:
        scorer: whose trunk and heads are used.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    @property
    def trunk(self) -> Any:
        """The transformer without any head: gives hidden states (R, T, H)."""
        if isinstance(self.scorer, SharedScorer):
            return self.scorer.trunk
        return self.scorer.model.base_model

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        ends: Tensor,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """(R, E, H) hidden states of columns ``ends`` (R, E) of rows (R, T)."""
        given = {} if position_ids is None else {"position_ids": position_ids}
        states = self.trunk(
            input_ids=input_ids,
            attention_mask=self._understood(attention_mask),
            use_cache=False,
            **given,
        ).last_hidden_state
        picked: Tensor = states.gather(1, ends[..., None].expand(-1, -1, states.shape[-1]))
        return picked

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        ends: Tensor,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards and raw variances (or None) at the ends, both (R, E)."""
        picked = self.hidden(input_ids, attention_mask, ends, position_ids)
        if isinstance(self.scorer, SharedScorer):
            return self.scorer.judge(picked.float())
        rewards = self.scorer.model.score(picked).squeeze(-1).float()
        variance = self.scorer.variance
        return rewards, None if variance is None else variance(picked.float()).squeeze(-1)

    def _understood(self, mask: Tensor) -> Tensor:
        """A bool mask as it is, but as a bias for eager attention, which adds its mask."""
        if mask.ndim == 2 or self.trunk.config._attn_implementation != "eager":
            return mask
        kind = self.trunk.dtype
        bias = torch.zeros(mask.shape, dtype=kind, device=mask.device)
        return bias.masked_fill(~mask, torch.finfo(kind).min)


def by_side(values_RE: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) of positives and (B,) of negatives from values (2B, 1) or (B, 2) at the ends."""
    ups, downs = values_RE.T.flatten().chunk(2)
    return ups, downs
