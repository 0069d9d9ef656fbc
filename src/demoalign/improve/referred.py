"""What TRL's trainers share here whose reward is beta log(pi / reference).

The reference's log-probabilities are read once, before training, and stand beside the rows. So one
set of weights is in memory at a time and any policy can be the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoalign.config import BaselineBase
from demoalign.errors import TrainingError
from demoalign.policies.backbone import Backbone
from demoalign.policies.checkpoints import CompleteCheckpoints, newest_complete
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import completion_logprobs
from demoalign.policies.policy import Policy
from demoalign.policies.training import ProgressCallback, shared_arguments
from demoalign.processes import from_main
from demoalign.progress import meter

ADAPTER = "default"
"""The name that TRL's preference trainers know the adapter by which they train."""

TRL_REFERENCE = "ref"
"""A copy of it that TRL makes for itself, of which nothing is read here."""

Array = NDArray[np.float64]


class Prepared:
    """To be put before a trainer of TRL: rows are token ids that bring what the reference says."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def sequence_logprobs(policy: Policy, rows: Sequence[Row]) -> Array:
    """(B,) log pi(y|x) in nats of whole completions."""
    return np.array([float(known.values.sum()) for known in completion_logprobs(policy, rows)])


def reference_logprobs(policy: Policy, rows: Sequence[Sequence[Any]]) -> Array:
    """(B, 2) log-probabilities (nats) of two completions of each prompt.

    Args:
        policy: the reference.
        rows: token ids of a prompt and of two completions, and whatever else: DPO's pairs, KTO's
            examples.
    """
    read = [Row(tuple(row[0]), tuple(side)) for row in rows for side in row[1:3]]
    return sequence_logprobs(policy, read).reshape(-1, 2)


def trl_arguments(
    config: BaselineBase, backbone: Backbone, seed: int, rows: int, folder: Path
) -> dict[str, Any]:
    """Keyword arguments that TRL's DPO and KTO configurations share.

    Args:
        config: optimiser, and how many resume points.
        backbone: whose device is used.
        seed: of data order.
        rows: that are trained on, in one epoch.
        folder: gets ``checkpoints``.
    """
    total = math.ceil(rows / config.batch_size) / config.accumulation * config.epochs
    shared = shared_arguments(config, backbone.device, seed, str(folder / "checkpoints"))
    return {
        **shared,
        "logging_steps": max(1, min(shared["logging_steps"], int(total) // 10)),
        "precompute_ref_log_probs": True,
        "max_length": None,
        "save_strategy": "steps" if config.checkpoints else "no",
        "save_steps": max(1, math.ceil(total / (config.checkpoints + 1))),
        "save_total_limit": 2,
    }


def make_trainer(
    kind: Any,
    backbone: Backbone,
    adapter: str | None,
    arguments: Any,
    rows: Sequence[Mapping[str, Any]],
) -> Any:
    """A trainer of TRL on one backbone, which keeps whole resume points and prints nothing."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    trainer = kind(
        model=backbone.causal if adapter is None else backbone.peft,
        args=arguments,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=backbone.tokenizer,
        callbacks=[CompleteCheckpoints()],
    )
    trainer.remove_callback(PrinterCallback)
    backbone.remove_adapter(TRL_REFERENCE)
    return trainer


def fit(
    make: Callable[[], Any],
    backbone: Backbone,
    adapter: str | None,
    config: BaselineBase,
    rows: int,
    folder: Path,
    label: str,
) -> Any:
    """Train to the end, from the newest whole checkpoint of ``folder`` if there is one.

    Args:
        make: gives the trainer (`make_trainer`) once the adapter is active.
        backbone: changed in place.
        adapter: `ADAPTER`, the only one on the backbone; None for full fine-tuning.
        config: of the training.
        rows: in one epoch.
        folder: has or gets ``checkpoints``.
        label: of the progress bar.

    Returns:
        The trainer, done.

    Raises:
        TrainingError: an adapter on the language-model head, or a loss that is not finite.
    """
    assert adapter in (None, ADAPTER)
    steps = math.ceil(math.ceil(rows / config.batch_size) / config.accumulation)
    total = max(1, math.ceil(steps * config.epochs))
    resume = from_main(lambda: newest_complete(folder / "checkpoints"))
    (backbone.causal if adapter is None else backbone.peft).train()
    with meter(f"{label} {config.name}", total) as shown, backbone.using(adapter):
        try:
            trainer = make()
        except ValueError as error:  # TRL's refusal of a layer that its loss would pass by
            raise TrainingError(f"baselines.{config.name}: {error}") from error
        trainer.add_callback(ProgressCallback(shown))
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    backbone.causal.eval()
    return trainer
