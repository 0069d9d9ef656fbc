"""The plain rollout engine: transformers' forward with an expanded cache.

Sampled from counter-based streams (see `random_streams`); log-probabilities of the sampled
tokens come from the same logits, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import answer_end, decode_completion, render_prompt
from demoalign.errors import ModelError
from demoalign.policies.policy import Policy
from demoalign.progress import meter
from demoalign.records import FinishReason, Rollout
from demoalign.rollouts.engine import GREEDY, PromptSpec, rollout_id, sample_indices
from demoalign.rollouts.random_streams import stream_key, uniforms
from demoalign.rollouts.sampling import inverse_cdf, restrict_top_p

DROP_SHARE = 0.75
"""Rows that have ended are dropped once no more than this share of a batch goes on: dropping
copies the cache, carrying them along costs compute."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One completion to be sampled."""

    spec: PromptSpec
    index: int
    prompt_ids: tuple[int, ...]


class TransformersEngine:
    """Samples with transformers' own modules; rows that have ended are dropped."""

    def __init__(self, config: RolloutsConfig) -> None:
        self.config = config

    def sample(
        self, policy: Policy, prompts: Sequence[PromptSpec], n: int, seed: int, greedy: bool = False
    ) -> Iterator[Rollout]:
        """Yield ``n`` rollouts of each prompt, prompt by prompt.

        Args:
            policy: whose completions.
            prompts: what to answer.
            n: samples per prompt; ignored if ``greedy``.
            seed: of the streams.
            greedy: decode deterministically; the rollout's index is -1.

        Raises:
            ModelError: prompt and max_new_tokens do not fit the model's context.
        """
        tokenizer = policy.backbone.tokenizer
        rows = []
        for spec in prompts:
            ids = tuple(render_prompt(tokenizer, spec.prompt))
            self._check_context(policy, spec, ids)
            rows += [_Row(spec, index, ids) for index in sample_indices(spec, n, greedy)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt_ids))
        done: dict[int, Rollout] = {}
        emitted = 0
        size, workers = self.config.batch_size, _workers(policy.backbone.device)
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        with (
            meter(f"rollouts of {policy.name}", len(rows)) as shown,
            ThreadPoolExecutor(workers) as pool,
        ):
            for first in range(0, len(chunks), workers):
                group = chunks[first : first + workers]
                with policy.active():  # not across a yield: the caller may use another policy
                    batches = [
                        pool.submit(self._batch, policy, [rows[i] for i in chunk], seed)
                        for chunk in group
                    ]
                    found = [batch.result() for batch in batches]
                for chunk, rollouts in zip(group, found, strict=True):
                    done.update(zip(chunk, rollouts, strict=True))
                    shown.advance(len(chunk))
                while emitted in done:
                    yield done.pop(emitted)
                    emitted += 1

    def _check_context(self, policy: Policy, spec: PromptSpec, ids: tuple[int, ...]) -> None:
        context = policy.backbone.context
        if context is not None and len(ids) + self.config.max_new_tokens > context:
            raise ModelError(
                f"rollouts.max_new_tokens: prompt and completion must fit the model's context of "
                f"{context} tokens, found {len(ids)} + {self.config.max_new_tokens} for prompt "
                f"{spec.id}. Lower max_new_tokens or demonstrations.max_prompt_tokens."
            )

    @torch.inference_mode()
    def _batch(self, policy: Policy, rows: Sequence[_Row], seed: int) -> list[Rollout]:
        """Sample one batch to its end."""
        model, device = policy.backbone.causal, policy.backbone.device
        stops = _stop_ids(policy, rows)
        stops_BS = _padded(stops, device)
        draws = torch.from_numpy(
            uniforms(
                [stream_key(seed, row.spec.id, row.index) for row in rows],
                self.config.max_new_tokens,
            )
        ).to(device)
        logits, mask, cache = _prefill(model, rows, policy.backbone.tokenizer.pad_token_id, device)
        held = torch.arange(len(rows), device=device)
        going = torch.ones(len(rows), dtype=torch.bool, device=device)
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs = torch.zeros(len(rows), dtype=torch.float64, device=device)
        greedy = rows[0].index == GREEDY
        for step in range(self.config.max_new_tokens):
            log_probs = torch.log_softmax(logits.float(), dim=-1)
            picked = log_probs.argmax(-1) if greedy else self._draw(logits, draws[held, step])
            gained = log_probs.gather(-1, picked[:, None]).squeeze(-1).double()
            logprobs[held] += gained.where(going, 0.0)
            for row, token in zip(held[going].tolist(), picked[going].tolist(), strict=True):
                tokens[row].append(token)
            going = going & ~(picked[:, None] == stops_BS[held]).any(-1)
            if not bool(going.any()) or step + 1 == self.config.max_new_tokens:
                break
            if float(going.float().mean()) <= DROP_SHARE:
                kept = going.nonzero().squeeze(-1)
                held, picked, mask, going = held[kept], picked[kept], mask[kept], going[kept]
                cache.batch_select_indices(kept)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            logits = _step(model, picked, mask, cache)
        return [
            _rollout(policy, row, ids, float(logprob), seed, ended)
            for row, ids, logprob, ended in zip(rows, tokens, logprobs.tolist(), stops, strict=True)
        ]

    def _draw(self, logits: Tensor, draws: Tensor) -> Tensor:
        probabilities = torch.softmax(logits.float() / self.config.temperature, dim=-1)
        return inverse_cdf(restrict_top_p(probabilities, self.config.top_p), draws)


def _workers(device: torch.device) -> int:
    """Batches sampled side by side: a CPU's cores are idle while one batch is in Python."""
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


def _stop_ids(policy: Policy, rows: Sequence[_Row]) -> list[frozenset[int]]:
    """What ends each row: chat and plain prompts may stand in one batch."""
    tokenizer = policy.backbone.tokenizer
    is_chat = [not isinstance(row.spec.prompt, str) for row in rows]
    ends = {kind: answer_end(tokenizer, kind).stop_ids for kind in set(is_chat)}
    return [ends[kind] for kind in is_chat]


def _padded(stops: Sequence[frozenset[int]], device: torch.device) -> Tensor:
    """(B, S) end ids of each row, -1 where it has fewer than S."""
    longest = max(len(ids) for ids in stops)
    return torch.tensor(
        [[*sorted(ids), *[-1] * (longest - len(ids))] for ids in stops], device=device
    )


def _prefill(
    model: Any, rows: Sequence[_Row], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Any]:
    """Run each distinct prompt once, left-padded, and repeat its cache for its rows."""
    from demoalign.rollouts.cache import growing_cache

    distinct = list(dict.fromkeys(row.prompt_ids for row in rows))
    longest = max(len(ids) for ids in distinct)
    padded = [[pad] * (longest - len(ids)) + list(ids) for ids in distinct]
    lengths = torch.tensor([len(ids) for ids in distinct], device=device)
    mask = (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).long()
    cache = growing_cache(model.config)
    output = model(
        input_ids=torch.tensor(padded, device=device),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    where = {ids: number for number, ids in enumerate(distinct)}
    picks = torch.tensor([where[row.prompt_ids] for row in rows], device=device)
    cache.batch_select_indices(picks)
    return output.logits[:, -1][picks], mask[picks], cache


def _step(model: Any, picked: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """One more token for each row: (B, V) logits."""
    output = model(
        input_ids=picked[:, None],
        attention_mask=mask,
        position_ids=(mask.sum(-1, keepdim=True) - 1),
        past_key_values=cache,
        use_cache=True,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _rollout(
    policy: Policy, row: _Row, ids: list[int], logprob: float, seed: int, ended: frozenset[int]
) -> Rollout:
    reason: FinishReason = "stop" if ids[-1] in ended else "length"
    text = decode_completion(policy.backbone.tokenizer, row.spec.prompt, ids)
    return Rollout(
        id=rollout_id(row.spec, policy.name, row.index),
        prompt_id=row.spec.id,
        index=row.index,
        completion=text,
        token_ids=ids,
        logprob=logprob,
        finish_reason=reason,
        policy=policy.name,
        seed=seed,
    )
