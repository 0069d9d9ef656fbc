"""Merge an adapter into its base: one plain model folder that any tool loads."""

from __future__ import annotations

from pathlib import Path

from demoalign.errors import ModelError
from demoalign.policies.policy import Policy


def merge_policy(folder: Path, output: Path) -> None:
    """Write the merged weights and the tokenizer of a policy folder.

    Raises:
        ModelError: the folder has no adapter, or the output exists.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"merge {folder}: needs a folder with adapter_config.json, found none")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        kind = "a folder with files in it" if output.is_dir() else "a file"
        raise ModelError(f"merge --output {output}: must be a new or empty folder, found {kind}")
    policy = Policy.load(folder)
    merged = policy.backbone.peft.merge_and_unload()
    merged.save_pretrained(str(output))
    policy.backbone.tokenizer.save_pretrained(str(output))
