"""Several processes that work on one run, as ``accelerate launch`` starts them.

The main process does everything that one process would do, in the run's folder. The others join
it in stages that can be shared: they train the same models on their part of each batch, and sample
and score their part of the prompts. What they write goes into a folder of their own and is
forgotten, so that stages need not know of them; results are read from the run's folder, which all
must see.

With one process, every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=14)
"""How long a process waits for the others, which may sample for hours."""

_sharing: ContextVar[bool] = ContextVar("sharing", default=False)


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0, which is the main one."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is the main one, or the only one."""
    return rank() == 0


def parts() -> int:
    """Into how many parts work is split here: 1 outside of stages that are shared."""
    return world() if _sharing.get() else 1


@contextmanager
def shared() -> Iterator[None]:
    """Split sampling and scoring among the processes while the block runs, in all of them."""
    token = _sharing.set(world() > 1)
    try:
        yield
    finally:
        _sharing.reset(token)


def mine(items: Sequence[T]) -> Sequence[T]:
    """What this process does of work that is split; all of it outside of stages that are shared."""
    return items[rank() :: parts()] if parts() > 1 else items


def joined(found: Sequence[T]) -> list[T]:
    """What all processes have made of their `mine`, one result an item, in the items' order."""
    if parts() == 1:
        return list(found)
    shares = gather(list(found))
    return [shares[i % parts()][i // parts()] for i in range(sum(map(len, shares)))]


def of_all(value: T) -> list[T]:
    """`gather` within a stage that is shared; outside of one, this process's value alone."""
    return gather(value) if parts() > 1 else [value]


def agreed(find: Callable[[], T]) -> T:
    """`from_main` within a stage that is shared; outside of one, what this process finds."""
    return from_main(find) if parts() > 1 else find()


def add_up_gradients(weights: Sequence[Tensor]) -> None:
    """Give each weight the sum of its gradients in all processes that share a stage."""
    if parts() == 1:
        return
    import torch
    import torch.distributed as group

    connect()
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([each.reshape(-1) for each in gradients])
    group.all_reduce(flat)
    totals = torch.split(flat, [each.numel() for each in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_(total.view_as(gradient))


def is_set(variable: str) -> bool:
    """Whether accelerate's launcher has switched something on in the environment."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def connect() -> None:
    """Let the processes find each other; nothing if there is one."""
    if world() > 1:
        from accelerate import PartialState

        PartialState(cpu=is_set("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def wait() -> None:
    """Go on when all processes have come here."""
    if world() > 1:
        gather(None)


def from_main(find: Callable[[], T]) -> T:
    """What the main process finds, in every process; the others do not look."""
    if world() == 1:
        return find()
    import torch.distributed as group

    connect()
    found: list[Any] = [find() if is_main() else None]
    group.broadcast_object_list(found, src=0)
    value: T = found[0]
    return value


def gather(value: T) -> list[T]:
    """The values of all processes, by number, in every process."""
    if world() == 1:
        return [value]
    import torch.distributed as group

    connect()
    found: list[Any] = [None] * world()
    group.all_gather_object(found, value)
    return found
