"""`demoalign` under FSDP 2 on CPUs, which torch can do and accelerate's launcher does not offer."""

from __future__ import annotations

import sys
from typing import Any

import accelerate.state
import torch
import transformers
from accelerate.utils import DistributedType

STATE: Any = accelerate.state.AcceleratorState
begin, train = STATE.__init__, transformers.Trainer.train


def begin_split(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


def train_split(self: Any, *args: Any, **kwargs: Any) -> Any:
    done = train(self, *args, **kwargs)
    weights: list[torch.nn.Parameter] = list(self.model.parameters())
    assert all(hasattr(weight, "full_tensor") for weight in weights), "nothing was split"
    return done


if __name__ == "__main__":
    STATE.__init__ = begin_split
    transformers.Trainer.train = train_split
    from demoalign.cli import main

    main(sys.argv[1:])
