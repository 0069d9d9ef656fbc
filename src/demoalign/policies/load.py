"""Loading base models: safetensors only, no code from model folders unless asked."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from demoalign.config import ModelConfig
from demoalign.errors import ModelError

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


NF4_BLOCK = 64
"""Weights of a row that bitsandbytes scales together at 4 bits."""


def choose_device(wanted: str) -> torch.device:
    """The device asked for; ``auto`` is the first accelerator, else the CPU.

    Raises:
        ModelError: the device does not exist here.
    """
    try:
        if wanted != "auto":
            device = torch.device(wanted)
            torch.empty(0, device=device)
            return device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model.device: must be auto, cpu or a device of this machine, found {wanted!r} "
            f"({error})"
        ) from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The weights' dtype; ``auto`` is float32 on a CPU and for full fine-tuning, else bfloat16."""
    if config.dtype != "auto":
        return _DTYPES[config.dtype]
    half = (
        device.type == "cuda" and config.adapter.kind == "lora" and torch.cuda.is_bf16_supported()
    )
    return torch.bfloat16 if half else torch.float32


def load_model(kind: Any, folder: str, config: ModelConfig, **extra: Any) -> Any:
    """Load weights with one of transformers' auto classes, in evaluation mode.

    Args:
        kind: ``AutoModelForCausalLM`` or another auto class.
        folder: model folder or hub id.
        config: device, dtype and whether code from the folder may run.
        extra: passed to ``from_pretrained``.

    Raises:
        ModelError: nothing there, pickled weights only, custom code, or a damaged file.
    """
    device = choose_device(config.device)
    check_folder(folder, config.trust_remote_code)
    try:
        model = kind.from_pretrained(
            folder,
            dtype=choose_dtype(config, device),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            **extra,
        )
    except Exception as error:
        raise ModelError(f"model {folder}: cannot be loaded: {error}") from error
    if getattr(model, "is_quantized", False):  # is where it belongs, and cannot be moved
        return model.eval()
    return model.to(device).eval()


def check_quantisation(config: ModelConfig) -> None:
    """Refuse a quantised base where bitsandbytes is not installed.

    Raises:
        ModelError: saying so.
    """
    if config.quantisation != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantisation: {config.quantisation} needs bitsandbytes, which is not "
            "installed: pip install bitsandbytes, or set quantisation: none"
        )


def load_base(config: ModelConfig) -> Any:
    """The base as a causal language model, quantised if the recipe asks for it.

    Raises:
        ModelError: as `load_model`, or bitsandbytes is not installed or cannot do it here.
    """
    from transformers import AutoModelForCausalLM

    if config.quantisation == "none":
        return load_model(AutoModelForCausalLM, config.base, config)
    check_quantisation(config)
    from transformers import BitsAndBytesConfig

    device = choose_device(config.device)
    kinds: dict[str, dict[str, Any]] = {
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": choose_dtype(config, device),
        },
        "8bit": {"load_in_8bit": True},
    }
    wanted = BitsAndBytesConfig(**kinds[config.quantisation])
    place = {"": device.index or 0} if device.type == "cuda" else {"": device.type}
    extra = {"quantization_config": wanted, "device_map": place}
    model = load_model(AutoModelForCausalLM, config.base, config, **extra)
    if config.quantisation == "4bit" and device.type == "cpu":
        _check_widths(model)
    return model


def _check_widths(model: Any) -> None:
    """Refuse what bitsandbytes multiplies on GPUs only: its blocks must not cross a row's end."""
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit) and module.in_features % NF4_BLOCK:
            raise ModelError(
                f"model.quantisation: 4bit on a CPU needs layers whose inputs are a multiple of "
                f"{NF4_BLOCK} wide, found {module.in_features} in {name}; set 8bit or none, or use "
                "a GPU"
            )


def check_folder(folder: str, trust_remote_code: bool = False) -> None:
    """Refuse a local folder that is no model, holds only pickled weights, or brings code.

    Raises:
        ModelError: saying which, and what to do.
    """
    path = Path(folder).expanduser()
    looks_local = path.is_absolute() or folder.startswith((".", "~"))
    if not path.exists():
        if looks_local:
            raise ModelError(f"model {folder}: no such folder ({path.absolute()})")
        return
    if not (path / "config.json").is_file():
        raise ModelError(f"model {folder}: a model folder needs config.json, found none in {path}")
    if not any(path.glob("*.safetensors")):
        pickled = sorted(p.name for p in [*path.glob("*.bin"), *path.glob("*.pt")])
        found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelError(
            f"model {folder}: weights must be safetensors, found {found}. A pickle can run code "
            "when it is opened; convert it where you trust it with "
            "model.save_pretrained(folder)."
        )
    text = (path / "config.json").read_text(encoding="utf-8")
    if '"auto_map"' in text and not trust_remote_code:
        raise ModelError(
            f"model {folder}: brings its own code (auto_map in config.json), which is not run. "
            "Set model.trust_remote_code: true if you have read it."
        )


def context_length(model_config: Any) -> int | None:
    """The most tokens the model can attend to, prompt and completion together, if it says."""
    text_config = model_config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
