"""Adam's moments by name, to be stored as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def restore_moments(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Adam's moments from entries called ``adam.NUMBER.NAME``."""
    plain = optimiser.state_dict()
    plain["state"] = {}
    for key, each in state.items():
        kind, _, rest = key.partition(".")
        if kind == "adam":
            number, _, name = rest.partition(".")
            plain["state"].setdefault(int(number), {})[name] = each
    optimiser.load_state_dict(plain)


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments, called as `restore_moments` takes them."""
    return {
        f"adam.{number}.{name}": each
        for number, moments in optimiser.state_dict()["state"].items()
        for name, each in moments.items()
    }
