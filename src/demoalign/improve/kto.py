"""Kahneman-Tversky optimisation through TRL: answers that are good, answers that are not, no pairs.

With the implicit reward r(y|x) = beta log(pi(y|x) / reference(y|x)) and a reference point z, beta
times an estimate of KL(pi || reference), the loss of an answer is (Ethayarajh et al., 2024, Eq. 7)

    w_D (1 - sigmoid(r - z)) if it is desirable,  w_U (1 - sigmoid(z - r)) if it is not.

TRL's trainer computes it. It estimates the KL from the answers of a batch, each behind the prompt
of its neighbour, and not below 0. That needs batches which are known beforehand, so rows are put
in an order once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from demoalign.config import KtoConfig
from demoalign.demonstrations.render import render
from demoalign.errors import TrainingError
from demoalign.improve.referred import (
    Array,
    Prepared,
    fit,
    make_trainer,
    trl_arguments,
)
from demoalign.policies.backbone import Backbone
from demoalign.policies.training import refuse_nonfinite
from demoalign.records import Prompt
from demoalign.rewards.comparisons import Answer


class Example(NamedTuple):
    """Token ids of a prompt, of its answer, and of the answer to another prompt of the batch."""

    prompt: list[int]
    completion: list[int]
    other: list[int]
    desirable: bool


@dataclass(frozen=True, slots=True)
class KtoSummary:
    """What training did.

    Attributes:
        steps: of the optimiser.
        losses: mean loss by step that was logged.
        divergences: TRL's estimate of KL(pi || reference), nats, likewise.
        margins: implicit reward of desirable answers less that of others, likewise; None where a
            step had only one kind.
        desirable, undesirable: answers of each kind.
        desirable_weight: w_D.
        truncated: answers that were cut at ``max_length``.
    """

    steps: int
    losses: tuple[float, ...]
    divergences: tuple[float, ...]
    margins: tuple[float | None, ...]
    desirable: int
    undesirable: int
    desirable_weight: float
    truncated: int


def examples_of(
    tokenizer: Any,
    desirable: Sequence[tuple[Prompt, Answer]],
    undesirable: Sequence[tuple[Prompt, Answer]],
    config: KtoConfig,
    seed: int,
) -> tuple[list[Example], int]:
    """Answers as token ids cut at ``max_length``, in training's order, and how many were cut.

    Prompts that leave no room for an answer are left out. In each batch the answers move on by one
    place to make those that stand behind others' prompts, as TRL has it.

    Raises:
        TrainingError: one kind has no answer left, or the last answer would be alone in a batch.
    """
    longest, shortest, truncated = config.max_length, math.inf, 0
    rows: list[tuple[list[int], list[int], bool]] = []
    for is_good, answers in ((True, desirable), (False, undesirable)):
        for prompt, answer in answers:
            found = render(tokenizer, prompt, answer.completion, answer.finished)
            room = longest - len(found.prompt_ids)
            shortest = min(shortest, len(found.prompt_ids))
            if room > 0:
                truncated += len(found.completion_ids) > room
                rows.append((found.prompt_ids, found.completion_ids[:room], is_good))
    if len({is_good for *_, is_good in rows}) < 2:
        raise TrainingError(
            f"baselines.{config.name}.max_length: must leave room for desirable and undesirable "
            f"answers, found {longest} with prompts of {shortest:g} tokens and more"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    size = config.batch_size
    examples: list[Example] = []
    for start in range(0, len(rows), size):
        batch = [rows[i] for i in order[start : start + size]]
        if len(batch) == 1 and examples:  # alone it would be its own neighbour
            prompt, answer, is_good = batch[0]
            examples.append(Example(prompt, answer, examples[-1].completion, is_good))
            continue
        others = [batch[-1][1], *(answer for _, answer, _ in batch[:-1])]
        examples += [
            Example(prompt, answer, other, is_good)
            for (prompt, answer, is_good), other in zip(batch, others, strict=True)
        ]
    return examples, truncated


def train_kto(
    backbone: Backbone,
    adapter: str | None,
    examples: Sequence[Example],
    reference: Array,
    config: KtoConfig,
    seed: int,
    folder: Path,
    truncated: int = 0,
) -> KtoSummary:
    """Train an adapter of the backbone, or all of its weights; arguments as in `train_dpo`.

    Raises:
        TrainingError: an adapter on the language-model head, or a loss that is not finite.
    """

    def make() -> Any:
        return kto_trainer(backbone, adapter, examples, reference, config, seed, folder)

    trainer = fit(make, backbone, adapter, config, len(examples), folder, "KTO")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    good = sum(each.desirable for each in examples)
    return KtoSummary(
        int(trainer.state.global_step),
        tuple(entry["loss"] for entry in history),
        tuple(entry["kl"] for entry in history),
        tuple(entry.get("rewards/margins") for entry in history),
        good,
        len(examples) - good,
        desirable_weight(examples, config),
        truncated,
    )


def desirable_weight(examples: Sequence[Example], config: KtoConfig) -> float:
    """w_D; ``auto`` gives the desirable answers as much weight in all as the others have."""
    if config.desirable_weight != "auto":
        return config.desirable_weight
    good = sum(each.desirable for each in examples)
    return config.undesirable_weight * (len(examples) - good) / good


def kto_trainer(
    backbone: Backbone,
    adapter: str | None,
    examples: Sequence[Example],
    reference: Array,
    config: KtoConfig,
    seed: int,
    folder: Path,
) -> Any:
    """TRL's trainer of one policy; arguments as in `train_kto`."""
    from trl import KTOConfig as TrlConfig

    rows = [
        {
            "prompt_ids": each.prompt,
            "completion_ids": each.completion,
            "KL_completion_ids": each.other,
            "label": each.desirable,
            "ref_logps": float(own),
            "ref_KL_logps": float(other),
        }
        for each, (own, other) in zip(examples, reference, strict=True)
    ]
    arguments = TrlConfig(
        **trl_arguments(config, backbone, seed, len(examples), folder),
        beta=config.beta,
        desirable_weight=desirable_weight(examples, config),
        undesirable_weight=config.undesirable_weight,
    )
    return make_trainer(_trainer(config.name), backbone, adapter, arguments, rows)


def _trainer(name: str) -> Any:
    """The trainer's class; TRL is heavy to import, so only when it is needed."""
    from trl import KTOTrainer

    class ReferredKtoTrainer(Prepared, KTOTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            refuse_nonfinite(loss, f"baselines.{name}", self.state.global_step)
            return loss

    return ReferredKtoTrainer
