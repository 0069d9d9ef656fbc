"""What vLLM is asked and what it answers, as plain values: nothing here imports it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import decode_completion, render_prompt
from demoalign.errors import ModelError, RolloutError
from demoalign.policies.backbone import Backbone, stable_base
from demoalign.policies.policy import Policy
from demoalign.records import FinishReason, Rollout
from demoalign.rollouts.engine import GREEDY, PromptSpec, rollout_id, sample_indices
from demoalign.rollouts.random_streams import stream_key

MOST_AT_ONCE = 1024
"""Rollouts that vLLM works on at the same time at most; its own default for large devices."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM can make room for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to be sampled."""

    spec: PromptSpec
    index: int
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """What vLLM was started with.

    Attributes:
        base: folder or id of the model.
        weights: name, size and time of each weights file of a folder, so that new weights in
            the same place are seen.
        dtype: of the weights.
        max_length: most tokens of prompt and completion, None for the model's own.
        trust_remote_code: whether code from the folder may run.
        on_cpu: whether the backbone is on a CPU, and vLLM then too.
        rank: adapter rank that there is room for, 0 for no adapters.
    """

    base: str
    weights: tuple[tuple[str, int, int], ...]
    dtype: str
    max_length: int | None
    trust_remote_code: bool
    on_cpu: bool
    rank: int

    def covers(self, wanted: Served) -> bool:
        """Whether it serves what is wanted, perhaps with room for larger adapters."""
        return replace(self, rank=0) == replace(wanted, rank=0) and self.rank >= wanted.rank


def to_rows(
    config: RolloutsConfig, backbone: Backbone, prompts: Sequence[PromptSpec], n: int, greedy: bool
) -> list[Row]:
    """Everything that is to be sampled, prompt by prompt.

    Raises:
        ModelError: prompt and max_new_tokens do not fit the context.
    """
    limits = [config.vllm.max_length, backbone.context]
    context = min((limit for limit in limits if limit is not None), default=None)
    rows: list[Row] = []
    for spec in prompts:
        ids = tuple(render_prompt(backbone.tokenizer, spec.prompt))
        if context is not None and len(ids) + config.max_new_tokens > context:
            raise ModelError(
                f"rollouts.max_new_tokens: prompt and completion must fit the context of "
                f"{context} tokens, found {len(ids)} + {config.max_new_tokens} for prompt "
                f"{spec.id}. Lower max_new_tokens or demonstrations.max_prompt_tokens, or raise "
                "rollouts.vllm.max_length if that is the limit."
            )
        rows += [Row(spec, index, ids) for index in sample_indices(spec, n, greedy)]
    return rows


def to_serve(backbone: Backbone, max_length: int | None) -> Served:
    """What vLLM has to be started with for a backbone and the adapters it has or will have.

    Raises:
        RolloutError: an adapter's rank or dtype is none that vLLM serves.
    """
    path = Path(backbone.base).expanduser()
    stats = [(each.name, each.stat()) for each in sorted(path.glob("*.safetensors"))]
    ranks = [backbone.peft.peft_config[name].r for name in backbone.adapters]
    if backbone.config.adapter.kind == "lora":
        ranks.append(backbone.config.adapter.r)
    dtype = str(backbone.causal.dtype).removeprefix("torch.")
    on_cpu = backbone.device.type == "cpu"
    if ranks and dtype == "float32" and not on_cpu:
        raise RolloutError(
            "model.dtype: vLLM serves adapters in bfloat16 or float16 on a GPU, found float32. "
            "Set model.dtype: bfloat16, or use engine: transformers."
        )
    return Served(
        base=stable_base(backbone.base),
        weights=tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats),
        dtype=dtype,
        max_length=max_length,
        trust_remote_code=backbone.config.trust_remote_code,
        on_cpu=on_cpu,
        rank=lora_rank(max(ranks)) if ranks else 0,
    )


def lora_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that has room for an adapter's.

    Raises:
        RolloutError: there is none.
    """
    for room in RANKS:
        if rank <= room:
            return room
    raise RolloutError(
        f"model.adapter.r: vLLM serves adapters of rank {RANKS[-1]} at most, found {rank}. "
        "Lower it, or use engine: transformers."
    )


def engine_settings(config: RolloutsConfig, served: Served) -> dict[str, Any]:
    """The arguments of vLLM's ``LLM``."""
    adapters = {"enable_lora": True, "max_lora_rank": served.rank} if served.rank else {}
    return {
        "model": served.base,
        "load_format": "safetensors",  # never a pickle
        "generation_config": "vllm",  # none of the model folder's sampling settings
        "dtype": served.dtype,
        "trust_remote_code": served.trust_remote_code,
        "max_model_len": served.max_length,
        "gpu_memory_utilization": config.vllm.memory_fraction,
        "max_num_seqs": min(config.batch_size, MOST_AT_ONCE),
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "enforce_eager": served.on_cpu,  # compiling takes longer there than it gains
        **adapters,
    }


def sampling_settings(
    config: RolloutsConfig, row: Row, stop_ids: frozenset[int], seed: int
) -> dict[str, Any]:
    """The arguments of vLLM's ``SamplingParams`` for one row.

    Args:
        config: temperature, truncation, lengths and stop strings.
        row: what is sampled.
        stop_ids: tokens that end an answer; no others do.
        seed: the run's seed.
    """
    greedy = row.index == GREEDY
    return {
        "n": 1,
        "seed": None if greedy else request_seed(seed, row.spec.id, row.index),
        "temperature": 0.0 if greedy else config.temperature,
        "top_p": 1.0 if greedy else config.top_p,
        "top_k": 0 if greedy or config.top_k is None else config.top_k,
        "min_p": 0.0 if greedy or config.min_p is None else config.min_p,
        "min_tokens": config.min_new_tokens,
        "max_tokens": config.max_new_tokens,
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,
        "stop": list(config.stop),
        "detokenize": bool(config.stop),
        "logprobs": 0,  # of the sampled token alone
    }


def request_seed(seed: int, prompt_id: str, index: int) -> int:
    """The seed of one request: the key of its stream, in the 63 bits that vLLM stores."""
    return stream_key(seed, prompt_id, index) >> 1


def to_rollout(policy: Policy, row: Row, output: Any, seed: int) -> Rollout:
    """The rollout that vLLM's answer to one row stands for.

    Raises:
        RolloutError: the answer is not whole, or has a log-probability that is no number.
    """
    ids = list(output.token_ids)
    name = rollout_id(row.spec, policy.name, row.index)
    reason: FinishReason
    if output.finish_reason == "stop":
        reason = "stop"
    elif output.finish_reason == "length":
        reason = "length"
    else:
        raise RolloutError(f"rollout {name}: vLLM broke it off ({output.finish_reason})")
    logprobs = [
        float(step[token].logprob) for step, token in zip(output.logprobs, ids, strict=True)
    ]
    if not all(math.isfinite(logprob) for logprob in logprobs):
        raise RolloutError(f"rollout {name}: vLLM gives a log-probability that is no number")
    stop = output.stop_reason if isinstance(output.stop_reason, str) else None
    return Rollout(
        id=name,
        prompt_id=row.spec.id,
        index=row.index,
        completion=_text(policy.backbone.tokenizer, row, ids, stop),
        token_ids=ids,
        logprob=math.fsum(logprobs),
        finish_reason=reason,
        policy=policy.name,
        seed=seed,
        token_logprobs=logprobs,
    )


def _text(tokenizer: Any, row: Row, ids: list[int], stop: str | None) -> str:
    """The completion's text, without the stop string that ended it."""
    text = decode_completion(tokenizer, row.spec.prompt, ids)
    if stop is None:
        return text
    return cut_at_stop(text, stop, decode_completion(tokenizer, row.spec.prompt, ids[:-1]))


def cut_at_stop(text: str, stop: str, before: str) -> str:
    """Text up to the stop string that its last token completed.

    Args:
        text: of all tokens.
        stop: the stop string.
        before: text without the last token, perhaps ending in half a character; a stop string
            that was complete by then was passed over, for ``min_new_tokens``.
    """
    known = len(before.rstrip("\N{REPLACEMENT CHARACTER}"))
    at = text.find(stop, max(0, known - len(stop) + 1))
    return text[:at] if at >= 0 else text
