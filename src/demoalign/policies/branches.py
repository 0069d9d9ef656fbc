"""The keys and values of completions that continue prompts in lock step."""

from __future__ import annotations

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values (rows, heads, tokens, D) of each layer."""

SPARE = 16
"""Tokens of room that suffixes gain when they grow."""

LIVE_SHARE = 0.75
"""Prompts none of whose rows go on are dropped once no more than this share of them is left."""


class Branches:
    """n rows that continue G prompts; all have the same number of tokens behind their prompt.

    A prompt's keys and values are held once, whatever the number of its rows.

    Attributes:
        rows: n.
        length: T, tokens of each row behind its prompt, without the running forward pass.
        prefix: keys and values (G, heads, P, D) of each layer, padded on the right; None while
            the prompts themselves are being read.
        lengths: (G,) tokens of each prompt.
        owner: (n,) which prompt each row continues.
        windows: how far those layers look that look only so far.
    """

    def __init__(self, prefix: Layers | None, lengths: Tensor, owner: Tensor) -> None:
        self.rows = len(owner)
        self.length = 0
        self.prefix = prefix
        self.lengths = lengths
        self.owner = owner
        self.windows: set[int] = set()
        self._suffix: Layers = []
        self._masks: dict[tuple[object, ...], Tensor | None] = {}
        self._arrange()

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        held = [*self._suffix, *(self.prefix or [])]
        return sum(keys.nbytes + values.nbytes for keys, values in held)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store one layer's new keys and values (n, heads, C, D) behind ``length`` tokens."""
        if layer == len(self._suffix):
            self._suffix.append((self._room(keys), self._room(values)))
            if self.prefix is None:
                return
        held = self._suffix[layer]
        if held[0].shape[2] < self.length + keys.shape[2]:
            held = self._suffix[layer] = (self._room(keys, held[0]), self._room(values, held[1]))
        for buffer, new in zip(held, (keys, values), strict=True):
            buffer[: self.rows, :, self.length : self.length + new.shape[2]] = new

    def suffix(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values (n, heads, tokens, D)."""
        keys, values = self._suffix[layer]
        return keys[: self.rows, :, :tokens], values[: self.rows, :, :tokens]

    def as_prefix(self, row: int | None = None) -> Layers:
        """What was read so far, of all rows or of one, as the prefix of further branches."""
        rows = slice(None) if row is None else slice(row, row + 1)
        end = self.length if row is None else int(self.lengths[row])
        return [(keys[rows, :, :end], values[rows, :, :end]) for keys, values in self._suffix]

    def advance(self, tokens: int) -> None:
        """Count what a whole forward pass has appended."""
        self.length += tokens
        self._masks.clear()

    def drop(self, dead: Tensor) -> Tensor:
        """Forget rows; the last ones move into their places.

        Args:
            dead: (n,) True for rows that end.

        Returns:
            (n',) where each row that is kept stood before.
        """
        left = self.rows - int(dead.sum())
        order = torch.arange(left, device=dead.device)
        holes = dead[:left].nonzero().squeeze(-1)
        movers = left + (~dead[left:]).nonzero().squeeze(-1)
        order[holes] = movers
        if len(holes):
            for keys, values in self._suffix:
                for buffer in (keys, values):
                    buffer[holes, :, : self.length] = buffer[movers, :, : self.length]
        self.rows = left
        self.owner = self.owner[order]
        self._masks.clear()
        if left:
            self._forget_prompts()
            self._arrange()
        return order

    def to_grid(self, rows: Tensor) -> Tensor:
        """(n, heads, M, D) rows -> (G, heads, R M, D), the rows of one prompt side by side."""
        picked = rows if self._cells is None else rows[self._cells[0]]
        prompts = len(self.lengths)
        shaped = picked.view(prompts, -1, *rows.shape[1:]).transpose(1, 2)
        return shaped.reshape(prompts, rows.shape[1], -1, rows.shape[3])

    def from_grid(self, grid: Tensor, count: int) -> Tensor:
        """(G, heads, R M, X) -> (n, heads, M, X) with M = count."""
        prompts, heads, _, width = grid.shape
        shaped = grid.view(prompts, heads, -1, count, width).transpose(1, 2)
        flat = shaped.reshape(-1, heads, count, width)
        return flat if self._cells is None else flat[self._cells[1]]

    def hides_suffix(self, count: int, repeat: int, window: int | None) -> Tensor | None:
        """True where the last ``count`` tokens, ``repeat`` heads, may not look at the suffix."""
        end = self.length + count
        self.windows |= set() if window is None else {window}
        slides = window is not None and end > window
        if count == 1 and not slides:
            return None
        key = ("suffix", count, repeat, window if slides else None)
        if key not in self._masks:
            keys = torch.arange(end, device=self.owner.device)
            queries = keys[self.length :, None]
            hidden = keys > queries
            if slides and window is not None:
                hidden = hidden | (keys <= queries - window)
            self._masks[key] = hidden.repeat(repeat, 1)
        return self._masks[key]

    def hides_prefix(self, count: int, repeat: int, window: int | None) -> Tensor | None:
        """True where they, ``repeat`` times a prompt, may not look at the prompt: (G, 1, ., P)."""
        slides = window is not None and self._longest + self.length + count > window
        if self._even and not slides:
            return None
        key = ("prefix", count, repeat, window if slides else None)
        if key not in self._masks:
            keys = torch.arange(self._longest, device=self.owner.device)
            hidden = (keys >= self.lengths[:, None])[:, None]
            if slides and window is not None:
                steps = torch.arange(count, device=self.owner.device) + self.length
                queries = self.lengths[:, None] + steps
                hidden = (hidden | (keys <= queries[:, :, None] - window)).repeat(1, repeat, 1)
            self._masks[key] = hidden[:, None]
        return self._masks[key]

    def _room(self, new: Tensor, held: Tensor | None = None) -> Tensor:
        """A buffer for the rows with spare room; prompts that are being read need none."""
        if self.prefix is None:
            return new
        rows, heads, count, width = new.shape
        room = new.new_empty(rows, heads, self.length + count + SPARE, width)
        if held is not None:
            room[:, :, : self.length] = held[:rows, :, : self.length]
        return room

    def _forget_prompts(self) -> None:
        """Drop prompts that no row continues, once they are many."""
        live = torch.zeros(len(self.lengths), dtype=torch.bool, device=self.owner.device)
        live[self.owner] = True
        count = int(live.sum())
        if self.prefix is None or count > LIVE_SHARE * len(live):
            return
        kept = live.nonzero().squeeze(-1)
        self.lengths = self.lengths[kept]
        longest = int(self.lengths.max())
        self.prefix = [(k[kept, :, :longest], v[kept, :, :longest]) for k, v in self.prefix]
        self.owner = (live.cumsum(0) - 1)[self.owner]

    def _arrange(self) -> None:
        """Lay the rows out as a grid of G prompts by R rows."""
        prompts = len(self.lengths)
        self._longest = int(self.lengths.max())
        self._even = prompts == 1 or int(self.lengths.min()) == self._longest
        self._cells = None
        if prompts == 1:
            return
        counts = torch.bincount(self.owner, minlength=prompts)
        widest = int(counts.max())
        order = self.owner.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        place = torch.empty_like(self.owner)
        place[order] = torch.arange(self.rows, device=self.owner.device) - starts[self.owner[order]]
        cell = self.owner * widest + place
        identity = torch.arange(self.rows, device=self.owner.device)
        if prompts * widest == self.rows and torch.equal(cell, identity):
            return
        grid = torch.zeros(prompts * widest, dtype=torch.long, device=self.owner.device)
        grid[cell] = identity
        self._cells = grid, cell
