"""The rollout engine against transformers' `generate(num_return_sequences=N)`, in one process.

    python benchmarks/rollouts.py --json

Both sample the same number of completions of the embedded world's prompts at temperature 1 from
the same weights; the figure is the ratio of tokens a second, the median of paired rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch

from demoalign.config import ModelConfig, RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.lab import BASE, prompts
from demoalign.policies import Backbone, Policy
from demoalign.rollouts import PromptSpec, TransformersEngine

MAX_NEW_TOKENS = 96


def ours(policy: Policy, texts: list[str], n: int, seed: int) -> float:
    """Tokens a second of the engine."""
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=MAX_NEW_TOKENS, batch_size=256))
    specs = [PromptSpec(str(number), text) for number, text in enumerate(texts)]
    clock = time.perf_counter()
    tokens = sum(len(rollout.token_ids) for rollout in engine.sample(policy, specs, n, seed))
    return tokens / (time.perf_counter() - clock)


def theirs(policy: Policy, texts: list[str], n: int, seed: int) -> float:
    """Tokens a second of `generate`, prompt by prompt as best-of-n users call it."""
    torch.manual_seed(seed)
    model: Any = policy.backbone.causal
    end, pad = policy.backbone.tokenizer.eos_token_id, policy.backbone.tokenizer.pad_token_id
    tokens = 0
    clock = time.perf_counter()
    for text in texts:
        ids = torch.tensor([render_prompt(policy.backbone.tokenizer, text)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=n,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=pad,
        )
        new = output[:, ids.shape[1] :]
        ends = (new == end).int()
        before_end = ends.cumsum(-1) - ends == 0
        tokens += int(before_end.sum())
    return tokens / (time.perf_counter() - clock)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    policy = Policy("initial", Backbone.load(ModelConfig(base=str(BASE))))
    texts = prompts(8, 0)
    ratios = {}
    for n in (16, 64):
        ours(policy, texts[:1], n, 0)
        theirs(policy, texts[:1], n, 0)
        pairs = [
            (ours(policy, texts, n, round_), theirs(policy, texts, n, round_))
            for round_ in range(arguments.rounds)
        ]
        ratios[f"tokens_per_second_over_generate_n{n}"] = statistics.median(a / b for a, b in pairs)
    if arguments.json:
        sys.stdout.write(json.dumps(ratios) + "\n")
    else:
        for name, value in ratios.items():
            sys.stdout.write(f"{name}: {value:.2f}\n")


if __name__ == "__main__":
    main()
