"""A prompt computed once for both completions: same rewards, losses and gradients as twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from demoalign.config import RewardConfig
from demoalign.rewards.losses import pair_loss
from demoalign.rewards.packing import (
    Collator,
    PackedCollator,
    PairScorer,
    RenderedPair,
    StackedCollator,
    by_side,
    packed_mask,
    packed_positions,
)
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer
from demoalign.rewards.train import pair_trainer
from tests.conftest import ModelFolder
from tests.rewards.models import fresh_reward

LOSSES = ("bce", "bradley_terry", "bradley_terry_variance")
PROMPT = [7, 40, 41, 42, 43, 44, 45]
PAIRS = {
    "unequal lengths": RenderedPair([*PROMPT, 50, 51, 52, 53, 54], [*PROMPT, 60, 61]),
    "alike at first": RenderedPair([*PROMPT, 50, 51, 52], [*PROMPT, 50, 51, 70, 71]),
    "one begins the other": RenderedPair([*PROMPT, 50, 51], [*PROMPT, 50, 51, 52, 53]),
    "equal": RenderedPair([*PROMPT, 50, 51], [*PROMPT, 50, 51]),
    "empty beside full": RenderedPair([*PROMPT, 2], [*PROMPT, 50, 51, 52, 2]),
    "cut within the prompt": RenderedPair(PROMPT[:3], PROMPT[:3]),
    "a single token": RenderedPair([7], [7]),
    "nothing shared": RenderedPair([8, 50, 51], [9, 60, 61, 62]),
}


def in_double(model: RewardModel) -> PairScorer:
    """The trunk in float64; heads stay as they are."""
    if isinstance(model.scorer, SharedScorer):
        model.scorer.backbone.causal.double()
    else:
        model.scorer.model.base_model.double()
        model.scorer.model.score.double()
    return PairScorer(model.scorer)


def loss_and_gradients(
    model: PairScorer, collate: Collator, pairs: list[RenderedPair], loss: str
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    rewards, variances = model(**collate(pairs))
    raw = (None, None) if variances is None else by_side(variances)
    ups, downs = by_side(rewards)
    value = pair_loss(loss, (ups, raw[0]), (downs, raw[1]))
    torch.autograd.backward(value)
    found = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return value.detach(), found


# Rows, by hand


def test_a_packed_pair_by_hand() -> None:
    pair = RenderedPair([1, 2, 3, 4], [1, 2, 5, 6, 7])
    assert pair.shared == 2
    batch = PackedCollator(0)([pair, RenderedPair([1, 2, 3], [1, 9])])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 9, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4], [0, 1, 2, 1, 1, 1, 1]]
    assert batch["ends"].tolist() == [[3, 6], [2, 3]]
    reads = [[int(key) for key in row.nonzero()] for row in batch["attention_mask"][0, 0]]
    assert reads == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 4],
        [0, 1, 4, 5],
        [0, 1, 4, 5, 6],
    ]
    assert batch["attention_mask"][1, 0, 3].nonzero().flatten().tolist() == [0, 3]


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("unequal lengths", 7),
        ("alike at first", 9),
        ("one begins the other", 8),
        ("equal", 8),
        ("cut within the prompt", 2),
        ("a single token", 0),
        ("nothing shared", 0),
    ],
)
def test_each_side_keeps_its_last_token(name: str, shared: int) -> None:
    pair = PAIRS[name]
    assert pair.shared == shared < min(len(pair.positive), len(pair.negative))
    batch = PackedCollator(0)([pair])
    ends = batch["input_ids"][0, batch["ends"][0]].tolist()
    assert ends == [pair.positive[-1], pair.negative[-1]]
    positions = batch["position_ids"][0, batch["ends"][0]].tolist()
    assert positions == [len(pair.positive) - 1, len(pair.negative) - 1]


def test_no_row_reads_nothing_and_no_token_reads_padding() -> None:
    shared, switch = torch.tensor([2, 0]), torch.tensor([3, 1])
    mask = packed_mask(shared, switch, 9)
    assert mask.any(-1).all()
    assert not mask[:, 0, :5, 5:].any()
    positions = packed_positions(shared, switch, torch.tensor([4, 1]), 9)
    assert positions.max() == 3


def test_sides_of_both_forms() -> None:
    assert [side.tolist() for side in by_side(torch.tensor([[1], [2], [3], [4]]))] == [
        [1, 2],
        [3, 4],
    ]
    assert [side.tolist() for side in by_side(torch.tensor([[1, 3], [2, 4]]))] == [[1, 2], [3, 4]]


# Once equals twice


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_once_equals_twice(
    model_folder: ModelFolder, architecture: str, kind: str, loss: str
) -> None:
    """The trunk in float64, so that what is left is the float32 of the heads."""
    folder = model_folder(architecture, "bos")
    reward = fresh_reward(folder, kind, variance=loss.endswith("variance"))
    model = in_double(reward)
    adapter = "reward_reward" if kind == "adapter" else None
    scorer = reward.scorer
    backbone = scorer.backbone if isinstance(scorer, SharedScorer) else None
    batches = [[pair] for pair in PAIRS.values()] + [list(PAIRS.values())]
    for pairs in batches:
        results = []
        for collate in (PackedCollator(0), StackedCollator(0)):
            if backbone is not None:
                with backbone.using(adapter):
                    results.append(loss_and_gradients(model, collate, pairs, loss))
            else:
                results.append(loss_and_gradients(model, collate, pairs, loss))
        (once, once_slopes), (twice, twice_slopes) = results
        torch.testing.assert_close(once, twice, rtol=1e-6, atol=1e-7)
        assert once_slopes.keys() == twice_slopes.keys()
        assert len(once_slopes) > 8
        largest = max(float(slope.abs().max()) for slope in twice_slopes.values())
        assert len(pairs) == 1 or largest > 1e-3
        for name, slope in once_slopes.items():
            torch.testing.assert_close(
                slope, twice_slopes[name], rtol=1e-5, atol=1e-5 * max(largest, 1e-2), msg=name
            )


def test_eager_attention_gives_the_same(model_folder: ModelFolder) -> None:
    reward = fresh_reward(model_folder("llama", "bos"), "full")
    model = in_double(reward)
    pairs = list(PAIRS.values())
    expected, _ = loss_and_gradients(model, StackedCollator(0), pairs, "bce")
    model.trunk.set_attn_implementation("eager")
    found, _ = loss_and_gradients(model, PackedCollator(0), pairs, "bce")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


# Through the trainer


def trained(
    folder: Any, kind: str, collate: Collator, checkpointing: bool = False
) -> dict[str, Tensor]:
    """Weights after three steps on all pairs."""
    reward = fresh_reward(folder, kind)
    model = PairScorer(reward.scorer)
    config = RewardConfig(
        loss="bradley_terry",
        epochs=3,
        batch_size=4,
        accumulation=2,
        learning_rate=1e-4,
        gradient_checkpointing=checkpointing,
    )
    pairs = list(PAIRS.values())
    scorer = reward.scorer

    def train() -> None:
        pair_trainer(config, model, pairs, collate, 0, "mine", str(folder)).train()

    if isinstance(scorer, SharedScorer):
        with scorer.backbone.using(scorer.adapter):
            train()
    else:
        train()
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_trained_weights_agree(model_folder: ModelFolder, kind: str) -> None:
    """With layers recomputed in the backward pass too."""
    folder = model_folder("llama", "bos")
    twice = trained(folder, kind, StackedCollator(0))
    untouched = dict(PairScorer(fresh_reward(folder, kind).scorer).named_parameters())
    moved = [name for name, weight in twice.items() if not torch.equal(weight, untouched[name])]
    assert len(moved) > 8
    for checkpointing in (False, True):
        once = trained(folder, kind, PackedCollator(0), checkpointing)
        for name, weight in twice.items():
            torch.testing.assert_close(once[name], weight, rtol=0, atol=3e-5, msg=name)
