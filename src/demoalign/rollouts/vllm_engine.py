"""The rollout engine for large models on a GPU: vLLM, started from here.

vLLM reads the base model's folder itself, so it holds a second copy of the weights beside the
backbone's; ``rollouts.vllm.memory_fraction`` says how much of the device it may take (on a CPU
``VLLM_CPU_KVCACHE_SPACE`` in the environment does). It runs in a process of its own, so a script
that samples needs the usual ``if __name__ == "__main__":``.

Each sample is a request of its own, with a seed made from (seed, prompt id, sample index); prefix
caching computes the whole blocks of a prompt once (16 tokens each on most GPUs, 128 on a CPU). So
a sampling that was interrupted goes on with the same rollouts as far as vLLM is deterministic: its
logits depend a little on what else is in a batch. They are not the transformers engine's
rollouts, which are drawn by other random numbers.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import answer_end
from demoalign.errors import RolloutError
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import Policy
from demoalign.progress import meter
from demoalign.records import Rollout
from demoalign.rollouts.engine import AnyPolicy, PromptSpec, plain_policy
from demoalign.rollouts.vllm_requests import (
    Row,
    Served,
    engine_settings,
    sampling_settings,
    to_rollout,
    to_rows,
    to_serve,
)

BATCHES_A_CALL = 4
"""Rollouts handed to vLLM in one call, in batches: fewer waits for the longest of a call."""

COLDEST, HOTTEST = 0.01, 2.0
"""Temperatures that vLLM takes as they are; it raises lower ones and refuses higher ones."""

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing leaves this machine
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # results go to stdout
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # torch's threads do not survive a fork
}
"""Set before vLLM is imported, where the user did not."""


class VllmEngine:
    """Samples with vLLM; one instance of it serves a base model and all adapters on it."""

    def __init__(self, config: RolloutsConfig) -> None:
        if not COLDEST <= config.temperature <= HOTTEST:
            raise RolloutError(
                f"rollouts.temperature: vLLM samples at {COLDEST} to {HOTTEST}, found "
                f"{config.temperature}. Use engine: transformers for others."
            )
        if importlib.util.find_spec("vllm") is None:
            raise RolloutError(
                "rollouts.engine: vllm needs the package vllm, which is not installed here. "
                'Install it with pip install "demoalign[vllm]", or use engine: transformers, or '
                "engine: openai with the address of a vLLM server."
            )
        self.config = config
        self.llm: Any = None
        self._served: Served | None = None
        self._adapters = count(1)

    def describe(self) -> dict[str, str]:
        """That it was vLLM."""
        return {"engine": "vllm"}

    def sample(
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        """Yield rollouts ``first`` to ``n - 1`` of each prompt, prompt by prompt.

        ``token_logprobs`` are the policy's own, whatever was sampled from (vLLM's
        ``raw_logprobs``). ``sampling_logprobs`` are None: vLLM gives one of the two, and they
        would be known only where they are equal.

        Args:
            policy: whose completions; an adapter is served as it is when sampling begins.
            prompts: what to answer.
            n: samples per prompt; ignored if ``greedy``.
            seed: of the streams.
            greedy: decode deterministically; the rollout's index is -1.

        Raises:
            ModelError: prompt and max_new_tokens do not fit the context.
            RolloutError: vLLM cannot serve the policy, or fails.
        """
        policy = plain_policy(policy, "vllm")
        rows = to_rows(self.config, policy.backbone, prompts, n, greedy)
        size = BATCHES_A_CALL * self.config.batch_size
        with (
            TemporaryDirectory(prefix="demoalign-adapter-") as folder,
            meter(f"rollouts of {policy.name}", len(rows)) as shown,
        ):
            number = next(self._adapters)
            if policy.adapter is not None and rows:
                policy.backbone.save_adapter(policy.adapter, Path(folder))
            for start in range(0, len(rows), size):
                chunk = rows[start : start + size]
                # not kept across a yield: the caller may sample another base in between
                self._serve(policy.backbone)
                outputs = self._generate(policy, chunk, seed, number, folder)
                shown.advance(len(chunk))
                for row, output in zip(chunk, outputs, strict=True):
                    yield to_rollout(policy, row, output, seed)

    def close(self) -> None:
        """Stop vLLM and give its memory back; the next sampling starts it again."""
        llm, self.llm, self._served = self.llm, None, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()

    def _serve(self, backbone: Backbone) -> None:
        """Have vLLM run with this base model and room for its adapters."""
        wanted = to_serve(backbone, self.config.vllm.max_length)
        if self._served is not None and self._served.covers(wanted):
            return
        self.close()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM

            self.llm = LLM(**engine_settings(self.config, wanted))
        except Exception as error:
            raise RolloutError(
                f"rollouts.engine: vLLM does not start with {wanted.base}: {error}. Use engine: "
                "transformers if it does not support the model, rollouts.vllm.memory_fraction "
                "if memory is the trouble."
            ) from error
        self._served = wanted

    def _generate(
        self, policy: Policy, rows: Sequence[Row], seed: int, number: int, folder: str
    ) -> list[Any]:
        """What vLLM answers to each row."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest

        name = f"{policy.adapter}-{number}"  # new each time: vLLM keeps what it read by a name
        adapter = LoRARequest(name, number, folder) if policy.adapter is not None else None
        tokenizer = policy.backbone.tokenizer
        ends = {
            is_chat: answer_end(tokenizer, is_chat).stop_ids
            for is_chat in {not isinstance(row.spec.prompt, str) for row in rows}
        }
        settings = [
            sampling_settings(self.config, row, ends[not isinstance(row.spec.prompt, str)], seed)
            for row in rows
        ]
        try:
            answers = self.llm.generate(
                [TokensPrompt(prompt_token_ids=list(row.prompt_ids)) for row in rows],
                [SamplingParams(**each) for each in settings],
                lora_request=adapter,
                use_tqdm=False,
            )
        except BaseException as error:
            self.close()  # requests may be left in it
            if isinstance(error, Exception):
                raise RolloutError(f"rollouts of {policy.name}: vLLM failed: {error}") from error
            raise
        return [answer.outputs[0] for answer in answers]
