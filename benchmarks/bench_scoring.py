"""Scoring and selecting: completions that share a prompt, against padded batches of whole rows."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_models import as_backbone, small_llama
from bench_sampling import generate, settings, specs
from demoalign.config import AdapterConfig
from demoalign.improve.best_of_n import best_of_n
from demoalign.policies.policy import Policy
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer, linear_head
from demoalign.rollouts import PromptSpec, TransformersEngine

BATCH = 64


def adapter_reward(policy: Policy) -> RewardModel:
    """A LoRA reward model on the policy's backbone, with random weights."""
    backbone = policy.backbone
    backbone.add_adapter("reward", AdapterConfig(r=32, alpha=32), 0)
    for name, weight in backbone.causal.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    head = linear_head(backbone.hidden_size, 0, backbone.device)
    return RewardModel("reward", SharedScorer(backbone, "reward", head), backbone.tokenizer)


def classifier_of(reward: RewardModel, policy: Policy) -> Any:
    """The same reward model as users would load it: PEFT on a sequence classifier."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    with tempfile.TemporaryDirectory() as folder:
        reward.save(Path(folder))
        config = policy.backbone.causal.config.__class__(
            **{**policy.backbone.causal.config.to_dict(), "num_labels": 1}
        )
        base = AutoModelForSequenceClassification.from_config(config)
        state = {
            key.replace(".base_layer", ""): value
            for key, value in policy.backbone.trunk.state_dict().items()
            if ".lora_" not in key
        }
        base.base_model.load_state_dict(state)
        model = PeftModel.from_pretrained(base, folder)
    model.config.pad_token_id = base.config.pad_token_id = 2
    return model.eval()


@torch.inference_mode()
def padded_scores(
    classifier: Any, tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]
) -> list[float]:
    """Rewards by padded batches of prompt and completion, in the order given."""
    texts = [f"{p} {c} </s>" for p, c in zip(prompts, completions, strict=True)]
    found: list[float] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(texts[start : start + BATCH], return_tensors="pt", padding=True)
        kept = {key: batch[key] for key in ("input_ids", "attention_mask")}
        found += classifier(**kept).logits[:, 0].tolist()
    return found


def scoring(repeats: int, n: int = 64, prompts: int = 4) -> dict[str, float]:
    """Seconds to score the same rollouts on both sides; and how far their scores are apart."""
    policy = Policy("initial", as_backbone(small_llama()))
    reward = adapter_reward(policy)
    classifier = classifier_of(reward, policy)
    asked = specs(policy, prompts)
    sampled = list(TransformersEngine(settings()).sample(policy, asked, n, 0))
    questions = [str(spec.prompt) for spec in asked for _ in range(n)]
    answers = [rollout.completion for rollout in sampled]
    times, apart = [], 0.0
    for _ in range(repeats + 1):
        clock = time.perf_counter()
        ours = reward.score(questions, answers)
        middle = time.perf_counter()
        theirs = padded_scores(classifier, policy.backbone.tokenizer, questions, answers)
        times.append((middle - clock, time.perf_counter() - middle))
        apart = max(apart, float(np.abs(ours - np.array(theirs)).max()))
    times = times[1:]
    return {
        "ours_seconds": statistics.median(pair[0] for pair in times),
        "theirs_seconds": statistics.median(pair[1] for pair in times),
        "ratio": statistics.median(pair[1] / pair[0] for pair in times),
        "largest_difference": apart,
    }


def head_overhead(repeats: int, n: int = 64, prompts: int = 8) -> dict[str, float]:
    """Generation with a head's scores over generation alone."""
    policy = Policy("initial", as_backbone(small_llama()))
    head = linear_head(policy.backbone.hidden_size, 0, policy.backbone.device)
    scorer = SharedScorer(policy.backbone, None, head)
    asked, engine = specs(policy, prompts), TransformersEngine(settings())
    times, kept = [], 0.0
    for seed in range(repeats + 1):
        clock = time.perf_counter()
        plain = list(engine.sample(policy, asked, n, seed))
        middle = time.perf_counter()
        sampled = list(engine.sample_hidden(policy, asked, n, seed))
        states = [each.hidden for each in sampled if each.hidden is not None]
        with torch.inference_mode():
            scorer.judge(torch.from_numpy(np.stack(states)))
        times.append((middle - clock, time.perf_counter() - middle))
        kept = len(states) / len(plain)
    times = times[1:]
    return {
        "ratio": statistics.median(pair[1] / pair[0] for pair in times),
        "share_scored": kept,
    }


def end_to_end(repeats: int, n: int = 64, prompts: int = 4) -> dict[str, float]:
    """Sample, score and select on both sides: prompts a second."""
    policy = Policy("initial", as_backbone(small_llama()))
    reward = adapter_reward(policy)
    classifier = classifier_of(reward, policy)
    asked = specs(policy, prompts)
    pairs = []
    for seed in range(repeats + 1):
        clock = time.perf_counter()
        questions = [str(spec.prompt) for spec in asked]
        best_of_n(policy, reward, questions, n, seed=seed, rollouts=settings())
        middle = time.perf_counter()
        select(policy, classifier, asked[0], n, seed)
        end = time.perf_counter()
        pairs.append((prompts / (middle - clock), 1 / (end - middle)))
    pairs = pairs[1:]
    return {
        "ours": statistics.median(pair[0] for pair in pairs),
        "theirs": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def select(policy: Policy, classifier: Any, spec: PromptSpec, n: int, seed: int) -> str:
    """Best-of-n by `generate` and padded scoring."""
    tokenizer = policy.backbone.tokenizer
    with policy.active():
        new = generate(policy, spec, n, seed)
    answers = tokenizer.batch_decode(new, skip_special_tokens=True)
    scores = padded_scores(classifier, tokenizer, [str(spec.prompt)] * n, answers)
    return str(answers[scores.index(max(scores))])
