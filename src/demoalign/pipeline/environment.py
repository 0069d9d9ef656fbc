"""What a run ran on: versions and hardware, never environment variables or arguments."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from demoalign.processes import world
from demoalign.version import __version__

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
)


def environment() -> dict[str, Any]:
    """Versions of packages, interpreter, system and hardware."""
    import torch

    has_gpu = torch.cuda.is_available()
    return {
        "demoalign": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if has_gpu else None,
        "gpus": torch.cuda.device_count() if has_gpu else 0,
        "processes": world(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
