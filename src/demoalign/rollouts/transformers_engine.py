"""The default rollout engine: transformers' modules, each prompt read once.

Rollouts are drawn from counter-based streams (see `random_streams`), so that what comes out does
not depend on batch size, order or restart; up to rounding, since matrix products of another shape
may differ in their last digits. Log-probabilities come from the same logits, in float32.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import (
    answer_end,
    decode_completion,
    render_completions,
    render_prompt,
)
from demoalign.errors import ModelError, RolloutError
from demoalign.policies.combined import PairedDecoder, pair_decoders
from demoalign.policies.expanded_prefix import ExpandedDecoder
from demoalign.policies.policy import Policy
from demoalign.policies.sampling_copy import faster_copy, merged_copy, small_copy
from demoalign.policies.shared_prefix import SharedDecoder, why_not_shared
from demoalign.progress import Meter, meter
from demoalign.records import Rollout
from demoalign.rollouts.engine import AnyPolicy, PromptSpec, rollout_id, sample_indices
from demoalign.rollouts.rejection import Partial, Rejection
from demoalign.rollouts.sampler import Ended, Sampler, Settings
from demoalign.rollouts.sampling import Truncation
from demoalign.rollouts.stop_strings import StopStrings
from demoalign.rollouts.waiting import Waiting, WaitingPrompts, deal

_log = logging.getLogger(__name__)

STEPS = 16
"""Tokens between two looks at what has ended."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A rollout, and the final hidden state (H,) of its last token if it is exact.

    It is when the completion's text encodes to just the sampled tokens: what a reward model that
    reads the text would see. Else it is None.
    """

    rollout: Rollout
    hidden: NDArray[np.float32] | None


class TransformersEngine:
    """Samples with transformers' own modules.

    Args:
        config: of the rollouts.
        rejection: stops the least promising completions of a prompt, or None.
    """

    def __init__(self, config: RolloutsConfig, rejection: Rejection | None = None) -> None:
        self.config = config
        self.rejection = rejection
        self._facts: dict[str, str] = {}

    def describe(self) -> dict[str, str]:
        """Precision of weights and of log-probabilities, and how prompts were held."""
        return {"engine": "transformers", **self._facts}

    def sample(
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        """Yield rollouts ``first`` to ``n - 1`` of each prompt, prompt by prompt.

        Args:
            policy: whose completions.
            prompts: what to answer.
            n: samples per prompt; ignored if ``greedy``.
            seed: of the streams.
            greedy: decode deterministically; the rollout's index is -1.

        Raises:
            ModelError: prompt and max_new_tokens do not fit the model's context.
            RolloutError: two prompts have the same id.
        """
        for sampled in self._sample(policy, prompts, n, seed, greedy, keeps_hidden=False):
            yield sampled.rollout

    def sample_hidden(
        self, policy: AnyPolicy, prompts: Sequence[PromptSpec], n: int, seed: int
    ) -> Iterator[Sampled]:
        """As `sample`, with the hidden states that a ``head`` reward model reads.

        They cost one step more a rollout: its last token is read, too.
        """
        yield from self._sample(policy, prompts, n, seed, False, keeps_hidden=True)

    def _sample(
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        is_greedy: bool,
        keeps_hidden: bool,
    ) -> Iterator[Sampled]:
        waiting = [self._waiting(policy, spec, n, is_greedy) for spec in prompts]
        order = [(each.spec.id, index) for each in waiting for index in each.indices]
        if len(set(order)) < len(order):
            (twice, _), _ = Counter(order).most_common(1)[0]
            raise RolloutError(f"prompts: each needs an id of its own, found {twice!r} twice")
        cohort = self.rejection.cohort if self.rejection else None
        decoder = self._decoder(policy)
        causal, workers = decoder.causal, _workers(policy.backbone.device)
        if isinstance(decoder, PairedDecoder) and decoder.switches:
            workers = 1
        self._facts = describe_decoder(decoder)
        words = ", ".join(f"{key} {value}" for key, value in self._facts.items())
        _log.info("rollouts of %s: %s", policy.name, words)
        settings = self._settings(policy, is_greedy, seed, workers, keeps_hidden)
        samplers = [
            Sampler(decoder, WaitingPrompts(hand, cohort), settings)
            for hand in deal([each for each in waiting if each.indices], workers, cohort)
        ]
        done: dict[tuple[str, int], Sampled] = {}
        emitted = 0
        with (
            meter(f"rollouts of {policy.name}", len(order)) as shown,
            ThreadPoolExecutor(workers) as pool,
        ):
            while emitted < len(order):
                with policy.active(), decoder.active(), _one_thread_each(workers):
                    # not across a yield: the caller may use another policy
                    parts = list(pool.map(lambda each: each.advance(STEPS), samplers))
                ended = [each for part in parts for each in part]
                if causal.dtype != policy.backbone.causal.dtype:  # its states are rounded
                    ended = [each._replace(hidden=None) for each in ended]
                for each, sampled in zip(ended, _sampled(policy, ended, settings), strict=True):
                    done[each.start.prompt.spec.id, each.number] = sampled
                _show(shown, ended)
                for sampler in samplers:
                    self._judge(policy, sampler)
                while emitted < len(order) and order[emitted] in done:
                    yield done.pop(order[emitted])
                    emitted += 1

    def _decoder(self, policy: AnyPolicy) -> Any:
        """What computes the steps of a policy, or of two that are combined."""
        if isinstance(policy, Policy):
            return make_decoder(self._weights(policy))
        models = self._weights(policy.first), self._weights(policy.second)
        shares = all(_is_shared(model) for model in models)
        return pair_decoders(policy, models, shares)

    def _weights(self, policy: Policy) -> Any:
        """The model to sample from: the policy's own, or a copy that is faster."""
        causal = policy.backbone.causal
        causal.eval()
        if self.config.precision == "same" or causal.dtype == torch.bfloat16:
            return small_copy(policy) or causal
        if self.config.precision == "bfloat16":
            return merged_copy(policy, torch.bfloat16)
        return faster_copy(policy) or small_copy(policy) or causal

    def _waiting(self, policy: AnyPolicy, spec: PromptSpec, n: int, is_greedy: bool) -> Waiting:
        tokenizer, context = policy.backbone.tokenizer, policy.context
        ids = tuple(render_prompt(tokenizer, spec.prompt))
        if context is not None and len(ids) + self.config.max_new_tokens > context:
            raise ModelError(
                f"rollouts.max_new_tokens: prompt and completion must fit the model's context of "
                f"{context} tokens, found {len(ids)} + {self.config.max_new_tokens} for prompt "
                f"{spec.id}. Lower max_new_tokens or demonstrations.max_prompt_tokens."
            )
        end = answer_end(tokenizer, is_chat=not isinstance(spec.prompt, str))
        return Waiting(spec, ids, end.stop_ids, list(sample_indices(spec, n, is_greedy)))

    def _settings(
        self, policy: AnyPolicy, is_greedy: bool, seed: int, workers: int, keeps_hidden: bool
    ) -> Settings:
        config = self.config
        tokenizer = policy.backbone.tokenizer
        return Settings(
            truncation=Truncation(config.temperature, config.top_k, config.top_p, config.min_p),
            is_greedy=is_greedy,
            least=config.min_new_tokens,
            most=config.max_new_tokens,
            seed=seed,
            places=-(-config.batch_size // workers),
            keeps_hidden=keeps_hidden,
            stop_strings=StopStrings(tokenizer, config.stop) if config.stop else None,
            rejection=self.rejection,
        )

    def _judge(self, policy: AnyPolicy, sampler: Sampler) -> None:
        """Have the partial completions that wait for it judged."""
        while self.rejection and (waiting := sampler.to_judge()):
            starts, _, tokens, hidden = waiting
            partials = [
                Partial(
                    start.prompt.spec.prompt,
                    tuple(ids),
                    decode_completion(policy.backbone.tokenizer, start.prompt.spec.prompt, ids),
                    state,
                )
                for start, ids, state in zip(
                    starts, tokens.tolist(), hidden.float().cpu().numpy(), strict=True
                )
            ]
            sampler.reject(self.rejection.judge(partials).tolist() if partials else [])


def make_decoder(causal: Any) -> Any:
    """The decoder that fits an architecture: shared prefixes where they are exact."""
    return SharedDecoder(causal) if _is_shared(causal) else ExpandedDecoder(causal)


def _is_shared(causal: Any) -> bool:
    """Whether an architecture can share prompts; why not goes to the log."""
    reason = why_not_shared(causal)
    if reason is not None:
        _log.warning(
            "%s: prompts are copied for each of their completions, since %s",
            type(causal).__name__,
            reason,
        )
    return reason is None


def describe_decoder(decoder: Any) -> dict[str, str]:
    """What was used, for the report."""
    shared = isinstance(decoder, SharedDecoder)
    if isinstance(decoder, PairedDecoder):
        shared = decoder.is_shared
    return {
        "weights": str(decoder.causal.dtype).removeprefix("torch."),
        "log-probabilities": "float32",
        "prompts": "read once, shared by their completions" if shared else "copied",
    }


def _workers(device: torch.device) -> int:
    """Samplers side by side: a CPU's cores are idle while one sampler is in Python."""
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def _one_thread_each(workers: int) -> Iterator[None]:
    """Share the CPU's threads among the workers while the block runs."""
    before = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(max(1, before // workers))
    try:
        yield
    finally:
        if workers > 1:
            torch.set_num_threads(before)


def _show(shown: Meter, ended: Sequence[Ended]) -> None:
    if ended:
        shown.advance(len(ended))


def _sampled(policy: AnyPolicy, ended: Sequence[Ended], settings: Settings) -> list[Sampled]:
    """Records of completions and, where they are exact, hidden states."""
    rollouts = [_rollout(policy, each, settings) for each in ended]
    kept = [i for i, each in enumerate(ended) if each.hidden is not None]
    canonical = render_completions(
        policy.backbone.tokenizer,
        [ended[i].start.prompt.spec.prompt for i in kept],
        [rollouts[i].completion for i in kept],
        [rollouts[i].finish_reason == "stop" for i in kept],
    )
    exact = {i for i, ids in zip(kept, canonical, strict=True) if ids == ended[i].token_ids}
    return [
        Sampled(rollout, _array(each.hidden) if i in exact else None)
        for i, (rollout, each) in enumerate(zip(rollouts, ended, strict=True))
    ]


def _array(hidden: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if hidden is None else hidden.float().cpu().numpy()


def _rollout(policy: AnyPolicy, ended: Ended, settings: Settings) -> Rollout:
    spec, tokenizer = ended.start.prompt.spec, policy.backbone.tokenizer
    text = decode_completion(tokenizer, spec.prompt, ended.token_ids)
    ends_itself = ended.token_ids[-1] in ended.start.prompt.stops
    if ended.reason == "stop" and not ends_itself and settings.stop_strings is not None:
        before = decode_completion(tokenizer, spec.prompt, ended.token_ids[:-1])
        text = settings.stop_strings.cut(text, before)
    is_own = settings.is_greedy or (settings.truncation.is_none and settings.least == 0)
    return Rollout(
        id=rollout_id(spec, policy.name, ended.number),
        prompt_id=spec.id,
        index=ended.number,
        completion=text,
        token_ids=ended.token_ids,
        logprob=float(np.sum(ended.logprobs, dtype=np.float64)),
        finish_reason=ended.reason,
        policy=policy.name,
        seed=settings.seed,
        token_logprobs=[round(value, 6) for value in ended.logprobs],
        sampling_logprobs=None if is_own else [round(v, 6) for v in ended.sampling_logprobs],
    )
