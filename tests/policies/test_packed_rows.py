"""Packed rows: nothing is lost, no row sees another, and the loss is that of rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demoalign.config import AdapterConfig, SftConfig
from demoalign.demonstrations.render import render
from demoalign.errors import TrainingError
from demoalign.policies.packed_rows import check_kept_apart, pack_rows
from demoalign.policies.sft import Collator, train_sft, training_row
from tests.conftest import ModelFolder
from tests.models import load_backbone

ROOM = 64
QUESTIONS = [("Why is the lamp off?", " Turn it on again, please."), ("Is it on?", " No.")] * 6


@given(st.lists(st.integers(1, ROOM), min_size=1, max_size=60))
def test_every_row_is_packed_once_and_no_pack_is_too_long(lengths: list[int]) -> None:
    rows = [{"input_ids": [n] * size, "labels": [n] * size} for n, size in enumerate(lengths)]
    packs = pack_rows(rows, ROOM)
    assert all(len(pack["input_ids"]) <= ROOM for pack in packs)
    assert all(len({len(column) for column in pack.values()}) == 1 for pack in packs)
    found = sorted(n for pack in packs for n in pack["input_ids"])
    assert found == sorted(n for n, size in enumerate(lengths) for _ in range(size))
    for pack in packs:
        starts = [i for i, place in enumerate(pack["position_ids"]) if place == 0]
        assert len(starts) == len(set(pack["input_ids"])), "a row is not split"
    assert len(packs) <= len(rows)
    half = sum(2 * len(pack["input_ids"]) <= ROOM for pack in packs)
    assert half <= 1, "two packs that are half empty would have been one"


def rows_of(backbone: Any) -> list[Any]:
    return [render(backbone.tokenizer, asked, said) for asked, said in QUESTIONS]


def test_packed_logits_are_those_of_rows_alone(
    model_folder: ModelFolder, architecture: str
) -> None:
    backbone = load_backbone(model_folder(architecture, "bos"))
    check_kept_apart(backbone.causal, "sft")
    rows = [training_row(row, SftConfig()) for row in rows_of(backbone)]
    packs = pack_rows(rows, ROOM)
    assert len(packs) < len(rows)
    batch = Collator(backbone.tokenizer.pad_token_id)(packs)
    assert "attention_mask" not in batch
    with torch.inference_mode():
        ours = backbone.causal(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        for number, pack in enumerate(packs):
            starts = [i for i, place in enumerate(pack["position_ids"]) if place == 0]
            ends = [*starts[1:], len(pack["input_ids"])]
            for start, end in zip(starts, ends, strict=True):
                ids = torch.tensor([pack["input_ids"][start:end]])
                theirs = backbone.causal(ids, use_cache=False).logits[0]
                assert torch.allclose(ours[number, start:end], theirs, atol=1e-4)


def test_a_model_that_mixes_rows_is_refused(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    plain = backbone.causal.forward

    def without_positions(*arguments: Any, position_ids: Any = None, **named: Any) -> Any:
        return plain(*arguments, **named)

    monkeypatch.setattr(backbone.causal, "forward", without_positions)
    with pytest.raises(
        TrainingError, match=r"sft\.packing: LlamaForCausalLM must keep packed rows"
    ):
        check_kept_apart(backbone.causal, "sft")


@pytest.mark.parametrize("weighting", ["none", "occupancy"])
def test_a_step_on_packed_rows_is_a_step_on_rows(
    model_folder: ModelFolder, tmp_path: Path, weighting: str
) -> None:
    """All rows in one batch: the mean over learned tokens, and so the weights, are the same."""
    found = []
    for packing in (False, True):
        backbone = load_backbone(model_folder("llama", "bos"))
        backbone.add_adapter("sft", AdapterConfig(r=4, alpha=8), seed=0)
        config = SftConfig.model_validate(
            {
                "epochs": 3,
                "batch_size": len(QUESTIONS),
                "accumulation": 1,
                "learning_rate": 0.01,
                "max_length": 128,
                "checkpoints": 0,
                "token_weighting": weighting,
                "packing": packing,
            }
        )
        folder = tmp_path / str(packing)
        summary = train_sft(backbone, "sft", rows_of(backbone), config, 0, folder)
        assert summary.steps == 3
        found.append(
            {n: p.detach() for n, p in backbone.causal.named_parameters() if "lora_B" in n}
        )
    assert any(weight.abs().max() > 0 for weight in found[0].values())
    for name, weight in found[0].items():
        assert torch.allclose(weight, found[1][name], atol=2e-4), name
