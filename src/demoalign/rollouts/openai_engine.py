"""The rollout engine for policies that are served elsewhere, at any OpenAI-compatible address.

Prompts of plain text go to ``/completions``, chat messages to ``/chat/completions`` (as text to
``/completions`` if the tokenizer has no chat template: the policy is trained on our rendering
then, which the server does not know). Of a policy its name and its tokenizer are used, never its
weights.

The server should sample from the policy as it is. vLLM takes top-k, top-p and penalties from the
model folder's ``generation_config.json`` unless it is started with ``--generation-config vllm``.

Requests ask for samples in blocks that begin at multiples of ``samples_per_request``; the seed
of each is made from (seed, prompt id, first index). A server that heeds it gives the same
completions again, whatever the order of the requests.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from demoalign.config import EndpointConfig, RolloutsConfig
from demoalign.demonstrations.render import prompt_text
from demoalign.endpoints.backoff import Backoff
from demoalign.endpoints.endpoint import Endpoint, model_name
from demoalign.errors import RecipeError, RolloutError
from demoalign.policies.policy import Policy
from demoalign.progress import meter
from demoalign.records import Rollout
from demoalign.rollouts.asking import Asking, Question
from demoalign.rollouts.choices import FILTERED, rollout_of
from demoalign.rollouts.engine import AnyPolicy, PromptSpec, plain_policy, sample_indices
from demoalign.rollouts.responses import Responses


class OpenAIEngine:
    """Samples by asking a server.

    Args:
        config: with an ``endpoint``.
        responses: file in which answers are kept until their rollouts are stored, so that nothing
            is asked again that was answered before a process was killed; whoever stores the
            rollouts deletes it afterwards. Without it the answers to at most ``in_order.AHEAD *
            concurrency`` requests are lost. Those under way are lost in any case.
        backoff: how long to wait before asking again.

    Raises:
        RecipeError: there is no endpoint.
    """

    def __init__(
        self,
        config: RolloutsConfig,
        responses: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if config.endpoint is None:
            raise RecipeError(
                "rollouts.endpoint: needed by engine: openai, found none. Set endpoint.base_url."
            )
        self.config = config
        self._endpoint: EndpointConfig = config.endpoint
        self._responses = responses
        self._backoff = backoff

    def describe(self) -> dict[str, str]:
        """Which server was asked."""
        return {"engine": "openai", "server": self._endpoint.base_url}

    def sample(
        self,
        policy: AnyPolicy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool = False,
    ) -> Iterator[Rollout]:
        """Yield rollouts ``first`` to ``n - 1`` of each prompt, prompt by prompt.

        Closing the generator cancels the requests that are under way.

        Args:
            policy: whose completions.
            prompts: what to answer.
            n: samples per prompt; ignored if ``greedy``.
            seed: the requests' seeds are made from it.
            greedy: ask at temperature 0; the rollout's index is -1.

        Raises:
            RolloutError: the server refuses a request or keeps failing (the message says how many
                completions had come), or the key cannot be sent.
        """
        policy = plain_policy(policy, "openai")
        total = sum(len(sample_indices(spec, n, greedy)) for spec in prompts)
        if not total:
            return
        endpoint, responses = Endpoint(self._endpoint, self._backoff), Responses(self._responses)
        asking = Asking(endpoint, responses, seed)
        questions = self._questions(policy, prompts, n, seed, greedy, responses)
        filtered = 0
        try:
            with (
                closing(responses),
                closing(asking.answers(questions)) as answers,
                meter(f"rollouts of {policy.name}", total) as shown,
            ):
                for answer in answers:
                    spec, indices = answer.question.spec, answer.question.indices
                    for index, choice in zip(indices, answer.choices, strict=True):
                        filtered += choice.reason == FILTERED
                        most = self.config.max_new_tokens
                        yield rollout_of(choice, policy, spec, index, seed, most)
                    note = f"{endpoint.retried} asked again" if endpoint.retried else ""
                    shown.advance(len(indices), note)
        except RolloutError as error:
            raise RolloutError(
                f"rollouts of {policy.name}: {error} {asking.received} of {total} completions had "
                "come. Run the same command again to go on."
            ) from None
        if filtered:
            sys.stderr.write(
                f"rollouts of {policy.name}: the server's content filter cut {filtered} of {total} "
                "completions; they count as cut by max_new_tokens\n"
            )

    def _questions(
        self,
        policy: Policy,
        prompts: Sequence[PromptSpec],
        n: int,
        seed: int,
        greedy: bool,
        responses: Responses,
    ) -> Iterator[Question]:
        """What to ask, in the order of the rollouts."""
        wanted = {}
        if responses.are_there:
            for spec in prompts:
                digest = _digest(policy.name, *self._request(policy, spec, greedy), seed)
                wanted[spec.id] = (digest, sample_indices(spec, n, greedy).start)
        held = responses.held(wanted)
        for spec in prompts:
            path, body = self._request(policy, spec, greedy)
            digest = _digest(policy.name, path, body, seed)
            indices = sample_indices(spec, n, greedy)
            for block in _blocks(indices, self._endpoint.samples_per_request):
                found = {i: held.pop((spec.id, i)) for i in block if (spec.id, i) in held}
                yield Question(spec, block, path, body, digest, found)

    def _request(
        self, policy: Policy, spec: PromptSpec, greedy: bool
    ) -> tuple[str, dict[str, Any]]:
        """Path and body (but for ``n`` and ``seed``) of the requests about one prompt."""
        config, tokenizer = self.config, policy.backbone.tokenizer
        is_chat = not isinstance(spec.prompt, str) and bool(tokenizer.chat_template)
        body: dict[str, Any] = {
            "model": model_name(self._endpoint, policy.name),
            "max_tokens": config.max_new_tokens,
            "temperature": 0.0 if greedy else config.temperature,
            "top_p": 1.0 if greedy else config.top_p,
        }
        if is_chat:
            body["messages"] = spec.prompt
        else:
            body["prompt"] = prompt_text(tokenizer, spec.prompt)
        if config.stop:
            body["stop"] = list(config.stop)
        if config.top_k is not None and not greedy:
            body["top_k"] = config.top_k
        if config.min_p is not None and not greedy:
            body["min_p"] = config.min_p
        if config.min_new_tokens:
            body["min_tokens"] = config.min_new_tokens
        if self._wants_logprobs and not greedy:
            body["logprobs"] = True if is_chat else 1
        return ("chat/completions" if is_chat else "completions"), body

    @property
    def _wants_logprobs(self) -> bool:
        """Only where the policy itself is sampled from.

        Otherwise servers differ in whether they tell the policy's log-probabilities or those of
        the distribution that they sampled from.
        """
        config = self.config
        is_whole = config.top_p == 1 and config.top_k is None and config.min_p is None
        is_whole = is_whole and not config.min_new_tokens
        return config.temperature == 1 and is_whole and self._endpoint.logprobs


def _digest(policy: str, path: str, body: dict[str, Any], seed: int) -> str:
    text = json.dumps([policy, path, body, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _blocks(indices: range, size: int) -> Iterator[tuple[int, ...]]:
    """The indices in blocks that end below multiples of ``size``, wherever they begin."""
    start = indices.start
    while start < indices.stop:
        stop = min((start // size + 1) * size, indices.stop)
        yield tuple(range(start, stop))
        start = stop
