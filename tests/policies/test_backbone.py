"""One copy of the base's weights; adapters that leave it and one another alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from demoalign.config import AdapterConfig, ModelConfig, RewardConfig, SftConfig
from demoalign.demonstrations.render import render
from demoalign.errors import ModelError
from demoalign.policies import Backbone, Policy
from demoalign.policies.sft import train_sft
from demoalign.rewards.comparisons import Answer, Comparison
from demoalign.rewards.train import train_reward_model
from tests.conftest import ModelFolder
from tests.models import load_backbone, logits_of

STORED = "adapter_model.safetensors"
ROWS = [[1, 40, 50, 60, 2], [1, 70]]
SMALL = AdapterConfig(r=4)
SFT = SftConfig(epochs=1, batch_size=2, accumulation=1, learning_rate=1e-2, checkpoints=0)
REWARD = RewardConfig(epochs=1, batch_size=2, accumulation=1, learning_rate=1e-2)


def outputs(backbone: Backbone, adapter: str | None) -> list[torch.Tensor]:
    with backbone.using(adapter):
        return logits_of(backbone.causal, ROWS)


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def train_reward(backbone: Backbone, name: str, base: Path) -> None:
    pairs = [
        Comparison(str(i), "Ask", Answer(f" good {name}"), Answer(f" bad {i}")) for i in range(4)
    ]
    config = ModelConfig(base=str(base), adapter=SMALL)
    train_reward_model(REWARD, config, backbone, None, pairs, 0, name)


def train_policy(backbone: Backbone, name: str | None, folder: Path) -> None:
    rows = [render(backbone.tokenizer, "Ask", f" answer {i}") for i in range(4)]
    train_sft(backbone, name, rows, SFT, 0, folder)


def randomise(backbone: Backbone, name: str, seed: int) -> None:
    """Give a fresh adapter some effect."""
    backbone.add_adapter(name, SMALL, seed)
    with torch.no_grad():
        for key, weight in backbone.causal.named_parameters():
            if f"lora_B.{name}." in key:
                weight.normal_(std=0.1)


def test_training_leaves_the_base_and_other_adapters_alone(
    model_folder: ModelFolder, architecture: str, tmp_path: Path
) -> None:
    base = model_folder(architecture, "bos")
    backbone = load_backbone(base)
    initial = logits_of(backbone.causal, ROWS)
    backbone.add_adapter("sft", SMALL, seed=0)
    assert equal(outputs(backbone, "sft"), initial)
    train_policy(backbone, "sft", tmp_path)
    tuned = outputs(backbone, "sft")
    assert not torch.allclose(tuned[0], initial[0], atol=1e-3)
    train_reward(backbone, "first", base)
    first = outputs(backbone, "reward_first")
    train_reward(backbone, "second", base)
    assert not equal(first, outputs(backbone, "reward_second"))
    assert equal(outputs(backbone, "reward_first"), first)
    assert equal(outputs(backbone, "sft"), tuned)
    assert equal(outputs(backbone, None), initial)
    assert equal(logits_of(backbone.causal, ROWS), initial)


def test_one_copy_of_the_base_serves_them_all(model_folder: ModelFolder) -> None:
    base = model_folder("llama", "bos")
    backbone = load_backbone(base)
    alone = {p.data_ptr(): p.numel() for p in backbone.causal.parameters()}
    for number, name in enumerate(("sft", "reward_a", "reward_b")):
        backbone.add_adapter(name, SMALL, number)
    held = {p.data_ptr(): p.numel() for p in backbone.peft.parameters()}
    added = sum(p.numel() for n, p in backbone.peft.named_parameters() if "lora_" in n)
    assert set(alone) <= set(held)
    assert sum(held.values()) == sum(alone.values()) + added
    assert backbone.adapters == ("sft", "reward_a", "reward_b")


def test_the_stored_adapter_loads_with_transformers(
    model_folder: ModelFolder, architecture: str, tmp_path: Path
) -> None:
    backbone = load_backbone(model_folder(architecture, "bos"))
    randomise(backbone, "other", 1)
    randomise(backbone, "sft", 0)
    backbone.save_adapter("sft", tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    again = load_backbone(model_folder(architecture, "bos"))
    assert again.load_adapter("mine", tmp_path) == {}
    wanted = outputs(backbone, "sft")
    assert not torch.allclose(wanted[0], outputs(backbone, None)[0], atol=1e-2)
    for found in (logits_of(plain, ROWS), outputs(again, "mine")):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_full_fine_tuning_saves_a_whole_model(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    initial = logits_of(backbone.causal, ROWS)
    train_policy(backbone, None, tmp_path)
    backbone.causal.save_pretrained(tmp_path / "sft")
    backbone.tokenizer.save_pretrained(tmp_path / "sft")
    assert (tmp_path / "sft" / "model.safetensors").is_file()
    assert not (tmp_path / "sft" / "adapter_config.json").exists()
    wanted = logits_of(backbone.causal, ROWS)
    assert not torch.allclose(wanted[0], initial[0], atol=1e-3)
    found = logits_of(Policy.load(tmp_path / "sft").backbone.causal, ROWS)
    assert equal(found, wanted)


def test_blocks_may_be_nested(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    randomise(backbone, "one", 0)
    randomise(backbone, "two", 1)
    alone = {name: outputs(backbone, name) for name in ("one", "two", None)}
    for outer in ("one", "two", None):
        with backbone.using(outer):
            for inner in ("one", "two", None):
                assert equal(outputs(backbone, inner), alone[inner])
            assert equal(logits_of(backbone.causal, ROWS), alone[outer])
    with pytest.raises(RuntimeError), backbone.using("one"):
        raise RuntimeError
    assert equal(logits_of(backbone.causal, ROWS), alone[None])


def test_adapters_can_be_replaced_and_removed(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    initial = outputs(backbone, None)
    randomise(backbone, "one", 0)
    changed = outputs(backbone, "one")
    backbone.add_adapter("one", SMALL, 0)
    assert equal(outputs(backbone, "one"), initial)
    assert not equal(changed, initial)
    backbone.remove_adapter("one")
    backbone.remove_adapter("one")
    assert backbone.adapters == ()
    assert equal(outputs(backbone, None), initial)
    with pytest.raises(ModelError, match=r"adapter 'one': not on this backbone, has \(\)"):
        outputs(backbone, "one")
    randomise(backbone, "two", 0)
    assert equal(outputs(backbone, "two"), changed)


def test_target_modules_may_be_a_pattern(model_folder: ModelFolder, tmp_path: Path) -> None:
    base = model_folder("llama", "bos")
    backbone = load_backbone(base)
    backbone.add_adapter("one", AdapterConfig(r=2, target_modules=r".*q_proj"), 0)
    names = [n for n, _ in backbone.causal.named_parameters() if "lora_A.one" in n]
    assert len(names) == 2
    backbone.save_adapter("one", tmp_path)
    again = load_backbone(base)
    again.load_adapter("one", tmp_path)
    assert [n for n, _ in again.causal.named_parameters() if "lora_A.one" in n] == names


def test_errors_name_what_does_not_fit(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    with pytest.raises(ModelError, match=r"model\.adapter\.target_modules: \['nope'\] does not"):
        backbone.add_adapter("one", AdapterConfig(target_modules=["nope"]), 0)
    with pytest.raises(ModelError, match=rf"adapter {re.escape(str(tmp_path))}: cannot be loaded"):
        backbone.load_adapter("one", tmp_path)
    other = load_backbone(model_folder("gpt2", "bos"))
    randomise(other, "one", 0)
    other.save_adapter("one", tmp_path)
    with pytest.raises(ModelError, match=r"adapter .*: does not fit .*: Target modules"):
        backbone.load_adapter("one", tmp_path)
    randomise(backbone, "two", 0)
    wide = load_backbone(model_folder("llama", "bos"))
    wide.add_adapter("one", SMALL, 0)
    wide.save_adapter("one", tmp_path)
    tensors = load_file(tmp_path / STORED)
    save_file({key: value.repeat(2, 2) for key, value in tensors.items()}, tmp_path / STORED)
    with pytest.raises(ModelError, match=r"(?s)adapter .*: does not fit .*: .*size mismatch"):
        backbone.load_adapter("one", tmp_path)
    assert backbone.adapters == ("two",)
