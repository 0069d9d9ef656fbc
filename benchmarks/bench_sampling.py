"""Sampling: the engine against `generate`, the decode step against its matrix products, memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench_models import as_backbone, gpt2_small, prompt_ids, small_llama, text_of
from demoalign.config import RolloutsConfig
from demoalign.policies.branches import Branches
from demoalign.policies.policy import Policy
from demoalign.policies.shared_prefix import Next, SharedDecoder
from demoalign.rollouts import PromptSpec, TransformersEngine
from demoalign.rollouts.sampler import Sampler, Settings
from demoalign.rollouts.sampling import Truncation
from demoalign.rollouts.waiting import Waiting, WaitingPrompts

PROMPT, MOST = 200, 64
TUNED_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
"""Keeps freed memory instead of giving it back to the system: a setting that helps `generate`."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is sampled: ``prompts`` of 200 tokens, ``n`` completions each."""

    model: str
    n: int
    prompts: int

    def policy(self) -> Policy:
        """The job's model, with random weights."""
        model = small_llama() if self.model == "llama" else gpt2_small()
        return Policy("initial", as_backbone(model))


def specs(policy: Policy, count: int) -> list[PromptSpec]:
    """Random prompts of `PROMPT` tokens."""
    size = policy.backbone.causal.config.vocab_size
    return [PromptSpec(f"p{i}", text_of(prompt_ids(PROMPT, i, size))) for i in range(count)]


def settings(**changes: Any) -> RolloutsConfig:
    """The benchmark's rollout settings."""
    return RolloutsConfig(**{"max_new_tokens": MOST, "batch_size": 256, **changes})


def ours(policy: Policy, prompts: list[PromptSpec], n: int, seed: int) -> float:
    """Tokens a second of the engine."""
    clock = time.perf_counter()
    engine = TransformersEngine(settings())
    tokens = sum(len(each.token_ids) for each in engine.sample(policy, prompts, n, seed))
    return tokens / (time.perf_counter() - clock)


def theirs(policy: Policy, prompts: list[PromptSpec], n: int, seed: int) -> float:
    """Tokens a second of `generate`, prompt by prompt."""
    clock = time.perf_counter()
    new = [generate(policy, spec, n, seed) for spec in prompts]
    return sum(count_tokens(each) for each in new) / (time.perf_counter() - clock)


def generate(policy: Policy, spec: PromptSpec, n: int, seed: int) -> torch.Tensor:
    """(N, T) new ids by transformers."""
    torch.manual_seed(seed)
    ids = torch.tensor([policy.backbone.tokenizer(spec.prompt)["input_ids"]])
    output = policy.backbone.causal.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=n,
        do_sample=True,
        max_new_tokens=MOST,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    new: torch.Tensor = output[:, ids.shape[1] :]
    return new


def count_tokens(new: torch.Tensor) -> int:
    """Sampled tokens, end tokens included, padding not."""
    ends = (new == 0).long()
    return int((ends.cumsum(-1) - ends == 0).sum())


def ratio(
    one: Callable[[int], float], other: Callable[[int], float], repeats: int
) -> dict[str, float]:
    """Medians of two rates measured in turns, and of their ratios round by round."""
    pairs = [(one(i), other(i)) for i in range(repeats + 1)][1:]  # the first warms up
    return {
        "ours": statistics.median(pair[0] for pair in pairs),
        "theirs": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def sampling(job: Job, repeats: int) -> dict[str, float]:
    """Tokens a second of both sides."""
    policy = job.policy()
    prompts = specs(policy, job.prompts)
    return ratio(
        lambda seed: ours(policy, prompts, job.n, seed),
        lambda seed: theirs(policy, prompts[:1], job.n, seed),
        repeats,
    )


def sampling_tuned(job: Job, repeats: int) -> dict[str, float]:
    """The same in a process whose malloc keeps what was freed."""
    import json

    command = [sys.executable, __file__, job.model, str(job.n), str(job.prompts), str(repeats)]
    output = subprocess.run(
        command, env={**os.environ, **TUNED_MALLOC}, check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return found


def cache_memory(n: int = 256) -> float:
    """Bytes of `generate`'s keys and values at its end over the most that ours ever hold."""
    policy = Job("llama", n, 1).policy()
    (spec,) = specs(policy, 1)
    ids = torch.tensor([policy.backbone.tokenizer(spec.prompt)["input_ids"]])
    output = policy.backbone.causal.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=n,
        do_sample=True,
        max_new_tokens=MOST,
        top_k=0,
        return_dict_in_generate=True,
    )
    layers = output.past_key_values.layers
    theirs: int = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    return theirs / peak_bytes(policy, spec, n, places=n, most=MOST)


def peak_bytes(policy: Policy, spec: PromptSpec, n: int, places: int, most: int) -> int:
    """The most bytes of keys and values that our sampler holds for n completions of a prompt."""
    decoder = WatchedDecoder(policy.backbone.causal)
    ids = tuple(policy.backbone.tokenizer(spec.prompt)["input_ids"])
    sampler = Sampler(
        decoder,
        WaitingPrompts([Waiting(spec, ids, frozenset({0}), list(range(n)))]),
        Settings(Truncation(), is_greedy=False, least=0, most=most, seed=0, places=places),
    )
    with decoder.active():
        while not sampler.is_done:
            sampler.advance(most)
    return decoder.most_bytes


class WatchedDecoder(SharedDecoder):
    """Remembers the most bytes of keys and values that it held."""

    most_bytes = 0

    def step(
        self, groups: Sequence[Branches], tokens: torch.Tensor, wanted: torch.Tensor | None = None
    ) -> Next:
        """As `SharedDecoder.step`."""
        found = super().step(groups, tokens, wanted)
        self.most_bytes = max(self.most_bytes, held_bytes(groups))
        return found


def held_bytes(groups: Sequence[Branches]) -> int:
    """Bytes of keys and values; a prompt that several groups continue counts once."""
    prefixes = {id(group.prefix): group.prefix or [] for group in groups}
    shared = sum(k.nbytes + v.nbytes for layers in prefixes.values() for k, v in layers)
    copies = sum(k.nbytes + v.nbytes for group in groups for k, v in group.prefix or [])
    return sum(group.nbytes for group in groups) - copies + shared


def decode_step(rows: int = 256, depth: int = 32, repeats: int = 20) -> dict[str, float]:
    """Seconds of a decode step, and of nothing but its matrix products."""
    model = small_llama()
    decoder = SharedDecoder(model)
    with decoder.active():
        read, _ = decoder.open([prompt_ids(PROMPT)])
        group = decoder.branch(read, torch.zeros(rows, dtype=torch.long))
        tokens = torch.randint(3, 4096, (rows,))
        for _ in range(depth - repeats // 2):
            decoder.step([group], tokens)
        products = matrix_products(model, rows, depth)
        pairs = []
        for _ in range(repeats):
            clock = time.perf_counter()
            decoder.step([group], tokens)
            middle = time.perf_counter()
            products()
            pairs.append((middle - clock, time.perf_counter() - middle))
    return {
        "step_seconds": statistics.median(pair[0] for pair in pairs),
        "products_seconds": statistics.median(pair[1] for pair in pairs),
        "share": statistics.median(pair[1] / pair[0] for pair in pairs),
    }


def matrix_products(model: Any, rows: int, depth: int) -> Callable[[], None]:
    """A hand-written loop over the matrix products of one step."""
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    hidden, inner = torch.randn(rows, width), torch.randn(rows, config.intermediate_size)
    query, keys = torch.randn(heads, rows, size), torch.randn(heads, PROMPT, size)
    own, suffix = torch.randn(rows * heads, 1, size), torch.randn(rows * heads, depth, size)
    weights = torch.randn(heads, rows, PROMPT), torch.randn(rows * heads, 1, depth)
    linear = torch.nn.functional.linear

    def run() -> None:
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                linear(hidden, part.weight)
            torch.bmm(query, keys.transpose(1, 2))
            torch.bmm(weights[0], keys)
            torch.bmm(own, suffix.transpose(1, 2))
            torch.bmm(weights[1], suffix)
            linear(hidden, mlp.gate_proj.weight)
            linear(hidden, mlp.up_proj.weight)
            linear(inner, mlp.down_proj.weight)
        linear(hidden, model.lm_head.weight)

    return run


if __name__ == "__main__":
    import json

    torch.set_num_threads(1)
    given = sys.argv[1:]
    found = sampling(Job(given[0], int(given[1]), int(given[2])), int(given[3]))
    sys.stdout.write(json.dumps(found) + "\n")
