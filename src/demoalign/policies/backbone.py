"""One copy of the base weights that serves every policy and reward model of a run.

The initial policy is the base with adapters off; the SFT policy and each reward model are
adapters on it. Peak memory stays near one model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from demoalign.config import AdapterConfig, ModelConfig
from demoalign.errors import ModelError
from demoalign.policies.load import context_length, load_base
from demoalign.policies.tokenizer import load_tokenizer


class Backbone:
    """A causal language model and the adapters that were put on it.

    Attributes:
        base: folder or id of the base model.
        config: how it was loaded.
        causal: the transformers model; its linear layers hold the adapters once there are any.
        peft: PEFT's wrapper around ``causal``, None before the first adapter.
        tokenizer: with a pad token that is no end token.
    """

    def __init__(self, config: ModelConfig, causal: Any, tokenizer: Any) -> None:
        self.config = config
        self.base = config.base
        self.causal = causal
        self.tokenizer = tokenizer
        self.peft: Any = None
        self._active: str | None = None
        causal.config.pad_token_id = tokenizer.pad_token_id
        causal.generation_config.pad_token_id = tokenizer.pad_token_id

    @classmethod
    def load(cls, config: ModelConfig) -> Backbone:
        """Load the base model and its tokenizer.

        Raises:
            ModelError: they cannot be loaded safely.
        """
        causal = load_base(config)
        rows = causal.get_input_embeddings().num_embeddings
        tokenizer = load_tokenizer(config.base, rows, config.trust_remote_code)
        return cls(config, causal, tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.causal.parameters()).device
        return device

    @property
    def trunk(self) -> nn.Module:
        """The model without its language-model head: gives hidden states (B, T, H)."""
        trunk: nn.Module = self.causal.base_model
        return trunk

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(self.causal.config.get_text_config().hidden_size)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and completion together, if the model says."""
        return context_length(self.causal.config)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters on this backbone."""
        return tuple(self.peft.peft_config) if self.peft is not None else ()

    def add_adapter(self, name: str, config: AdapterConfig, seed: int) -> None:
        """Put a fresh LoRA adapter on the backbone; it starts as a change of exactly nothing.

        Raises:
            ModelError: PEFT does not know where to put it on this architecture.
        """
        from peft import LoraConfig

        torch.manual_seed(seed)
        lora = LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=config.target_modules,
            task_type="CAUSAL_LM",
        )
        try:
            self._attach(name, lora)
        except ValueError as error:
            raise ModelError(
                f"model.adapter.target_modules: {config.target_modules!r} does not fit "
                f"{type(self.causal).__name__}: {error}"
            ) from error

    def load_adapter(self, name: str, folder: Path) -> dict[str, torch.Tensor]:
        """Put a stored adapter on the backbone.

        Returns:
            The stored tensors that belong to no adapter layer, such as a score head's.

        Raises:
            ModelError: the folder holds no adapter that fits.
        """
        from peft import LoraConfig, set_peft_model_state_dict
        from safetensors.torch import load_file

        try:
            lora = LoraConfig.from_pretrained(str(folder))
            tensors: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
        except Exception as error:
            raise ModelError(f"adapter {folder}: cannot be loaded: {error}") from error
        lora.modules_to_save, lora.task_type, lora.inference_mode = None, "CAUSAL_LM", False
        layers = {key: value for key, value in tensors.items() if ".lora_" in key}
        try:
            self._attach(name, lora)
            found = set_peft_model_state_dict(self.peft, layers, adapter_name=name)
            if found.unexpected_keys:
                raise ValueError(f"unknown layers such as {found.unexpected_keys[0]}")
        except (ValueError, RuntimeError) as error:
            self.remove_adapter(name)
            raise ModelError(f"adapter {folder}: does not fit {self.base}: {error}") from error
        return {key: value for key, value in tensors.items() if key not in layers}

    def load_shared_adapter(self, name: str, folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
        """As `load_adapter`, but an adapter that is on the backbone already is used as it is.

        Returns:
            The adapter's name here, and the stored tensors that belong to no adapter layer.
        """
        from safetensors.torch import load_file

        weights = folder / "adapter_model.safetensors"
        tensors: dict[str, torch.Tensor] = load_file(weights) if weights.is_file() else {}
        layers = {key: value for key, value in tensors.items() if ".lora_" in key}
        for held in self.adapters:
            if layers and self._holds(held, layers, folder):
                return held, {key: value for key, value in tensors.items() if key not in layers}
        return name, self.load_adapter(name, folder)

    def save_adapter(
        self,
        name: str,
        folder: Path,
        task: str = "CAUSAL_LM",
        extra: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Store an adapter the ordinary PEFT way, with the tokenizer beside it.

        Args:
            name: which adapter.
            folder: where to; made if needed.
            task: ``CAUSAL_LM``, or ``SEQ_CLS`` with the score head in ``extra``.
            extra: further tensors by their PEFT name, ``base_model.model.score.weight``.
        """
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = get_peft_model_state_dict(
            self.peft, adapter_name=name, save_embedding_layers=False
        )
        tensors |= extra or {}
        whole = {key: whole_tensor(value).cpu().contiguous() for key, value in tensors.items()}
        save_file(whole, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        plain = self.peft.peft_config[name].to_dict()
        if not isinstance(plain["target_modules"], str):
            plain["target_modules"] = sorted(plain["target_modules"])
        plain["base_model_name_or_path"] = stable_base(self.base)
        plain["task_type"] = task
        plain["modules_to_save"] = ["score"] if task == "SEQ_CLS" else None
        plain["inference_mode"] = True
        text = json.dumps(plain, indent=2, sort_keys=True, default=_plain)
        (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
        self.tokenizer.save_pretrained(str(folder))

    def remove_adapter(self, name: str) -> None:
        """Take an adapter off again."""
        if name in self.adapters:
            self.peft.delete_adapter(name)
            self._activate(None if self._active == name else self._active)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Compute with one adapter, or with the bare base, while the block runs.

        Blocks may be nested; after one, what was active before it is active again. Outside of
        all of them the bare base is.

        Raises:
            ModelError: no such adapter.
        """
        if adapter is not None and adapter not in self.adapters:
            raise ModelError(f"adapter {adapter!r}: not on this backbone, has {self.adapters}")
        before = self._active
        if adapter != before:
            self._activate(adapter)
        try:
            yield
        finally:
            if before != self._active:
                self._activate(before if before in self.adapters else None)

    def _activate(self, adapter: str | None) -> None:
        if adapter is not None:
            self.peft.base_model.enable_adapter_layers()
            self.peft.set_adapter(adapter)
        elif self.adapters:
            self.peft.base_model.disable_adapter_layers()
        self._active = adapter

    def _holds(self, held: str, layers: dict[str, torch.Tensor], folder: Path) -> bool:
        """Whether an adapter on the backbone is the stored one, to the last bit."""
        from peft import LoraConfig, get_peft_model_state_dict

        ours, theirs = self.peft.peft_config[held], LoraConfig.from_pretrained(str(folder))
        if (ours.r, ours.lora_alpha) != (theirs.r, theirs.lora_alpha):
            return False
        state = get_peft_model_state_dict(self.peft, adapter_name=held, save_embedding_layers=False)
        return state.keys() == layers.keys() and all(
            torch.equal(state[key].cpu(), value) for key, value in layers.items()
        )

    def _attach(self, name: str, lora: Any) -> None:
        from peft import get_peft_model

        self.remove_adapter(name)
        if self.peft is None:
            self.peft = get_peft_model(self.causal, lora, adapter_name=name)
        else:
            self.peft.add_adapter(name, lora)
        self._activate(self._active)


def stable_base(base: str) -> str:
    """A local base's absolute path, a hub id unchanged: what other loaders can follow."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be split among processes (FSDP) as one; all of them must ask."""
    gathered = getattr(tensor.detach(), "full_tensor", None)
    return tensor.detach() if gathered is None else gathered().clone()  # which waits for its parts


def is_split(module: torch.nn.Module) -> bool:
    """Whether processes hold parts of a module's weights (FSDP), so that only all can use it."""
    return any(hasattr(weight, "full_tensor") for weight in module.parameters())


def _plain(value: object) -> object:
    if isinstance(value, set):
        return sorted(value)
    return str(value)
