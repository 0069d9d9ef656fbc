"""Forward passes that read each prompt once, for all the completions that continue it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from demoalign.policies.branches import Branches, Layers
from demoalign.policies.prefix_attention import PrefixCache, sharing_prefixes

READ_TOKENS = 8192
"""Most tokens, padding included, of prompts that are read in one forward pass."""

_PROBE_LIMIT = 256
"""Sliding windows up to this many tokens are crossed by the probe."""


class Ids(NamedTuple):
    """Token ids and positions, both (B, C)."""

    tokens: Tensor
    positions: Tensor


Forward = Callable[[Ids, PrefixCache, Tensor], Tensor]
"""Runs a model on ids with a cache and gives what is wanted of each row's last token (B,)."""


class Read(NamedTuple):
    """Prompts that were read: keys and values, lengths (G,), what `Forward` gave (G, ...)."""

    layers: Layers
    lengths: Tensor
    outputs: Tensor


def read_prompts(forward: Forward, prompts: Sequence[Sequence[int]], device: torch.device) -> Read:
    """Read prompts in bounded batches, padded on the right."""
    longest = max(len(prompt) for prompt in prompts)
    size = max(1, READ_TOKENS // longest)
    parts = [
        _read_batch(forward, prompts[start : start + size], longest, device)
        for start in range(0, len(prompts), size)
    ]
    if len(parts) == 1:
        return parts[0]
    layers = [
        (
            torch.cat([part.layers[i][0] for part in parts]),
            torch.cat([p.layers[i][1] for p in parts]),
        )
        for i in range(len(parts[0].layers))
    ]
    return Read(
        layers,
        torch.cat([part.lengths for part in parts]),
        torch.cat([part.outputs for part in parts]),
    )


def right_padded(rows: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """(B, width) ids; a row is filled up with its own last token, which no real token sees."""
    return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=device)


def _read_batch(
    forward: Forward, prompts: Sequence[Sequence[int]], width: int, device: torch.device
) -> Read:
    ids = right_padded(prompts, width, device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    positions = torch.arange(width, device=device).expand_as(ids)
    group = Branches(None, lengths, torch.arange(len(prompts), device=device))
    cache = PrefixCache([group])
    outputs = forward(Ids(ids, positions), cache, lengths - 1)
    cache.advance(width)
    return Read(group.as_prefix(), lengths, outputs)


class Next(NamedTuple):
    """What a forward pass says: logits (b, V) of the next token of the rows that were wanted, and
    the final hidden states (B, H) of all rows.
    """

    logits: Tensor
    hidden: Tensor


class HiddenTap:
    """Keeps what a causal model's output embedding reads, for each thread, while it is open."""

    def __init__(self, causal: Any) -> None:
        self._embedding = causal.get_output_embeddings()
        self._local = threading.local()

    @property
    def hidden(self) -> Tensor:
        """(B, C, H) of this thread's last forward pass."""
        states: Tensor = self._local.states
        return states

    def want(self, rows: Tensor | None) -> None:
        """Have the output embedding read only some rows (b,) in this thread; None for all."""
        self._local.rows = rows

    @contextmanager
    def open(self) -> Iterator[None]:
        """Listen while the block runs."""

        def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            self._local.states = inputs[0]
            rows = getattr(self._local, "rows", None)
            return None if rows is None else (inputs[0][rows], *inputs[1:])

        hook = self._embedding.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            hook.remove()


class SharedDecoder:
    """One-token steps of a causal model for any number of groups of branches."""

    def __init__(self, causal: Any) -> None:
        self.causal = causal
        self.device: torch.device = next(causal.parameters()).device
        self._tap = HiddenTap(causal)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Everything else happens inside this; threads may share it."""
        with sharing_prefixes(self.causal), self._tap.open(), torch.inference_mode():
            yield

    def open(self, prompts: Sequence[Sequence[int]]) -> tuple[Read, Next]:
        """Read prompts."""
        hidden: list[Tensor] = []
        self._tap.want(None)

        def forward(ids: Ids, cache: PrefixCache, last: Tensor) -> Tensor:
            kept, place = torch.unique(last, return_inverse=True)
            logits = self._run(ids, cache, logits_to_keep=kept)
            rows = torch.arange(len(last), device=self.device)
            hidden.append(self._tap.hidden[rows, place])
            return logits[rows, place]

        read = read_prompts(forward, prompts, self.device)
        return read, Next(read.outputs, torch.cat(hidden))

    def branch(self, read: Read, owner: Tensor) -> Branches:
        """Rows that continue prompts that were read."""
        return Branches(read.layers, read.lengths, owner)

    def step(
        self, groups: Sequence[Branches], tokens: Tensor, wanted: Tensor | None = None
    ) -> Next:
        """Append one token (B,) to every row of the groups.

        Args:
            groups: their rows, one group after the other.
            tokens: (B,) ids.
            wanted: (b,) numbers of the rows whose logits are wanted; None for all.
        """
        self._tap.want(wanted)
        positions = torch.cat([group.lengths[group.owner] + group.length for group in groups])
        cache = PrefixCache(groups)
        logits = self._run(Ids(tokens[:, None], positions[:, None]), cache)
        cache.advance(1)
        return Next(logits[:, -1], self._tap.hidden[:, -1])

    def _run(self, ids: Ids, cache: PrefixCache, **options: Any) -> Tensor:
        logits: Tensor = self.causal(
            input_ids=ids.tokens,
            position_ids=ids.positions,
            past_key_values=cache,
            use_cache=True,
            **options,
        ).logits
        return logits


_PROBED: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def why_not_shared(model: Any) -> str | None:
    """Why an architecture cannot share prefixes; None if it can.

    Found out once for each model, by comparing the logits of a few tokens (the hidden states, if
    it is no language model) with those of the model's own forward pass.
    """
    if model not in _PROBED:
        try:
            _PROBED[model] = _probe(model)
        except (MemoryError, torch.OutOfMemoryError):  # says nothing about the architecture
            raise
        except Exception as error:
            _PROBED[model] = f"{type(error).__name__}: {error}"
    return _PROBED[model]


@torch.inference_mode()
def _probe(model: Any) -> str | None:
    config = model.config.get_text_config()
    window = _window(config)
    length = 5 + (window if window <= _PROBE_LIMIT else 0)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (3, length + 3), generator=generator)
    prompts = [ids[0, :length].tolist(), ids[1, : length - 2].tolist()]
    owner, after = [0, 0, 1], ids[:, -3:].to(next(model.parameters()).device)
    has_head = model.get_output_embeddings() is not None
    found, windows = (_decoded if has_head else _continued)(model, prompts, owner, after)
    if window > _PROBE_LIMIT and window not in windows:
        return f"its layers look {window} tokens back by their mask alone"
    worst, scale = 0.0, 1.0
    for row, prompt in enumerate(owner):
        whole = torch.cat([after.new_tensor(prompts[prompt]), after[row]])[None]
        output = (model if has_head else model.base_model)(input_ids=whole)
        wanted = (output.logits if has_head else output.last_hidden_state)[0, -4:].float()
        worst = max(worst, float((found[row] - wanted).abs().max()))
        scale = max(scale, float(wanted.abs().max()))
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    if worst <= tolerance * scale:
        return None
    what = "logits" if has_head else "hidden states"
    return f"its {what} differ by {worst:.2g} from those of the plain forward pass"


def _decoded(
    causal: Any, prompts: Sequence[Sequence[int]], owner: Sequence[int], after: Tensor
) -> tuple[Tensor, set[int]]:
    """Logits (B, 1 + C, V) of prompts and steps, and the windows that the layers asked for."""
    decoder = SharedDecoder(causal)
    with decoder.active():
        read, first = decoder.open(prompts)
        group = decoder.branch(read, torch.tensor(owner, device=decoder.device))
        found = [first.logits[owner]]
        found += [decoder.step([group], tokens).logits for tokens in after.unbind(1)]
    return torch.stack(found, dim=1).float(), group.windows


def _continued(
    model: Any, prompts: Sequence[Sequence[int]], owner: Sequence[int], after: Tensor
) -> tuple[Tensor, set[int]]:
    """As `_decoded`, the final hidden states (B, 1 + C, H), all C tokens at once."""

    def states(ids: Ids, cache: PrefixCache) -> Tensor:
        found: Tensor = model.base_model(
            input_ids=ids.tokens, position_ids=ids.positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return found

    def read_last(ids: Ids, cache: PrefixCache, last: Tensor) -> Tensor:
        return states(ids, cache)[torch.arange(len(last), device=after.device), last]

    with sharing_prefixes(model):
        read = read_prompts(read_last, prompts, after.device)
        group = Branches(read.layers, read.lengths, torch.tensor(owner, device=after.device))
        positions = read.lengths[owner, None] + torch.arange(after.shape[1], device=after.device)
        rest = states(Ids(after, positions), PrefixCache([group]))
    return torch.cat([read.outputs[owner, None], rest], dim=1).float(), group.windows


def _window(config: Any) -> int:
    """How far some layers look back; 0 if all of them see everything."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and not {"sliding_attention", "chunked_attention"} & set(kinds):
        return 0
    sizes = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return max(size or 0 for size in sizes)
