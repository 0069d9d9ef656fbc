"""Memory between stages: what one stage let go of is there for the next."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch


def give_back() -> None:
    """Free what nothing reaches any more and hand it to the system or the accelerator.

    A trainer and its model point at each other, so that letting go of both frees nothing until
    cycles are collected: a run would hold the base twice. glibc keeps freed blocks for later; as
    stages want blocks of other sizes, they would add up.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
