"""Merge an adapter into its base: one plain model folder that any tool loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from demoalign.config import ModelConfig
from demoalign.errors import ModelError
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import Policy
from demoalign.store import read_json

ADAPTER = "adapter_config.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def merge_policy(folder: Path, output: Path, dtype: str = "float32") -> None:
    """Write the merged weights and the tokenizer of a policy folder.

    The sum is computed in float32 on the CPU, whatever the policy was trained in, and stored as
    safetensors in ``dtype``.

    Raises:
        ModelError: the folder has no adapter, or one that cannot be merged, or the output exists.
    """
    check_adapter(folder, output)
    base = read_json(folder / ADAPTER)["base_model_name_or_path"]
    backbone = Backbone.load(exact(base))
    backbone.load_adapter("merged", folder)
    merged = merge_layers(Policy("policy", backbone, "merged"), folder)
    merged.to(DTYPES[dtype]).save_pretrained(str(output))
    backbone.tokenizer.save_pretrained(str(output))


def exact(base: str) -> ModelConfig:
    """How a base is loaded for merging: in float32, on the CPU."""
    return ModelConfig(base=base, device="cpu", dtype="float32")


def check_adapter(folder: Path, output: Path) -> None:
    """Refuse what cannot be merged, and an output that would be overwritten.

    Raises:
        ModelError: saying what is there and what to do.
    """
    if not (folder / ADAPTER).is_file():
        whole = " (these are whole weights already)" if (folder / "config.json").is_file() else ""
        raise ModelError(f"merge {folder}: needs a folder with {ADAPTER}, found none{whole}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        kind = "a folder with files in it" if output.is_dir() else "a file"
        raise ModelError(f"merge --output {output}: must be a new or empty folder, found {kind}")
    config = read_json(folder / ADAPTER)
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise ModelError(
            f"merge {folder}: peft_type must be LORA, which adds to weights, found {kind}"
        )
    others = set(config.get("modules_to_save") or []) - {"score"}
    if others:
        raise ModelError(
            f"merge {folder}: modules_to_save must be a score head or nothing, found "
            f"{', '.join(sorted(others))}; merge it with the tool that trained it"
        )
    base = Path(str(config.get("base_model_name_or_path"))).expanduser() / "config.json"
    if base.is_file() and "quantization_config" in json.loads(base.read_text(encoding="utf-8")):
        raise ModelError(
            f"merge {folder}: its base {base.parent} is stored quantised, and sums of rounded "
            "weights are not what was trained. Set base_model_name_or_path in its "
            f"{ADAPTER} to the base in full precision."
        )


def merge_layers(policy: Policy, folder: Path) -> Any:
    """The base's causal model with the policy's adapter added to its weights.

    Raises:
        ModelError: the weights are not finite.
    """
    try:
        merged = policy.backbone.peft.merge_and_unload(
            safe_merge=True, adapter_names=[str(policy.adapter)]
        )
    except ValueError as error:
        raise ModelError(f"merge {folder}: {error}. Its training has diverged.") from error
    policy.backbone.peft = None
    return merged
