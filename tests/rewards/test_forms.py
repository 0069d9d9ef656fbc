"""Which form a training takes: packed where it is exact and cheaper, and the reason in words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    MistralConfig,
)

from demoalign.rewards.forms import Form, choose_form, padded_tokens
from demoalign.rewards.packing import PairScorer, RenderedPair
from demoalign.rewards.scorers import WholeScorer
from tests.conftest import ModelFolder
from tests.models import load_backbone
from tests.rewards.models import easy_pairs, fresh_reward
from tests.rewards.test_train import train

PROMPT = list(range(10, 30))
PAIRS = [
    RenderedPair([*PROMPT, 50, 51, 52, 53, 54], [*PROMPT, 60, 61]),
    RenderedPair([*PROMPT, 50, 51], [*PROMPT, 60, 61, 62]),
    RenderedPair([*PROMPT, 50], [*PROMPT, 50, 61, 62]),
]
SHAPE = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "num_labels": 1,
    "initializer_range": 0.2,
}


def scorer_of(config: Any) -> PairScorer:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    return PairScorer(WholeScorer(model.train()))


def chosen(model: PairScorer, loss: str = "bradley_terry") -> Form:
    return choose_form(model, PAIRS, 2, loss, 0)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_all_our_architectures_pack(
    model_folder: ModelFolder, architecture: str, kind: str
) -> None:
    model = PairScorer(fresh_reward(model_folder(architecture, "bos"), kind).scorer)
    form = chosen(model)
    assert form.is_packed
    assert form.reason == "prompts computed once a pair: 78 tokens an epoch, not 146"


def test_tokens_by_hand() -> None:
    """Batches of two: packed rows of 27 and 25, then of 24; stacked of 25 and 23, then of 23."""
    assert padded_tokens(PAIRS, 2, packed=True) == 2 * 27 + 24
    assert padded_tokens(PAIRS, 2, packed=False) == 4 * 25 + 2 * 23


def test_windows_shorter_than_a_packed_row() -> None:
    short = chosen(scorer_of(MistralConfig(**SHAPE, sliding_window=26)))
    assert short.reason == (
        "prompts computed twice a pair: layers see 26 tokens back, the longest packed pair has 27"
    )
    assert chosen(scorer_of(MistralConfig(**SHAPE, sliding_window=27))).is_packed
    assert chosen(scorer_of(MistralConfig(**SHAPE, sliding_window=None))).is_packed


def test_soft_capping_packs_where_it_is_computed_in_full() -> None:
    config = Gemma2Config(**SHAPE, attn_logit_softcapping=1.0)
    config._attn_implementation = "eager"
    assert chosen(scorer_of(config)).is_packed


def test_flash_attention_takes_no_mask() -> None:
    model = scorer_of(MistralConfig(**SHAPE))
    model.trunk.config._attn_implementation = "flash_attention_2"
    form = chosen(model)
    assert form.reason.endswith(": flash_attention_2 attention takes no mask of its own")


def test_positions_made_from_the_mask_cannot_be_given() -> None:
    config = BloomConfig(vocab_size=80, hidden_size=32, n_layer=2, n_head=4, num_labels=1)
    form = chosen(scorer_of(config))
    assert not form.is_packed
    assert "BloomModel" in form.reason


@pytest.mark.parametrize("ignored", ["position_ids", "attention_mask"])
def test_an_architecture_that_ignores_what_packing_needs(ignored: str) -> None:
    class Deaf(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config, self.dtype = inner, inner.config, inner.dtype

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

        def forward(self, **given: Any) -> Any:
            whole = given["attention_mask"].ndim == 2
            return self.inner(**{k: v for k, v in given.items() if whole or k != ignored})

    model = scorer_of(MistralConfig(**SHAPE))
    assert chosen(model).is_packed
    assert isinstance(model.scorer, WholeScorer)
    model.scorer.model.model = Deaf(model.trunk)
    form = chosen(model)
    assert not form.is_packed
    assert "Deaf gives other hidden states (" in form.reason


@pytest.mark.parametrize(
    ("loss", "packs"), [("bce", True), ("bradley_terry", False), ("bradley_terry_variance", False)]
)
@pytest.mark.parametrize("which", ["module", "rate"])
def test_dropout_strikes_both_sides_independently(loss: str, packs: bool, which: str) -> None:
    """The discriminator's loss is a sum over completions, whose expectation each side makes."""
    config: Any = MistralConfig(**SHAPE, attention_dropout=0.1)
    if which == "module":
        off = {"attn_pdrop": 0.0, "embd_pdrop": 0.0}
        config = GPT2Config(vocab_size=80, n_embd=32, n_layer=2, n_head=4, num_labels=1, **off)
    model = scorer_of(config)
    form = chosen(model, loss)
    assert form.is_packed == packs
    assert packs or f"dropout must strike the two sides of {loss}" in form.reason
    assert model.training


def test_short_prompts_with_long_answers_gain_nothing() -> None:
    rows = [RenderedPair([1, *range(200)], [1, 2, *range(200)]) for _ in range(4)]
    config = MistralConfig(**{**SHAPE, "intermediate_size": 8})
    form = choose_form(scorer_of(config), rows, 2, "bce", 0)
    assert not form.is_packed
    assert form.reason.startswith("prompts computed twice a pair: once would cost 1.")
    longer = [
        dataclasses.replace(row, positive=PROMPT * 20 + [1], negative=PROMPT * 20 + [2])
        for row in rows
    ]
    assert choose_form(scorer_of(config), longer, 2, "bce", 0).is_packed


def test_numbers_that_are_not_finite_do_not_pack() -> None:
    model = scorer_of(MistralConfig(**SHAPE))
    with torch.no_grad():
        model.trunk.norm.weight[0] = torch.nan
    assert "(nan apart)" in chosen(model).reason


def test_half_precision_packs() -> None:
    model = scorer_of(MistralConfig(**SHAPE)).bfloat16()
    assert chosen(model).is_packed


def test_the_training_says_which_form_it_takes(
    model_folder: ModelFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    train(load_backbone(model_folder("llama", "bos")), easy_pairs(8))
    assert "reward model mine: prompts computed once a pair: " in capsys.readouterr().err
