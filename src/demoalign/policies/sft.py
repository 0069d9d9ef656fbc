"""Supervised fine-tuning through TRL: forward KL to the demonstrator (Eq. 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from demoalign.config import SftConfig
from demoalign.demonstrations.render import Rendered
from demoalign.errors import TrainingError
from demoalign.policies.backbone import Backbone
from demoalign.policies.checkpoints import CompleteCheckpoints, newest_complete
from demoalign.policies.learning import seen_states
from demoalign.policies.length_groups import LengthGroups
from demoalign.policies.packed_rows import check_kept_apart, pack_rows
from demoalign.policies.training import ProgressCallback, refuse_nonfinite, shared_arguments
from demoalign.processes import from_main
from demoalign.progress import meter

IGNORED = -100
WHOLE_LOGITS_BYTES = 256 * 2**20
"""Above this TRL's loss is used, which makes the logits in chunks: slower by half, but lean."""


@dataclass(frozen=True, slots=True)
class SftSummary:
    """What training did: optimiser steps, mean loss per token (nats) by step, cut rows."""

    steps: int
    losses: tuple[float, ...]
    truncated: int


def occupancy_weights(tokens: int) -> list[float]:
    """Eq. 29: weight (T-k)/T of token k = 0, ..., T-1 of a completion of T tokens.

    The state-action forward KL sums log pi over every prefix, so token k stands in the T-k
    prefixes that reach it.
    """
    return [(tokens - k) / tokens for k in range(tokens)]


def weighted_nll(logits: Tensor, targets: Tensor, weights: Tensor, normaliser: Any) -> Tensor:
    """Weighted negative log-likelihood per token (Eq. 28 and 29).

    Args:
        logits: (n, V) at the places before the n tokens that are learned.
        targets: (n,) their ids.
        weights: (n,) their weights.
        normaliser: how many tokens are learned in the whole (accumulated) batch.

    Returns:
        Scalar loss in nats; with all weights 1 it is the loss of SFT.
    """
    losses = cross_entropy(logits.float(), targets, reduction="none")
    total: Tensor = (losses * weights).sum() / normaliser
    return total


def training_row(row: Rendered, config: SftConfig) -> dict[str, list[Any]]:
    """One row for the trainer: prompt masked, completion learned, cut at max_length."""
    ids = row.ids[: config.max_length]
    prompt = min(len(row.prompt_ids), len(ids))
    built: dict[str, list[Any]] = {
        "input_ids": ids,
        "labels": [IGNORED] * prompt + ids[prompt:],
    }
    if config.token_weighting == "occupancy":
        weights = [0.0] * prompt + occupancy_weights(len(row.completion_ids))
        built["loss_weights"] = weights[: len(ids)]
    return built


def train_sft(
    backbone: Backbone,
    adapter: str | None,
    rows: Sequence[Rendered],
    config: SftConfig,
    seed: int,
    folder: Path,
    name: str = "sft",
) -> SftSummary:
    """Fine-tune an adapter of the backbone (or all of its weights) on demonstrations.

    Checkpoints go to ``folder/checkpoints`` and are continued from if complete ones are there.

    Args:
        backbone: changed in place.
        adapter: name of the adapter to train, or None for full fine-tuning.
        rows: rendered demonstrations.
        config: epochs, batch size, learning rate and so on.
        seed: of data order and dropout.
        folder: where resume points are kept while training runs.
        name: the recipe's section, for messages.

    Raises:
        TrainingError: no row has a completion token, or the loss is no longer finite.
    """
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    kept = [training_row(row, config) for row in rows if len(row.prompt_ids) < config.max_length]
    if not kept:
        raise TrainingError(
            f"{name}.max_length: must leave room for a completion, found {config.max_length} with "
            f"prompts of {min((len(r.prompt_ids) for r in rows), default=0)} tokens and more"
        )
    if config.packing:
        check_kept_apart(backbone.causal, name)
        kept = pack_rows(kept, config.max_length)
    steps = math.ceil(math.ceil(len(kept) / config.batch_size) / config.accumulation)
    total = max(1, math.ceil(steps * config.epochs))
    checkpoints = folder / "checkpoints"
    resume = from_main(lambda: newest_complete(checkpoints))
    model = backbone.causal if adapter is None else backbone.peft
    model.train()
    title = "SFT" if name == "sft" else f"SFT {name.rpartition('.')[2]}"
    with meter(title, total) as shown, backbone.using(adapter):
        trainer = _trainer(name, _grouped(kept, config, seed))(
            model=model,
            args=_arguments(backbone, config, seed, total, checkpoints),
            train_dataset=Dataset.from_list(kept),
            processing_class=backbone.tokenizer,
            data_collator=Collator(backbone.tokenizer.pad_token_id),
            callbacks=[ProgressCallback(shown), CompleteCheckpoints()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    model.eval()
    history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    truncated = sum(len(row.ids) > config.max_length for row in rows)
    return SftSummary(int(trainer.state.global_step), tuple(history), truncated)


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads rows on the right to the longest of the batch: (B, T) tensors."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, Tensor]:
        """Input ids, labels, loss weights if the rows have them; attention mask or positions.

        Rows that are packed have positions, which say where one ends; others have a mask.
        """
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {
            "input_ids": self.pad_token_id,
            "labels": IGNORED,
            "loss_weights": 0.0,
            "position_ids": 0,
        }
        batch = {
            name: torch.tensor(
                [[*row[name], *[value] * (longest - len(row[name]))] for row in rows]
            )
            for name, value in fill.items()
            if name in rows[0]
        }
        if "position_ids" in batch:
            return batch
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        return batch


def _arguments(
    backbone: Backbone, config: SftConfig, seed: int, total: int, checkpoints: Path
) -> Any:
    from trl import SFTConfig as TrlConfig

    every = math.ceil(total / (config.checkpoints + 1))
    return TrlConfig(
        **shared_arguments(config, backbone.device, seed, str(checkpoints)),
        save_strategy="steps" if config.checkpoints else "no",
        save_steps=every,
        save_total_limit=None if config.keep_checkpoints else 2,
        max_length=None,
        packing=False,
    )


@dataclass(frozen=True, slots=True)
class Grouped:
    """Batches of like length.

    Attributes:
        order: of the rows.
        tokens: that are learned in an optimiser step, on average. The mean over a step's own tokens
            would give those of short rows more weight than those of long ones.
    """

    order: LengthGroups
    tokens: float


def _grouped(rows: Sequence[Mapping[str, Any]], config: SftConfig, seed: int) -> Grouped | None:
    """None if the recipe does not ask for it."""
    if not config.group_by_length:
        return None
    order = LengthGroups([len(row["input_ids"]) for row in rows], config.batch_size, seed)
    learned = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    return Grouped(order, learned / len(rows) * config.batch_size * config.accumulation)


def _trainer(name: str, grouped: Grouped | None) -> Any:
    """The trainer's class; TRL is heavy to import, so only when it is needed."""
    from trl import SFTTrainer

    class WeightedSftTrainer(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            if grouped is not None:
                return grouped.order
            return super()._get_train_sampler(*args, **kwargs)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if grouped is not None:
                steps = (
                    1 if num_items_in_batch is not None else self.args.gradient_accumulation_steps
                )
                num_items_in_batch = grouped.tokens / steps  # untold, the trainer divides by them
            learned = inputs["labels"] != IGNORED
            learned[:, 0] = False  # nothing foretells the first token
            count = int(learned.sum())
            plain = self.accelerator.unwrap_model(model)
            whole = 4 * count * plain.config.get_text_config().vocab_size
            if "loss_weights" not in inputs and whole > WHOLE_LOGITS_BYTES:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs.pop("labels")
            weights = inputs.pop("loss_weights", torch.ones_like(labels))
            with seen_states(plain, learned.roll(-1, 1)):
                outputs = model(**inputs, use_cache=False)
            normaliser = count if num_items_in_batch is None else num_items_in_batch
            loss = weighted_nll(outputs.logits, labels[learned], weights[learned], normaliser)
            if num_items_in_batch is not None:  # processes average their gradients
                loss = loss * self.accelerator.num_processes
            return (loss, outputs) if return_outputs else loss

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            refuse_nonfinite(loss, name, self.state.global_step)
            return loss

    return WeightedSftTrainer
