"""Log-probabilities of completions with their gradients, and what a value function reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demoalign.policies.last_hidden import Row
from demoalign.policies.shared_prefix import right_padded


class Learned(NamedTuple):
    """What a policy makes of B completions of up to T tokens, 0 on padding.

    Attributes:
        logprobs: (B, T) nats, at temperature 1, float32.
        states: (B, T, H) final hidden states of the places before the tokens.
    """

    logprobs: Tensor
    states: Tensor


def learned_logprobs(model: Any, rows: Sequence[Row]) -> Learned:
    """log pi(y_t | x, y_<t) with gradients; logits are made at the completions' places only.

    Args:
        model: a causal language model of transformers, with the adapter active that learns.
        rows: token ids; every completion has at least one token, every prompt too.
    """
    device = next(model.parameters()).device
    whole = [row.prompt + row.completion for row in rows]
    ids = right_padded(whole, max(map(len, whole)), device)
    starts = torch.tensor([len(row.prompt) for row in rows], device=device)[:, None]
    ends = torch.tensor([len(each) for each in whole], device=device)[:, None]
    steps = torch.arange(ids.shape[1], device=device)
    said = (steps >= starts) & (steps < ends)
    before = said.roll(-1, 1)
    with seen_states(model, before) as seen:
        logits = model(
            input_ids=ids, attention_mask=(steps < ends).long(), use_cache=False
        ).logits.float()
    chosen = logits.gather(-1, ids[said][:, None]).squeeze(-1) - logits.logsumexp(-1)
    mask = completion_mask(rows, device)
    logprobs = torch.zeros(mask.shape, device=device).masked_scatter(mask, chosen)
    states = torch.zeros((*mask.shape, seen[0].shape[-1]), dtype=seen[0].dtype, device=device)
    return Learned(logprobs, states.masked_scatter(mask[..., None], seen[0]))


def completion_mask(rows: Sequence[Row], device: torch.device) -> Tensor:
    """(B, T) True on the completions' tokens, which begin in the first column."""
    lengths = torch.tensor([len(row.completion) for row in rows], device=device)[:, None]
    return torch.arange(int(lengths.max()), device=device) < lengths


@contextmanager
def seen_states(model: Any, places: Tensor) -> Iterator[list[Tensor]]:
    """Have a model make logits (n, V) at places (B, T) only; its states (n, H) there are seen."""
    seen: list[Tensor] = []

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0][places])
        return seen[-1], *inputs[1:]

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        hook.remove()
