"""Several training rows in one sequence, so that short rows waste no padding.

A packed sequence has no attention mask; its positions begin at 0 with every row, from which
transformers' masks keep the rows apart. Whether an architecture does so is asked, not assumed.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from demoalign.errors import TrainingError

TOLERANCE = 1e-3
PROBES = ((5, 9, 7), (3, 8, 6, 4))

Row = Mapping[str, list[Any]]


def pack_rows(rows: Sequence[Row], room: int) -> list[dict[str, list[Any]]]:
    """Rows joined into sequences of at most ``room`` tokens.

    The longest rows are placed first, each where it leaves the least room (best fit decreasing).

    Args:
        rows: columns of one length a row, ``input_ids`` among them.
        room: tokens of a sequence; no row is longer.

    Returns:
        The same columns, with ``position_ids`` that count anew in every row.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]["input_ids"]), i))
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # tokens left and number of the pack, ascending
    for number in order:
        length = len(rows[number]["input_ids"])
        place = bisect.bisect_left(free, (length, -1))
        left, pack = free.pop(place) if place < len(free) else (room, len(packs))
        if pack == len(packs):
            packs.append([])
        packs[pack].append(number)
        bisect.insort(free, (left - length, pack))
    return [_joined([rows[number] for number in sorted(pack)]) for pack in packs]


def _joined(rows: Sequence[Row]) -> dict[str, list[Any]]:
    whole = {name: [value for row in rows for value in row[name]] for name in rows[0]}
    whole["position_ids"] = [place for row in rows for place in range(len(row["input_ids"]))]
    return whole


def check_kept_apart(model: Any, name: str) -> None:
    """Ask a model whether packed rows read as they do alone.

    Args:
        model: causal, in evaluation mode.
        name: the recipe's section, for the message.

    Raises:
        TrainingError: they do not.
    """
    device = next(model.parameters()).device
    packed = _joined([{"input_ids": list(row)} for row in PROBES])
    with torch.inference_mode():
        together = model(
            **{key: torch.tensor([value], device=device) for key, value in packed.items()},
            use_cache=False,
        ).logits[0]
        alone = torch.cat(
            [model(torch.tensor([row], device=device), use_cache=False).logits[0] for row in PROBES]
        )
    difference = float((together - alone).abs().max() / alone.abs().max().clamp_min(1e-9))
    limit = TOLERANCE if together.dtype == torch.float32 else 0.05
    if not difference < limit:
        raise TrainingError(
            f"{name}.packing: {type(model).__name__} must keep packed rows apart, found logits "
            f"that differ by {difference:.2g} of the largest. Set packing: false."
        )
