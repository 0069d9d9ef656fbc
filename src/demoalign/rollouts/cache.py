"""A key/value cache that grows in place instead of being copied at every token."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE = 32
"""Tokens of room that are allocated at a time."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """`DynamicLayer` with spare room behind its keys and values.

    ``keys`` and ``values`` stay (B, heads, length, width) as transformers expects; they are
    views of larger buffers. Appending copies nothing until the room is used up.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._room: dict[str, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the new keys and values; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, held: Tensor, new: Tensor) -> Tensor:
        length = held.shape[-2] if held.numel() else 0
        needed = length + new.shape[-2]
        room = self._room.get(name)
        fits = room is not None and len(room) == len(new) and room.shape[-2] >= needed
        if room is None or not fits or (length and room.data_ptr() != held.data_ptr()):
            room = new.new_empty(*new.shape[:2], needed + SPARE, new.shape[-1])
            if length:
                room[:, :, :length] = held
            self._room[name] = room
        room[:, :, length:needed] = new
        return room[:, :, :needed]


def growing_cache(config: Any) -> Any:
    """An empty cache for a model's configuration; sliding-window layers stay transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
