"""Two policies on the same completions, and what each gives to a set of tokens at every place.

The second policy's distribution says which tokens belong to a place's set, the first is asked
about the same ones. Both read a block of completions in turn, so that what is kept between the
two passes, one bit for each place and token of the vocabulary, stays small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import TokenLogprobs, completion_logprobs
from demoalign.policies.policy import Policy

SET_BYTES = 2**26
"""Most bytes of a block's sets; a completion that alone needs more is a block of its own."""

Inside = Callable[[Tensor], Tensor]
"""Which tokens belong to the set: (T, V) booleans of log-probabilities (T, V)."""


class Within(NamedTuple):
    """One completion under both policies.

    Attributes:
        first, second: log-probabilities of its tokens.
        first_mass, second_mass: (T,) log of the probability of the sets at the same places, nats;
            -inf where a set is empty.
    """

    first: TokenLogprobs
    second: TokenLogprobs
    first_mass: NDArray[np.float64]
    second_mass: NDArray[np.float64]


def logprobs_within(
    first: Policy,
    second: Policy,
    rows: Sequence[Row],
    inside: Inside,
    batch_size: int = 64,
) -> list[Within]:
    """What two policies say of completions, and of the tokens that the second one's set holds.

    Args:
        first, second: of one vocabulary; both are in memory, best on one backbone.
        rows: as in `completion_logprobs`.
        inside: the set's rule, on the second policy's log-probabilities.
        batch_size: most completions a forward pass; the result does not depend on it.
    """
    vocabulary = second.backbone.causal.get_output_embeddings().weight.shape[0]
    found: dict[int, Within] = {}
    for numbers in _blocks(rows, vocabulary):
        part = _read_block(first, second, [rows[i] for i in numbers], inside, batch_size)
        found |= zip(numbers, part, strict=True)
    return [found[i] for i in range(len(rows))]


def _blocks(rows: Sequence[Row], vocabulary: int) -> Iterator[list[int]]:
    """Numbers of rows whose sets may be held together, those of one prompt side by side."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        by_prompt.setdefault(row.prompt, []).append(number)
    block: list[int] = []
    held = 0
    for number in [each for numbers in by_prompt.values() for each in numbers]:
        size = len(rows[number].completion) * math.ceil(vocabulary / 8)
        if block and held + size > SET_BYTES:
            yield block
            block, held = [], 0
        block.append(number)
        held += size
    if block:
        yield block


def _read_block(
    first: Policy, second: Policy, rows: Sequence[Row], inside: Inside, batch_size: int
) -> list[Within]:
    sets: dict[int, NDArray[np.uint8]] = {}
    masses: list[list[NDArray[np.float64]]] = [[np.zeros(0)] * len(rows) for _ in range(2)]

    def mark(number: int, logits: Tensor) -> None:
        logprobs = _log_softmax(logits)
        chosen = inside(logprobs)
        sets[number] = np.packbits(chosen.cpu().numpy(), axis=-1)
        masses[1][number] = _log_mass(logprobs, chosen)

    def weigh(number: int, logits: Tensor) -> None:
        chosen = np.unpackbits(sets.pop(number), axis=-1, count=logits.shape[-1]).view(np.bool_)
        there = torch.from_numpy(chosen).to(logits.device)
        masses[0][number] = _log_mass(_log_softmax(logits), there)

    downs = completion_logprobs(second, rows, batch_size, mark)
    ups = completion_logprobs(first, rows, batch_size, weigh)
    return [Within(*each) for each in zip(ups, downs, *masses, strict=True)]


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _log_mass(logprobs: Tensor, chosen: Tensor) -> NDArray[np.float64]:
    (mass,) = log_masses(chosen, logprobs)
    found: NDArray[np.float64] = mass.double().cpu().numpy()
    return found


def log_masses(chosen: Tensor, *policies: Tensor) -> list[Tensor]:
    """(B,) log of the probability that each policy's (B, V) gives to tokens (B, V) of a set.

    Few tokens of a large vocabulary are looked at one by one; -inf if there are none.
    """
    counts = chosen.sum(-1, dtype=torch.int32)
    width = int(counts.max()) if len(counts) else 0
    if not 0 < width <= chosen.shape[-1] // 8:
        return [each.masked_fill(~chosen, -math.inf).logsumexp(-1) for each in policies]
    rows, tokens = chosen.nonzero(as_tuple=True)
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    found = []
    for logprobs in policies:
        few = logprobs.new_full((len(counts), width), -math.inf)
        few[rows, places] = logprobs[rows, tokens]
        found.append(few.logsumexp(-1))
    return found
