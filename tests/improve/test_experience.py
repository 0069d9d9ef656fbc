"""What an answer says again, and what it is paid for it."""

from __future__ import annotations

import numpy as np
import pytest

from demoalign.config import RatioConfig
from demoalign.improve.experience import Said
from demoalign.improve.fixed_reward import FixedReward
from demoalign.policies import Policy
from demoalign.policies.last_hidden import Row
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.token_reward import repeated
from tests.conftest import ModelFolder
from tests.improve.trainings import disturbed, said_of


def completions(*ids: tuple[int, ...]) -> Said:
    return said_of([Row((0,), each) for each in ids])


@pytest.mark.parametrize(
    ("ids", "size", "again"),
    [
        ((1, 2, 3, 1, 2, 3, 1), 2, (0, 0, 0, 1, 1, 1, 1)),
        ((1, 2, 3, 1, 2, 3, 1), 3, (0, 0, 0, 1, 1, 1, 1)),
        ((1, 1, 1, 1), 2, (0, 1, 1, 1)),
        ((5, 6, 5), 1, (0, 0, 1)),
        ((1, 2), 4, (0, 0)),
        ((), 2, ()),
    ],
)
def test_which_tokens_belong_to_a_run_that_was_there_before(
    ids: tuple[int, ...], size: int, again: tuple[int, ...]
) -> None:
    assert repeated(ids, size).tolist() == [bool(each) for each in again]


def test_what_is_said_again_loses_what_it_would_earn() -> None:
    said = completions((1, 2, 1, 2, 1), (3, 4))
    rewards = [np.array([1.0, 2.0, 3.0, 4.0, -5.0]), np.array([np.nan, np.nan])]
    found = said.once(rewards, 2)
    np.testing.assert_array_equal(found[0], [1.0, 2.0, -3.0, -4.0, -5.0])
    assert np.isnan(found[1]).all(), "what could not be scored stays so"
    for mine, its in zip(said.once(rewards, None), rewards, strict=True):
        assert mine is its


def test_the_closed_form_pays_once_by_token_and_by_answer(model_folder: ModelFolder) -> None:
    sft = Policy("sft", disturbed(model_folder("llama", "eos_only")), "sft")
    plain, once = (
        DensityRatio.between(sft, sft.base(), RatioConfig(support=None, clip=None, repeats=size))
        for size in (None, 2)
    )
    said = completions((*range(5, 15), *range(5, 15), 3), (9, 10))
    paid = FixedReward(plain, by_token=True).judge(said)
    found = FixedReward(once, by_token=True).judge(said)
    again = np.array([False] * 10 + [True] * 10 + [False])
    assert (paid[0][again] > 0).any(), "the policies must differ where something is repeated"
    np.testing.assert_allclose(found[0], np.where(again, -np.abs(paid[0]), paid[0]))
    np.testing.assert_allclose(found[1], paid[1])
    whole = FixedReward(once).raw(said)
    np.testing.assert_allclose(whole, [each.sum() for each in found])
    conditional = {"support": -9.0, "memory": 0, "conditional": True}
    both = [
        DensityRatio.between(sft, sft.base(), RatioConfig(**conditional, repeats=size))
        for size in (None, 2)
    ]
    inside, kept = (each.read_rows(said.rows)[0].rewards for each in both)
    np.testing.assert_allclose(kept, np.where(again, -np.abs(inside), inside))
