"""Copies of a policy's weights, its adapter merged: faster to sample from and to read with.

In the same precision a copy saves the adapter's own matrix products, and is the same policy up to
the last digits; it is made of small models only. In bfloat16 it is used where it was asked for and
measured to be faster: on CPUs with matrix units for bfloat16 (AMX) and on GPUs. That is another
policy, if only by rounding: log-probabilities and hidden states are the copy's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from demoalign.errors import ModelError
from demoalign.policies.policy import Policy
from demoalign.policies.shared_prefix import SharedDecoder, why_not_shared

WORTH = 1.1
"""How many times faster a copy must be to be used."""

SMALL_BYTES = 2**28
"""Weights of which a second copy does no harm."""

READ_ROWS = 256
"""Rows from which on a copy is worth making before they are read."""

_ROWS, _PROMPT, _STEPS = 64, 32, 5


def merged_copy(policy: Policy, dtype: torch.dtype) -> Any:
    """The policy as one plain model.

    Raises:
        ModelError: its adapter is more than products added to matrices.
    """
    if not can_merge(policy):
        raise ModelError(
            f"rollouts.precision: a copy needs an adapter of plain LoRA matrices, found another "
            f"kind in {policy.name} (DoRA, embeddings, biases, or a quantised base). Set "
            "precision: same."
        )
    causal = policy.backbone.causal
    copied = type(causal)._from_config(causal.config, dtype=dtype)
    copied = copied.to(policy.backbone.device).eval()
    copied.generation_config = causal.generation_config
    buffers = dict(causal.named_buffers())
    with torch.no_grad():
        for name, weight in copied.named_parameters():
            weight.copy_(_weight(causal, name, policy.adapter))
        for name, buffer in copied.named_buffers():
            if name in buffers and buffers[name].shape == buffer.shape:
                buffer.copy_(buffers[name])
    return copied


def small_copy(policy: Policy) -> Any | None:
    """`merged_copy` in the same precision, if there are adapters and the model is small.

    The bare weights, too, are slower where adapters that are off stand beside them.
    """
    causal = policy.backbone.causal
    held = sum(w.nbytes for name, w in causal.named_parameters() if ".lora_" not in name)
    if not policy.backbone.adapters or held > SMALL_BYTES or not can_merge(policy):
        return None
    return merged_copy(policy, causal.dtype)


@contextmanager
def reading(policy: Policy, rows: int) -> Iterator[Any]:
    """The policy's transformers model to read rows with, a `small_copy` of it if they are many.

    Args:
        policy: whose adapter is active while the block runs.
        rows: how many sequences are about to be read.
    """
    copied = small_copy(policy) if rows >= READ_ROWS else None
    if copied is not None:
        yield copied
        return
    with policy.active():
        yield policy.backbone.causal


def faster_copy(policy: Policy) -> Any | None:
    """A copy in bfloat16, if a decode step with it is measured to be faster; else None."""
    if not can_merge(policy):
        return None
    copied = merged_copy(policy, torch.bfloat16)
    with policy.active():
        plain = _step_seconds(policy.backbone.causal)
    half = _step_seconds(copied)
    return copied if half is not None and plain is not None and plain > WORTH * half else None


def can_merge(policy: Policy) -> bool:
    """Whether the adapter does nothing but add B A to matrices: no DoRA, embeddings or biases.

    A quantised base has no plain matrices to add to.
    """
    if getattr(policy.backbone.causal, "is_quantized", False):
        return False
    plain = (f".lora_A.{policy.adapter}.weight", f".lora_B.{policy.adapter}.weight")
    return all(
        name.endswith(plain)
        for name, _ in policy.backbone.causal.named_parameters()
        if ".lora_" in name and f".{policy.adapter}" in name.partition(".lora_")[2]
    )


def _weight(causal: Any, name: str, adapter: str | None) -> Tensor:
    """A parameter by its name in the plain model, with the adapter's change added."""
    path, _, leaf = name.rpartition(".")
    module = causal.get_submodule(path)
    base = getattr(module, "base_layer", module)
    weight: Tensor = getattr(base, leaf)
    if leaf == "weight" and base is not module and adapter in module.lora_A:
        change: Tensor = module.get_delta_weight(adapter)
        return weight + change.to(weight.dtype)
    return weight


@torch.inference_mode()
def _step_seconds(causal: Any) -> float | None:
    """Best time of a few decode steps; None if the architecture cannot share prefixes."""
    if why_not_shared(causal) is not None:
        return None
    decoder = SharedDecoder(causal)
    tokens = torch.zeros(_ROWS, dtype=torch.long, device=decoder.device)
    with decoder.active():
        read, _ = decoder.open([[0] * _PROMPT])
        group = decoder.branch(read, tokens)
        times = []
        for _ in range(_STEPS):
            clock = time.perf_counter()
            decoder.step([group], tokens).logits.argmax(-1).tolist()
            times.append(time.perf_counter() - clock)
    return min(times)
