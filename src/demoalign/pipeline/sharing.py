"""Giving models away: merged folders with a card, and uploads that somebody asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demoalign.errors import ModelError, StoreError
from demoalign.policies.merge import ADAPTER, merge_policy
from demoalign.report.card import card, run_of
from demoalign.report.read import read_run
from demoalign.rewards.merge import merge_reward
from demoalign.store import CARD, read_json, write_text

BASE = "base_model_name_or_path"
SHARED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "demoalign.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    CARD,
)
"""What is uploaded of a folder: weights, tokenizer, card. Rollouts, manifests and logs are not."""


def merge(folder: Path, output: Path, dtype: str = "float32") -> Path | None:
    """Merge a policy's or a reward model's adapter; add a card if the folder is a run's.

    Returns:
        The card, or None if the folder belongs to no run.

    Raises:
        ModelError: it cannot be merged.
    """
    config = read_json(folder / ADAPTER) if (folder / ADAPTER).is_file() else {}
    is_reward = config.get("task_type") == "SEQ_CLS"
    (merge_reward if is_reward else merge_policy)(folder, output, dtype)
    run = run_of(folder)
    if run is None:
        return None
    write_text(output / CARD, card(read_run(run), run, folder, merged=output))
    return output / CARD


def is_local(adapter: Mapping[str, Any]) -> bool:
    """Whether an adapter's configuration names a base that is a folder here."""
    return Path(str(adapter.get(BASE, ""))).is_absolute()


def push(folder: Path, repo: str, *, public: bool = False) -> str:
    """Upload a model folder to the hub, into a private repository unless asked otherwise.

    The hub is HF_ENDPOINT's, the token HF_TOKEN's or that of `hf auth login`; it is sent to the hub
    and written nowhere. Only files of `SHARED` are sent.

    Returns:
        The address of the commit.

    Raises:
        ModelError: the folder holds no model.
        StoreError: there is no token, or the hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if not any((folder / name).is_file() for name in ("config.json", ADAPTER)):
        raise ModelError(f"--push: needs a model folder with config.json or {ADAPTER}: {folder}")
    if is_local(config := read_json(folder / ADAPTER) if (folder / ADAPTER).is_file() else {}):
        raise StoreError(
            f"--push: {folder} adapts {config[BASE]}, a folder of this machine that nobody "
            "else has. Share the whole model: demoalign merge FOLDER --output DIR --push REPO"
        )
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise StoreError(f"--push: must be OWNER/NAME, found {repo!r}")
    token = os.environ.get("HF_TOKEN") or get_token()
    if not token:
        raise StoreError(
            "--push: needs a token that may write, found none. Set HF_TOKEN or run `hf auth login`."
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        found = api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            allow_patterns=list(SHARED),
            commit_message=f"Model {folder.name}",
        )
    except Exception as error:  # of the client, of the network or of the hub
        text = str(error).replace(token, "***").strip() or type(error).__name__
        raise StoreError(f"--push {repo}: {text.splitlines()[0]}") from error
    return str(getattr(found, "commit_url", found))
