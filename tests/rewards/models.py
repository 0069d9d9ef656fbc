"""Reward models for the tests: random ones that react to text, and easy comparisons."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from demoalign.config import AdapterConfig
from demoalign.policies import Backbone
from demoalign.rewards.comparisons import Answer, Comparison
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer, WholeScorer, linear_head
from tests.models import load_backbone

KINDS = ("adapter", "head", "full")
PROMPTS = ["Why?", "The router is off. What now?", "Is it?", "Lamp", "Who pays for this, then?"]
ANSWERS = [" It has no paper.", " Yes", " Your warranty covers the repair of it.", "", " Hold it"]


def fresh_reward(
    base: Path, kind: str = "adapter", seed: int = 0, variance: bool = False, name: str = "reward"
) -> RewardModel:
    """An untrained reward model whose adapter and heads all have an effect."""
    backbone = load_backbone(base)
    torch.manual_seed(seed)
    head = linear_head(backbone.hidden_size, seed, backbone.device)
    with torch.no_grad():
        head.weight.normal_(std=0.3)
    second = linear_head(backbone.hidden_size, seed + 1, backbone.device) if variance else None
    if second is not None:
        with torch.no_grad():
            second.weight.normal_(std=0.3)
    if kind == "full":
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, dtype=torch.float32
        )
        model = model.to(backbone.device).eval()
        model.config.pad_token_id = backbone.tokenizer.pad_token_id
        with torch.no_grad():
            model.score.weight.copy_(head.weight)
        return RewardModel(name, WholeScorer(model, second), backbone.tokenizer)
    adapter = f"reward_{name}" if kind == "adapter" else None
    if adapter is not None:
        effective_adapter(backbone, adapter, seed)
    return RewardModel(name, SharedScorer(backbone, adapter, head, second), backbone.tokenizer)


def effective_adapter(backbone: Backbone, name: str, seed: int) -> None:
    """A LoRA adapter that changes the hidden states."""
    backbone.add_adapter(name, AdapterConfig(r=4), seed)
    with torch.no_grad():
        for key, weight in backbone.causal.named_parameters():
            if f"lora_B.{name}." in key:
                weight.normal_(std=0.1)


def easy_pairs(count: int, start: int = 0) -> list[Comparison]:
    """Positives say please at their end, negatives now."""
    words = ["lamp", "key", "router", "paper", "printer", "warranty", "repair"]
    return [
        Comparison(
            f"p{i}",
            f"Ask {words[i % 7]} {i}",
            Answer(f" Turn the {words[i % 5]} on, please."),
            Answer(f" Turn the {words[(i + 2) % 5]} on now."),
        )
        for i in range(start, start + count)
    ]
