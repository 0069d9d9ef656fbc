"""Which form pairs take in training: packed where that is exact and cheaper, else stacked.

The packed form needs an architecture that heeds a mask of its own and position ids. Rather than
keep a list of those, a few pairs are run in both forms and the hidden states are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from demoalign.rewards.packing import (
    Batch,
    Collator,
    PackedCollator,
    PairScorer,
    RenderedPair,
    StackedCollator,
)

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""How far the two forms' hidden states may be apart, as a share of their norm."""
HALF_TOLERANCE = 5e-2
"""The same for bfloat16 and float16, whose rounding alone makes a few hundredths."""

ATTENTION_COST = 2
"""Time of an operation in attention over one in a matrix product, in training: the backward pass
computes attention again."""

ALONE = frozenset({"bce", "squared_error"})
"""Losses in which a completion's part does not depend on the other one of its pair."""

MASKED_ATTENTION = frozenset({"sdpa", "eager"})
"""Implementations that take any mask; flash attention knows only causal ones."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Configuration keys of layers that read no further back than so many tokens."""
DROPOUTS = ("attention_dropout", "attn_dropout", "dropout")
"""Attributes by which modules hold a dropout rate that is no `nn.Dropout`."""


@dataclass(frozen=True, slots=True)
class Form:
    """How pairs are collated in this training, and why so."""

    collator: Collator
    reason: str

    @property
    def is_packed(self) -> bool:
        """Whether a pair's prompt is computed once."""
        return isinstance(self.collator, PackedCollator)


def choose_form(
    model: PairScorer, pairs: Sequence[RenderedPair], batch_size: int, loss: str, pad: int
) -> Form:
    """Decide how to collate, from the settings, the cost and a probe in evaluation mode.

    Args:
        model: as it will be trained.
        pairs: all training pairs.
        batch_size: pairs a batch.
        loss: a loss of one completion alone (`ALONE`) allows dropout to strike both alike.
        pad: token id of padding.

    Returns:
        The form, its reason in words for the log.
    """
    packed, stacked = PackedCollator(pad), StackedCollator(pad)
    once, twice = (padded_tokens(pairs, batch_size, packed=kind) for kind in (True, False))
    obstacle = (
        _obstacle(model, pairs, loss)
        or _no_gain(model, pairs, once, twice)
        or _difference(model, pairs, packed, stacked)
    )
    if obstacle is not None:
        return Form(stacked, f"prompts computed twice a pair: {obstacle}")
    return Form(packed, f"prompts computed once a pair: {once:,} tokens an epoch, not {twice:,}")


def padded_tokens(pairs: Sequence[RenderedPair], batch_size: int, *, packed: bool) -> int:
    """Tokens that all pairs take in batches of ``batch_size`` as they come, padding included."""
    widths = [
        len(pair.packed) if packed else max(len(pair.positive), len(pair.negative))
        for pair in pairs
    ]
    batches = [widths[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    rows = 1 if packed else 2
    return sum(rows * len(batch) * max(batch) for batch in batches)


def _obstacle(model: PairScorer, pairs: Sequence[RenderedPair], loss: str) -> str | None:
    """What in the model's settings stands against the packed form, if anything."""
    config = model.trunk.config.get_text_config()
    kind = config._attn_implementation
    if kind not in MASKED_ATTENTION:
        return f"{kind} attention takes no mask of its own"
    longest = max(len(pair.packed) for pair in pairs)
    windows = [getattr(config, name, None) for name in WINDOWS]
    shortest = min((size for size in windows if isinstance(size, int)), default=longest)
    if shortest < longest:
        return f"layers see {shortest} tokens back, the longest packed pair has {longest}"
    if loss not in ALONE and _drops(model):
        return f"dropout must strike the two sides of {loss} independently"
    return None


def _drops(model: nn.Module) -> bool:
    """Whether training mode leaves anything out at random."""
    rates = (
        getattr(module, name, 0)
        for module in model.modules()
        for name in (("p",) if isinstance(module, nn.Dropout) else DROPOUTS)
    )
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _no_gain(model: PairScorer, pairs: Sequence[RenderedPair], once: int, twice: int) -> str | None:
    """Compare what the forms cost: fewer tokens packed, but longer rows for attention.

    Both are masked, so that attention is computed for all T keys of a row; a token then costs
    2 operations a weight, and 4 H a layer and key.
    """
    config = model.trunk.config.get_text_config()
    words = model.trunk.get_input_embeddings().weight.numel()
    weights = 2 * (sum(each.numel() for each in model.trunk.parameters()) - words)
    key = ATTENTION_COST * 4 * config.num_hidden_layers * config.hidden_size
    packed = sum(len(pair.packed) for pair in pairs) / len(pairs)
    single = sum(len(pair.positive) + len(pair.negative) for pair in pairs) / len(pairs) / 2
    cost = once * (weights + key * packed) / (twice * (weights + key * single))
    return None if cost < 1 else f"once would cost {cost:.2f} times as much"


@torch.no_grad()
def _difference(
    model: PairScorer, pairs: Sequence[RenderedPair], packed: Collator, stacked: Collator
) -> str | None:
    """Run the longest and the shortest pair in both forms, in evaluation mode."""
    ordered = sorted(pairs, key=lambda pair: len(pair.packed))
    probe = [ordered[-1], ordered[0]]
    was_training = model.training
    model.eval()
    try:
        one, two = (_ends(model, collate(probe)) for collate in (packed, stacked))
    except Exception as error:  # whatever an unknown architecture makes of a mask of its own
        return f"{type(model.trunk).__name__} cannot run a packed pair ({error})"
    finally:
        model.train(was_training)
    apart = float((one - two).norm() / two.norm())
    if apart <= TOLERANCE.get(model.trunk.dtype, HALF_TOLERANCE):
        return None
    return f"{type(model.trunk).__name__} gives other hidden states ({apart:.1g} apart)"


def _ends(model: PairScorer, batch: Batch) -> Tensor:
    """(2B, H) hidden states of the positives' and then the negatives' last tokens."""
    device = model.scorer.device
    hidden = model.hidden(**{name: value.to(device) for name, value in batch.items()})
    return hidden.transpose(0, 1).flatten(0, 1).double()
