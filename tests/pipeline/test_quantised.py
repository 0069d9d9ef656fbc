"""Whole runs on quantised bases, where bitsandbytes is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from demoalign.config import ModelConfig, parse_recipe
from demoalign.errors import ModelError
from demoalign.lab import BASE
from demoalign.pipeline import Pipeline
from demoalign.policies import Backbone
from tests.pipeline.runs import lines_of, metrics_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is an extra"
)

QUICK = {"epochs": 1, "batch_size": 16, "accumulation": 1, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base whose layers are wide enough for 4 bits on a CPU."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("wide")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def recipe_of(base: str, bits: str, output: Path) -> dict[str, Any]:
    return {
        "name": "quantised",
        "output": str(output),
        "model": {"base": base, "adapter": {"kind": "lora", "r": 8}, "quantisation": bits},
        "demonstrations": {"source": "lab", "limit": 80, "test_fraction": 0.1},
        "sft": QUICK,
        "rollouts": {"train_prompts": 20, "max_new_tokens": 8},
        "reward": [
            {"model": "head"},
            {**QUICK, "positives": "demonstrations", "model": "adapter"},
            {"model": "density_ratio"},
        ],
        "improve": {"method": "extrapolate"},
        "evaluation": {"golden": "lab", "n": 2, "prompts": 4},
    }


@pytest.mark.parametrize(("bits", "kind"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_a_whole_run(wide: str, bits: str, kind: str, tmp_path: Path) -> None:
    recipe = parse_recipe(recipe_of(wide, bits, tmp_path), bits)
    Pipeline(recipe).advance()
    backbone = Backbone.load(recipe.model)
    kinds = {type(module).__name__ for module in backbone.causal.modules()}
    assert kind in kinds
    run = tmp_path / "quantised"
    learned = load_file(run / "sft" / "adapter_model.safetensors")
    assert all(each.abs().max() > 0 for key, each in learned.items() if "lora_B" in key)
    assert {row["policy"] for row in metrics_of(run, "kl")} >= {"sft", "extrapolated"}
    scores = lines_of(run / "best-of-n" / "scores.jsonl")
    assert {line["reward_model"] for line in scores} >= {"init-sft", "init-demo", "density-ratio"}


def test_a_base_that_is_too_narrow_for_four_bits_on_a_cpu() -> None:
    config = ModelConfig.model_validate(
        {"base": str(BASE), "quantisation": "4bit", "device": "cpu"}
    )
    with pytest.raises(ModelError, match=r"4bit on a CPU needs layers .* found 96 in "):
        Backbone.load(config)
