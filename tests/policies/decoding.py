"""Decoding with a decoder by hand, and what plain forward passes say of the same sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.models import make_model, make_tokenizer

PROMPT_LENGTHS = (14, 5, 9)
OWNER = (0, 0, 1, 2, 0, 2)
DROPS = {1: (1, 4), 4: (0,), 6: (1, 2)}
"""After which steps which of the rows that are left are dropped."""


@dataclass
class Seen:
    """What a decoder said of the last token of a sequence: logits (V,), hidden state (H,)."""

    ids: list[int]
    logits: Tensor
    hidden: Tensor


@cache
def model_of(architecture: str) -> Any:
    """A tiny model, made once."""
    return make_model(architecture, make_tokenizer("bos"))


def random_prompts(model: Any, lengths: Sequence[int] = PROMPT_LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(len(lengths))
    size = model.config.vocab_size
    return [torch.randint(3, size, (length,), generator=generator).tolist() for length in lengths]


def decode(
    decoder: Any,
    prompts: Sequence[list[int]],
    owner: Sequence[int] = OWNER,
    steps: int = 9,
    drops: dict[int, tuple[int, ...]] = DROPS,
) -> list[Seen]:
    """Continue prompts with random tokens, some rows being dropped on the way."""
    generator = torch.Generator().manual_seed(0)
    rows = [list(prompts[prompt]) for prompt in owner]
    with decoder.active():
        read, first = decoder.open(prompts)
        group = decoder.branch(read, torch.tensor(owner))
        seen = [Seen(list(rows[i]), first.logits[o], first.hidden[o]) for i, o in enumerate(owner)]
        for step in range(steps):
            tokens = torch.randint(3, first.logits.shape[-1], (len(rows),), generator=generator)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                row.append(token)
            after = decoder.step([group], tokens)
            seen += [
                Seen(list(row), after.logits[i], after.hidden[i]) for i, row in enumerate(rows)
            ]
            if step in drops:
                dead = torch.tensor([i in drops[step] for i in range(len(rows))])
                rows = [rows[i] for i in group.drop(dead).tolist()]
    return seen


def check_plain(model: Any, seen: Sequence[Seen], tolerance: float = 2e-5) -> None:
    """What was seen is what one plain forward pass over each sequence says."""
    for each in seen:
        logits, hidden = plain(model)(tuple(each.ids))
        scale = float(logits.abs().max())
        torch.testing.assert_close(each.logits, logits, atol=tolerance * scale, rtol=0)
        torch.testing.assert_close(each.hidden, hidden, atol=tolerance * scale, rtol=0)


def plain(model: Any) -> Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]:
    """Logits (V,) and final hidden state (H,) of a sequence's last token."""

    @torch.inference_mode()
    def forward(ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        whole = torch.tensor([ids])
        hidden = model.base_model(input_ids=whole, use_cache=False).last_hidden_state[0, -1]
        return model(input_ids=whole, use_cache=False).logits[0, -1], hidden

    return forward
