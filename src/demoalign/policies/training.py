"""What all trainings share: arguments that work with and without a GPU, progress, NaN guard."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from demoalign.config import OptimiserConfig
from demoalign.errors import TrainingError
from demoalign.policies.tracking import track
from demoalign.processes import is_set, world
from demoalign.progress import Meter

CHECKPOINTING = (
    "activation_checkpointing"
    if hasattr(TrainingArguments, "activation_checkpointing")
    else "gradient_checkpointing"
)
"""What transformers calls the argument: newer releases have another name."""


def shared_arguments(
    config: OptimiserConfig, device: torch.device, seed: int, folder: str
) -> dict[str, Any]:
    """Keyword arguments for transformers' ``TrainingArguments`` and its TRL children.

    Raises:
        TrainingError: the batch cannot be split among the processes.
    """
    on_cpu = device.type == "cpu"
    if config.batch_size % world():
        raise TrainingError(
            f"batch_size: must be a multiple of the number of processes, {world()}, among which a "
            f"batch is split, found {config.batch_size}"
        )
    return {
        "output_dir": folder,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size // world(),
        "gradient_accumulation_steps": config.accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_fraction,
        "weight_decay": config.weight_decay,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": on_cpu,
        "bf16": not on_cpu and _autocasts() and torch.cuda.is_bf16_supported(),
        "fp16": False,
        CHECKPOINTING: config.gradient_checkpointing,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not on_cpu,
    }


def _autocasts() -> bool:
    """Whether operations may choose bfloat16: on GPUs, but DeepSpeed would convert all weights."""
    return torch.cuda.is_available() and not is_set("ACCELERATE_USE_DEEPSPEED")


def refuse_nonfinite(loss: Tensor, stage: str, step: int) -> None:
    """Stop a training whose loss is NaN or infinite, before the weights take it in.

    Raises:
        TrainingError: with the step and what to try.
    """
    if not bool(torch.isfinite(loss.detach()).all()):
        raise TrainingError(
            f"{stage}: loss must be finite, found {loss.detach().float().mean().item()} at step "
            f"{step + 1}. The weights of the last good checkpoint are kept. Lower "
            f"{stage}.learning_rate, or set model.dtype: float32."
        )


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Moves a meter by one for every optimiser step and shows the latest loss."""

    def __init__(self, shown: Meter) -> None:
        self._shown = shown
        self._note = ""

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the latest loss for the note; pass the numbers on to who tracks them."""
        latest = (state.log_history or [{}])[-1]
        loss = latest.get("loss")
        track(self._shown.title, latest, int(state.global_step))
        self._note = f"loss {loss:.3f}" if isinstance(loss, float) else self._note

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        self._shown.advance(1, self._note)
