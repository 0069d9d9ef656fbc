"""Which of two modes each divergence makes a policy hold that cannot hold both, exactly.

    python docs/mode_matching.py > docs/results/modes.json

What `docs/modes.py` draws and writes into docs/divergences.md. See `demoalign.lab.modes`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from demoalign.divergences import DivergenceName, divergence
from demoalign.lab.modes import Array, Level, TwoModes

SHOWN: tuple[tuple[DivergenceName, float | None], ...] = (
    ("fairl", None),
    ("alpha", 0.25),
    ("alpha", 0.5),
    ("gail", None),
    ("alpha", 0.75),
    ("airl", None),
)
ALPHAS = [round(float(each), 3) for each in np.linspace(-0.5, 1.5, 41)]
LEVELS: tuple[Level, ...] = ("trajectory", "token")


def main() -> None:
    """Print everything as one JSON object."""
    world = TwoModes()
    wanted = world.demonstrated(world.texts)
    first, second = (world.texts(each) for each in (world.hold, 1 - world.hold))
    found = {
        "schema": 1,
        "settings": {"longest": world.longest, "share": world.share, "hold": world.hold},
        "demonstrator": _numbers(world.counts(wanted)),
        "modes": [_numbers(world.counts(each)) for each in (first, second)],
        "minimised": [
            _minimised(world, wanted, name, alpha, level)
            for level in LEVELS
            for name, alpha in SHOWN
        ],
        "alphas": [
            {"level": level, "alpha": alpha, "minima": _minima(world, "alpha", alpha, level)}
            for level in LEVELS
            for alpha in ALPHAS
        ],
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def _minimised(
    world: TwoModes, wanted: Array, name: DivergenceName, alpha: float | None, level: Level
) -> dict[str, Any]:
    minima = _minima(world, name, alpha, level)
    theta = minima[0]["theta"]
    log_p, log_q = torch.from_numpy(wanted), torch.from_numpy(world.texts(theta))
    counts = world.counts(world.texts(theta))
    return {
        "level": level,
        "name": name,
        "alpha": alpha,
        "minima": minima,
        "counts": _numbers(counts),
        "forward_kl": _number(divergence("fairl", log_p, log_q)),
        "reverse_kl": _number(divergence("airl", log_p, log_q)),
    }


def _minima(
    world: TwoModes, name: DivergenceName, alpha: float | None, level: Level
) -> list[dict[str, float]]:
    found = world.minima(name, alpha, level)
    return [{"theta": _number(theta), "divergence": _number(value)} for theta, value in found]


def _number(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _numbers(values: Array) -> list[float]:
    return [_number(value) for value in values]


if __name__ == "__main__":
    main()
