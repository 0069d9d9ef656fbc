"""Decoding for architectures that do not use transformers' attention interface.

The same steps as `SharedDecoder`, with transformers' own cache: a prompt is read once, and its
keys and values are copied for each row that continues it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demoalign.errors import ModelError
from demoalign.policies.shared_prefix import HiddenTap, Next


@dataclass(frozen=True, slots=True)
class ExpandedRead:
    """Prompts that were read: transformers' cache and mask (G, P)."""

    cache: Any
    mask: Tensor


class ExpandedBranches:
    """Rows with a copy of their prompt's keys and values each."""

    def __init__(self, read: ExpandedRead, owner: Tensor) -> None:
        self.rows = len(owner)
        self.length = 0
        self.cache = copy.deepcopy(read.cache)
        self.cache.reorder_cache(owner)  # recurrent layers, too, know this one
        self.mask = read.mask[owner]

    def drop(self, dead: Tensor) -> Tensor:
        """Forget rows; return where each row that is kept stood before."""
        kept = (~dead).nonzero().squeeze(-1)
        self.rows = len(kept)
        self.mask = self.mask[kept]
        if self.rows:
            self.cache.reorder_cache(kept)
        return kept


class ExpandedDecoder:
    """One-token steps with expanded caches, one forward pass a group."""

    def __init__(self, causal: Any) -> None:
        self.causal = causal
        self.device: torch.device = next(causal.parameters()).device
        self._tap = HiddenTap(causal)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Everything else happens inside this; threads may share it."""
        with self._tap.open(), torch.inference_mode():
            yield

    def open(self, prompts: Sequence[Sequence[int]]) -> tuple[ExpandedRead, Next]:
        """Read prompts, padded on the left.

        Raises:
            ModelError: the architecture keeps no cache that rows could continue.
        """
        longest = max(len(prompt) for prompt in prompts)
        padded = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        steps = torch.arange(longest, device=self.device)
        mask = (steps >= (longest - lengths)[:, None]).long()
        output = self.causal(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        after = Next(output.logits[:, -1], self._tap.hidden[:, -1])
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            raise ModelError(
                f"{type(self.causal).__name__}: sampling needs an architecture that keeps keys and "
                "values, found none. Use rollouts.engine: vllm or openai for this model."
            )
        return ExpandedRead(cache, mask), after

    def branch(self, read: ExpandedRead, owner: Tensor) -> ExpandedBranches:
        """Rows that continue prompts that were read."""
        return ExpandedBranches(read, owner)

    def step(
        self, groups: Sequence[ExpandedBranches], tokens: Tensor, wanted: Tensor | None = None
    ) -> Next:
        """Append one token (B,) to every row of the groups; logits of the rows ``wanted``."""
        found = []
        for group, picked in zip(
            groups, torch.split(tokens, [g.rows for g in groups]), strict=True
        ):
            group.mask = torch.cat([group.mask, group.mask.new_ones(group.rows, 1)], dim=-1)
            output = self.causal(
                input_ids=picked[:, None],
                attention_mask=group.mask,
                position_ids=group.mask.sum(-1, keepdim=True) - 1,
                past_key_values=group.cache,
                use_cache=True,
            )
            group.length += 1
            found.append((output.logits[:, -1], self._tap.hidden[:, -1]))
        logits, hidden = (torch.cat(each) for each in zip(*found, strict=True))
        return Next(logits if wanted is None else logits[wanted], hidden)
