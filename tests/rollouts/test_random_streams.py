"""Counter-based streams: known values, independence of everything but their key, uniformity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from demoalign.rollouts.random_streams import stream_key, uniforms

PINNED = (10053296265700389527, 3019076382192090845)


def test_splitmix64_known_values() -> None:
    """The published outputs of SplitMix64 seeded with 1234567."""
    outputs = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    wanted = [(output >> 11) / 2**53 for output in outputs]
    assert uniforms([1234567], 5).tolist() == [wanted]


def test_pinned_keys() -> None:
    """A changed key would change every stored rollout."""
    assert stream_key(0, "p0", 0) == PINNED[0]
    assert stream_key(7, "Grüße", -1) == PINNED[1]


def test_keys_differ_by_seed_prompt_and_index() -> None:
    keys = {
        stream_key(seed, prompt, index)
        for seed in range(20)
        for prompt in ("a", "b", "1", "11", "1\x001")
        for index in range(-1, 40)
    }
    assert len(keys) == 20 * 5 * 41


def test_a_value_depends_on_its_key_and_position_alone() -> None:
    keys = [stream_key(0, "p", index) for index in range(50)]
    whole = uniforms(keys, 30)
    assert whole.shape == (50, 30)
    assert (uniforms(keys[::-1], 7) == whole[::-1, :7]).all()
    assert (uniforms([keys[11]], 30)[0] == whole[11]).all()
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("axis", [0, 1])
def test_they_are_uniform_and_uncorrelated(axis: int) -> None:
    keys = [stream_key(3, f"prompt {i % 40}", i // 40) for i in range(400)]
    values = uniforms(keys, 100)
    assert ((values >= 0) & (values < 1)).all()
    count = values.size
    assert abs(values.mean() - 0.5) < 4 / np.sqrt(12 * count)
    assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / count)
    counts = np.bincount((values.ravel() * 64).astype(int), minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-3
    before, after = (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 4 / np.sqrt(before.size)
