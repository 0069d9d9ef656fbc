"""A policy: a backbone with one adapter active, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demoalign.config import ModelConfig
from demoalign.errors import ModelError
from demoalign.policies.backbone import Backbone
from demoalign.store import read_json

INITIAL = "initial"
SFT = "sft"


@dataclass(frozen=True, slots=True)
class Policy:
    """pi(y|x) of a language model.

    Attributes:
        name: ``initial``, ``sft``, ...; its rollouts carry it.
        backbone: weights and tokenizer.
        adapter: which adapter is active; None for the bare weights.
    """

    name: str
    backbone: Backbone
    adapter: str | None = None

    @classmethod
    def load(cls, folder: str | Path, name: str = "policy", device: str = "auto") -> Policy:
        """Load a policy folder (whole model or PEFT adapter) or a hub id.

        Raises:
            ModelError: it cannot be loaded safely.
        """
        path = Path(folder)
        if (path / "adapter_config.json").is_file():
            base = read_json(path / "adapter_config.json")["base_model_name_or_path"]
            backbone = Backbone.load(ModelConfig(base=base, device=device))
            backbone.load_adapter(name, path)
            return cls(name, backbone, name)
        return cls(name, Backbone.load(ModelConfig(base=str(folder), device=device)))

    def base(self) -> Policy:
        """The initial policy on the same weights: this one with its adapter off.

        Raises:
            ModelError: it has no adapter, so what it started from is not in its weights.
        """
        if self.adapter is None:
            raise ModelError(
                f"policy {self.name}: must have an adapter to be taken off, found none. "
                "Load the initial policy from its own folder."
            )
        return Policy(INITIAL, self.backbone)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and completion together, if the model says."""
        return self.backbone.context

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute with this policy while the block runs."""
        with self.backbone.using(self.adapter):
            yield
