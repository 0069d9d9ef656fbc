"""Counter-based random streams: one for each rollout, whatever the batch around it.

Token t of a rollout is drawn with the uniform number u(seed, prompt id, sample index, t), a
hash of those four and of nothing else. So the same rollout comes out whatever the batch size,
the order, the resume point or the number of workers.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, prompt_id: str, index: int) -> int:
    """64-bit key of one rollout's stream."""
    text = f"{seed}\0{index}\0{prompt_id}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(keys: list[int], positions: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for the first ``positions`` tokens of each stream.

    SplitMix64 (Steele, Lea and Flood, 2014) evaluated at its counter: state key + (t+1) * phi,
    finalised to 64 bits, of which the upper 53 are used.

    Args:
        keys: B keys from `stream_key`.
        positions: T, how many tokens.

    Returns:
        (B, T) float64.
    """
    counters = np.arange(1, positions + 1, dtype=np.uint64) * _GOLDEN
    state = np.asarray(keys, dtype=np.uint64)[:, None] + counters[None, :]
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    state = state ^ (state >> np.uint64(31))
    numbers: NDArray[np.float64] = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
