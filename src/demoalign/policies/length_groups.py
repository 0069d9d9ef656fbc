"""Batches of rows of like length, in another order every epoch, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

POOL_BATCHES = 16
"""How many batches' rows are sorted together: enough to leave little padding, few enough that an
epoch's batches differ from the last one's."""


class LengthGroups(Sampler[int]):
    """Numbers of rows in the order they are trained on.

    Rows are shuffled and cut into pools of `POOL_BATCHES` batches; each pool is sorted by length
    and cut into batches, and the batches of all pools are shuffled. Epoch and seed decide all of
    it, so that processes agree and a training that resumes sees what it would have seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Lengths in tokens; ``batch_size`` rows over all processes."""
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Every row once; only the last batch may be short."""
        random = torch.Generator().manual_seed((self._seed << 16) + self._epoch)
        shuffled = torch.randperm(len(self), generator=random)
        batches: list[Tensor] = []
        for pool in torch.split(shuffled, POOL_BATCHES * self._batch_size):
            in_order = pool[self._lengths[pool].argsort(stable=True)]
            batches += torch.split(in_order, self._batch_size)
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []
        order = torch.randperm(len(batches), generator=random).tolist()
        for batch in [*(batches[place] for place in order), *short]:
            yield from batch.tolist()
