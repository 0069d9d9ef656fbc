"""Masses of sets under two policies, against plain forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig
from demoalign.policies import Policy, within
from demoalign.policies.last_hidden import Row
from demoalign.policies.within import logprobs_within
from tests.conftest import ModelFolder
from tests.models import load_backbone

PROMPTS = [(5, 9, 40), (7,), (11, 12, 13, 14, 15, 16, 17)]
ROWS = [
    Row(PROMPTS[0], (20, 21, 22)),
    Row(PROMPTS[1], (30,)),
    Row(PROMPTS[0], ()),
    Row(PROMPTS[2], (40, 41, 42, 43, 44)),
    Row(PROMPTS[0], (20, 23)),
]


def likely(logprobs: torch.Tensor) -> torch.Tensor:
    return logprobs > -4.0


def plain(policy: Policy, row: Row) -> torch.Tensor:
    ids = torch.tensor([row.prompt + row.completion])
    with torch.inference_mode(), policy.active():
        whole = policy.backbone.causal(ids).logits[0].double().log_softmax(-1)
    found: torch.Tensor = whole[len(row.prompt) - 1 : -1]
    return found


@pytest.fixture
def pair(model_folder: ModelFolder) -> tuple[Policy, Policy]:
    backbone = load_backbone(model_folder("llama", "bos"))
    backbone.add_adapter("sft", AdapterConfig(r=4, alpha=8), 0)
    with torch.no_grad():
        for name, weight in backbone.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return Policy("sft", backbone, "sft"), Policy("initial", backbone)


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("set_bytes", [1, 120, 2**26])
def test_masses_are_those_of_plain_forward_passes(
    pair: tuple[Policy, Policy],
    batch_size: int,
    set_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(within, "SET_BYTES", set_bytes)
    for first, second in (pair, pair[::-1]):
        found = logprobs_within(first, second, ROWS, likely, batch_size)
        for row, each in zip(ROWS, found, strict=True):
            ups, downs = plain(first, row), plain(second, row)
            inside = likely(downs)
            said = torch.tensor(row.completion, dtype=torch.long)[:, None]
            wanted = [
                ups.gather(-1, said)[:, 0],
                downs.gather(-1, said)[:, 0],
                (ups.exp() * inside).sum(-1).log(),
                (downs.exp() * inside).sum(-1).log(),
            ]
            values = [each.first.values, each.second.values, each.first_mass, each.second_mass]
            for one, other in zip(values, wanted, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_empty_set_has_no_mass(pair: tuple[Policy, Policy]) -> None:
    found = logprobs_within(*pair, ROWS, lambda logprobs: logprobs > 0)
    for each in found:
        assert (each.first_mass == -np.inf).all()
        assert (each.second_mass == -np.inf).all()


def test_blocks_hold_whole_completions_and_no_more_than_their_share() -> None:
    """At 150,000 tokens a set takes 18,750 bytes: 3,579 places a block."""
    rows = [Row((1 + i % 7,), (1,) * 100) for i in range(200)] + [Row((1,), (1,) * 5000)]
    blocks = list(within._blocks(rows, 150_000))
    assert sorted(i for block in blocks for i in block) == list(range(len(rows)))
    places = [sum(len(rows[i].completion) for i in block) for block in blocks]
    assert [count for count in places if count > 3579] == [5000]
    assert len(blocks) <= 8
