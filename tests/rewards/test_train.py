"""Learning: an easy distinction, accumulation, numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig, ModelConfig, RewardConfig
from demoalign.errors import TrainingError
from demoalign.intervals import wilson
from demoalign.policies import Backbone, Policy
from demoalign.records import Metric
from demoalign.rewards import RewardModel
from demoalign.rewards.comparisons import Answer, Comparison
from demoalign.rewards.heldout import heldout_metrics
from demoalign.rewards.losses import calibration_error
from demoalign.rewards.packing import StackedCollator
from demoalign.rewards.scorers import SharedScorer, WholeScorer
from demoalign.rewards.train import render_pairs, train_reward_model
from tests.conftest import ModelFolder
from tests.models import load_backbone
from tests.rewards.models import KINDS, easy_pairs, fresh_reward

LOSSES = ("bce", "bradley_terry", "bradley_terry_variance")


def train(
    backbone: Backbone, pairs: Sequence[Comparison], adapter: str = "lora", **settings: Any
) -> tuple[RewardModel, list[float]]:
    config = RewardConfig.model_validate(
        {"epochs": 2, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-2, **settings}
    )
    shape = AdapterConfig.model_validate({"kind": adapter, "r": 8})
    base = ModelConfig(base=backbone.base, adapter=shape)
    return train_reward_model(config, base, backbone, Policy("sft", backbone), pairs, 0, "mine")


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.metric: metric for metric in metrics}


# Batches


def test_pairs_are_rendered_cut_and_stacked(model_folder: ModelFolder) -> None:
    tokenizer = load_backbone(model_folder("llama", "bos")).tokenizer
    pair = Comparison("p", "Why?", Answer(" Yes."), Answer(" No, it is", finished=False))
    (row,) = render_pairs(tokenizer, [pair], 1000)
    assert row.positive[0] == row.negative[0] == tokenizer.bos_token_id
    assert row.positive[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in row.negative
    (other,) = render_pairs(
        tokenizer, [Comparison("p", "Why?", pair.negative, pair.positive)], 1000
    )
    assert (other.positive, other.negative) == (row.negative, row.positive)
    (cut,) = render_pairs(tokenizer, [pair], 6)
    assert (cut.positive, cut.negative) == (row.positive[:6], row.negative[:6])
    batch = StackedCollator(tokenizer.pad_token_id)([row, cut])
    lengths = [len(row.positive), 6, len(row.negative), 6]
    assert batch["attention_mask"].sum(-1).tolist() == lengths
    for number, ids in enumerate((row.positive, cut.positive, row.negative, cut.negative)):
        assert batch["input_ids"][number, : len(ids)].tolist() == ids


# Learning


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_an_easy_distinction(
    model_folder: ModelFolder, kind: str, loss: str
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    rate = 3e-3 if kind == "full" else 1e-2
    model, losses = train(
        backbone, easy_pairs(40), model=kind, loss=loss, learning_rate=rate, epochs=4
    )
    assert isinstance(model.scorer, WholeScorer if kind == "full" else SharedScorer)
    assert losses[-1] < losses[0]
    held_out = easy_pairs(30, start=100)
    found = by_name(heldout_metrics(model, held_out, loss, 0))
    assert found["heldout_accuracy"].value is not None
    assert found["heldout_accuracy"].value > 0.9
    assert found["heldout_log_loss"].value is not None
    assert found["heldout_log_loss"].value < math.log(2)
    has_variance = loss == "bradley_terry_variance"
    assert (model.scorer.variance is not None) == has_variance


def test_without_adapters_the_whole_model_is_trained(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    model, _ = train(backbone, easy_pairs(4), adapter="none", model="adapter")
    assert isinstance(model.scorer, WholeScorer)
    assert backbone.adapters == ()


def test_the_same_seed_gives_the_same_model(model_folder: ModelFolder) -> None:
    found = []
    for before in (0, 1):
        torch.manual_seed(before)
        backbone = load_backbone(model_folder("llama", "bos"))
        model, _ = train(backbone, easy_pairs(8))
        found.append(model.score(["Why?"], [" Yes."]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("kind", "loss"), [("full", "bce"), *(("adapter", loss) for loss in LOSSES)]
)
def test_accumulation_equals_a_larger_batch(
    model_folder: ModelFolder, kind: str, loss: str
) -> None:
    pairs = easy_pairs(8)
    losses, scores = [], []
    for batch_size, accumulation in ((1, 8), (8, 1)):
        backbone = load_backbone(model_folder("llama", "bos"))
        model, logged = train(
            backbone,
            pairs,
            model=kind,
            loss=loss,
            batch_size=batch_size,
            accumulation=accumulation,
            epochs=10,
            learning_rate=1e-4,
        )
        losses.append(logged)
        scores.append(
            model.score([p.prompt for p in pairs], [p.positive.completion for p in pairs])
        )
    assert len(losses[0]) == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    untouched = fresh_scores(model_folder, kind, loss, pairs)
    assert np.abs(scores[0] - untouched).max() > 2e-3


def fresh_scores(
    model_folder: ModelFolder, kind: str, loss: str, pairs: Sequence[Comparison]
) -> np.ndarray:
    backbone = load_backbone(model_folder("llama", "bos"))
    model, _ = train(backbone, pairs, model=kind, loss=loss, epochs=0.1, learning_rate=1e-12)
    return model.score([p.prompt for p in pairs], [p.positive.completion for p in pairs])


def test_the_head_is_the_convex_fit(model_folder: ModelFolder) -> None:
    """Its loss does not fall if the head is moved a little in any of 20 directions."""
    backbone = load_backbone(model_folder("llama", "bos"))
    pairs = easy_pairs(12)
    model, losses = train(backbone, pairs, model="head")
    assert isinstance(model.scorer, SharedScorer)
    prompts = [pair.prompt for pair in pairs]
    head = model.scorer.head.weight
    best = head.detach().clone()
    generator = torch.Generator().manual_seed(0)

    def loss() -> float:
        ups = model.score(prompts, [pair.positive.completion for pair in pairs])
        downs = model.score(prompts, [pair.negative.completion for pair in pairs])
        return float((np.log1p(np.exp(-ups)) + np.log1p(np.exp(downs))).mean() / 2)

    lowest = loss()
    assert lowest <= losses[-1] < losses[0] == pytest.approx(math.log(2))
    for _ in range(20):
        step = torch.randn(best.shape, generator=generator)
        with torch.no_grad():
            head.copy_(best + 0.3 * best.norm() * step / step.norm())
        assert loss() > lowest


# Numbers that are not finite


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_nan_stops_the_training(model_folder: ModelFolder, kind: str, loss: str) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    if kind == "full":
        wild: dict[str, Any] = {"learning_rate": 1e30, "epochs": 4}
        step = r"step [23]"
    else:
        wild, step = {}, "step 1"
        with torch.no_grad():
            backbone.causal.model.norm.weight[0] = math.nan
    with pytest.raises(TrainingError, match=rf"reward mine: loss must be finite, .* at {step}\."):
        train(backbone, easy_pairs(8), model=kind, loss=loss, **wild)


def test_a_head_needs_the_sft_policy(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    config = RewardConfig(model="head")
    base = ModelConfig(base=backbone.base)
    with pytest.raises(TrainingError, match="head needs the SFT policy, found none"):
        train_reward_model(config, base, backbone, None, easy_pairs(2), 0, "mine")


# Held-out metrics


@pytest.mark.parametrize("loss", LOSSES)
def test_heldout_metrics_by_hand(model_folder: ModelFolder, loss: str) -> None:
    model = fresh_reward(model_folder("llama", "bos"), variance=loss.endswith("variance"))
    same = Comparison("t", "Why?", Answer(" Yes."), Answer(" Yes."))
    cut = Comparison("u", "Why?", Answer(" Yes."), Answer(" Yes.", finished=False))
    pairs = [*easy_pairs(9), same, cut]
    prompts = [pair.prompt for pair in pairs]
    ups, up_v = model.score_with_deviation(prompts, [p.positive.completion for p in pairs])
    downs, down_v = model.score_with_deviation(
        prompts,
        [p.negative.completion for p in pairs],
        [p.negative.finished for p in pairs],
    )
    wins = sum(
        1.0 if i < 9 and up > down else 0.0
        for i, (up, down) in enumerate(zip(ups, downs, strict=True))
    )
    wins += 0.5 + (ups[10] > downs[10])
    assert ups[10] != downs[10]
    if loss == "bce":
        pairs_of_logits = [(up, -down) for up, down in zip(ups, downs, strict=True)]
        logits = [*ups, *downs]
    else:
        gaps = [
            (up - down) / math.sqrt((v * v + w * w) / 2)
            for up, down, v, w in zip(ups, downs, up_v, down_v, strict=True)
        ]
        pairs_of_logits = [(gap, gap) for gap in gaps]
        logits = [*gaps, *(-gap for gap in gaps)]
    each = [sum(math.log1p(math.exp(-x)) for x in pair) / 2 for pair in pairs_of_logits]
    labels = torch.tensor([1.0] * 11 + [0.0] * 11)
    chances = torch.tensor([1 / (1 + math.exp(-x)) for x in logits], dtype=torch.float64)
    found = by_name(heldout_metrics(model, pairs, loss, 7))
    accuracy, log_loss = found["heldout_accuracy"], found["heldout_log_loss"]
    assert accuracy.value == pytest.approx(wins / 11)
    assert accuracy.ci95 == pytest.approx(wilson(wins, 11))
    assert log_loss.value == pytest.approx(sum(each) / 11, rel=1e-5)
    assert log_loss.ci95 is not None
    assert log_loss.ci95[0] < sum(each) / 11 < log_loss.ci95[1]
    assert found["heldout_calibration_error"].value == pytest.approx(
        calibration_error(chances, labels), abs=1e-5
    )
    assert {(m.policy, m.selector, m.n, m.count, m.seed) for m in found.values()} == {
        ("none", "reward", 1, 11, 7)
    }
