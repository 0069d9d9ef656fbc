"""Direct preference optimisation through TRL, relative to whatever reference is declared.

With the implicit reward r(y|x) = beta log(pi(y|x) / reference(y|x)) the loss of a pair is

    -log sigmoid(r(positive) - r(negative)),

Bradley-Terry on that reward (appendix A.5). TRL's trainer computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from demoalign.config import DpoConfig
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
from demoalign.rewards.comparisons import Comparison


class TokenPair(NamedTuple):
    """Token ids of a prompt, and of a better and a worse completion of it."""

    prompt: list[int]
    positive: list[int]
    negative: list[int]


@dataclass(frozen=True, slots=True)
class DpoSummary:
    """What training did.

    Attributes:
        steps: of the optimiser.
        losses: mean loss (nats) by step that was logged.
        accuracies: share of pairs whose positive has the higher implicit reward, likewise.
        margins: implicit reward of positives less that of negatives (nats), likewise.
        pairs: learned from.
        truncated: answers that were cut at ``max_length``.
    """

    steps: int
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    margins: tuple[float, ...]
    pairs: int
    truncated: int


def token_pairs(
    tokenizer: Any, comparisons: Sequence[Comparison], name: str, max_length: int
) -> tuple[list[TokenPair], int]:
    """Comparisons as token ids cut at ``max_length``, and how many answers were cut.

    Pairs whose prompt leaves no room for an answer are left out.

    Raises:
        TrainingError: no pair is left.
    """
    pairs, truncated, shortest = [], 0, math.inf
    for each in comparisons:
        up = render(tokenizer, each.prompt, each.positive.completion, each.positive.finished)
        down = render(tokenizer, each.prompt, each.negative.completion, each.negative.finished)
        room = max_length - len(up.prompt_ids)
        shortest = min(shortest, len(up.prompt_ids))
        if room > 0:
            sides = up.completion_ids, down.completion_ids
            truncated += sum(len(side) > room for side in sides)
            pairs.append(TokenPair(up.prompt_ids, *(side[:room] for side in sides)))
    if not pairs:
        raise TrainingError(
            f"baselines.{name}.max_length: must leave room for a completion, found {max_length} "
            f"with prompts of {shortest:g} tokens and more"
        )
    return pairs, truncated


def train_dpo(
    backbone: Backbone,
    adapter: str | None,
    pairs: Sequence[TokenPair],
    reference: Array,
    config: DpoConfig,
    seed: int,
    folder: Path,
    truncated: int = 0,
) -> DpoSummary:
    """Train an adapter of the backbone (or all of its weights) to prefer the positives.

    Checkpoints go to ``folder/checkpoints`` and are continued from if complete ones are there.

    Args:
        backbone: changed in place.
        adapter: `ADAPTER`, the only one on the backbone; None for full fine-tuning.
        pairs: token ids.
        reference: (B, 2) of `referred.reference_logprobs`.
        config: beta, loss and optimiser.
        seed: of data order.
        folder: where resume points are kept while training runs.
        truncated: answers that were cut, for the summary.

    Raises:
        TrainingError: an adapter on the language-model head, or a loss that is not finite.
    """

    def make() -> Any:
        return dpo_trainer(backbone, adapter, pairs, reference, config, seed, folder)

    trainer = fit(make, backbone, adapter, config, len(pairs), folder, "DPO")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return DpoSummary(
        int(trainer.state.global_step),
        tuple(entry["loss"] for entry in history),
        tuple(entry["rewards/accuracies"] for entry in history),
        tuple(entry["rewards/margins"] for entry in history),
        len(pairs),
        truncated,
    )


def dpo_trainer(
    backbone: Backbone,
    adapter: str | None,
    pairs: Sequence[TokenPair],
    reference: Array,
    config: DpoConfig,
    seed: int,
    folder: Path,
) -> Any:
    """TRL's trainer of one policy; arguments as in `train_dpo`."""
    from trl import DPOConfig as TrlConfig

    rows = [
        {
            "prompt_ids": pair.prompt,
            "chosen_ids": pair.positive,
            "rejected_ids": pair.negative,
            "ref_chosen_logps": float(up),
            "ref_rejected_logps": float(down),
        }
        for pair, (up, down) in zip(pairs, reference, strict=True)
    ]
    arguments = TrlConfig(
        **trl_arguments(config, backbone, seed, len(pairs), folder),
        beta=config.beta,
        loss_type=[config.loss],
        label_smoothing=config.label_smoothing,
    )
    return make_trainer(_trainer(config.name), backbone, adapter, arguments, rows)


def _trainer(name: str) -> Any:
    """The trainer's class; TRL is heavy to import, so only when it is needed."""
    from trl import DPOTrainer

    class ReferredDpoTrainer(Prepared, DPOTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            refuse_nonfinite(loss, f"baselines.{name}", self.state.global_step)
            return loss

    return ReferredDpoTrainer
