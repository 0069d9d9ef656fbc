"""Sampling here from tiny models, and what plain forward passes say of the rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from demoalign.config import AdapterConfig, RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.policies import Backbone, Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, TransformersEngine, make_engine
from demoalign.rollouts.random_streams import stream_key, uniforms
from tests.models import load_backbone

TEXTS = [
    "Why?",
    "The router is off. What now, please?",
    "Is it?",
    "Lamp",
    "Who pays for this, then?",
]
SPECS = [PromptSpec(f"p{i}", text) for i, text in enumerate(TEXTS)]


def initial(folder: Path) -> Policy:
    return Policy("initial", load_backbone(folder))


def sample(
    policy: Policy, specs: Sequence[PromptSpec] = SPECS, n: int = 4, seed: int = 0, **settings: Any
) -> list[Rollout]:
    config = RolloutsConfig(**{"max_new_tokens": 12, **settings})
    return list(make_engine(config).sample(policy, specs, n, seed))


def greedy(policy: Policy, specs: Sequence[PromptSpec], length: int = 20) -> list[Rollout]:
    sampler = TransformersEngine(RolloutsConfig(max_new_tokens=length))
    return list(sampler.sample(policy, specs, 5, 0, greedy=True))


def log_probs(policy: Policy, ids: list[int]) -> torch.Tensor:
    """(T, V) log-probabilities of the next token, by one plain forward."""
    with torch.inference_mode(), policy.active():
        logits = policy.backbone.causal(torch.tensor([ids], device=policy.backbone.device)).logits
    return torch.log_softmax(logits[0].double().cpu(), dim=-1)


def logprobs(rollouts: Sequence[Rollout]) -> NDArray[np.float64]:
    return np.array([rollout.logprob for rollout in rollouts], dtype=np.float64)


def tokens(rollouts: Sequence[Rollout]) -> dict[str, list[int]]:
    return {rollout.id: rollout.token_ids for rollout in rollouts}


def agree(
    policy: Policy, specs: Sequence[PromptSpec], found: Sequence[Rollout], wanted: Sequence[Rollout]
) -> None:
    """Both are the same rollouts in the same order, up to rounding.

    Matrix products of another shape may differ in the last digit. So the tokens may differ where
    the random number stands on the edge between two of them, which is rare.
    """
    assert [(r.id, r.policy, r.seed) for r in found] == [(r.id, r.policy, r.seed) for r in wanted]
    prompts = {spec.id: spec.prompt for spec in specs}
    pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a.token_ids != b.token_ids]
    assert len(pairs) <= 1 + len(found) // 100
    for one, other in pairs:
        both = zip(one.token_ids, other.token_ids, strict=False)
        place = next(i for i, (a, b) in enumerate(both) if a != b)
        first, second = sorted([one.token_ids[place], other.token_ids[place]])
        prompt = render_prompt(policy.backbone.tokenizer, prompts[one.prompt_id])
        reached = log_probs(policy, prompt + one.token_ids[:place])[-1].exp().cumsum(0)
        drawn = uniforms([stream_key(one.seed, one.prompt_id, one.index)], place + 1)[0, -1]
        assert abs(float(reached[first]) - drawn) < 1e-5
        assert abs(float(reached[second - 1]) - drawn) < 1e-5
    kept = [(a, b) for a, b in zip(found, wanted, strict=True) if a.token_ids == b.token_ids]
    for one, other in kept:
        assert (one.completion, one.finish_reason) == (other.completion, other.finish_reason)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def with_adapter(backbone: Backbone, name: str = "sft", size: float = 0.3) -> Policy:
    """A policy with an adapter that changes what it says."""
    backbone.add_adapter(name, AdapterConfig(r=4), 0)
    with torch.no_grad():
        for key, weight in backbone.causal.named_parameters():
            if f"lora_B.{name}." in key:
                weight.normal_(std=size)
    return Policy(name, backbone, name)


def chi_square(counts: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """p-value, with all cells of an expected count below 5 taken together."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    return float(stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue)
