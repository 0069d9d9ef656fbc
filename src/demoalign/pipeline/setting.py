"""What every training of a policy in a run works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demoalign.config import Recipe
from demoalign.improve.held_out import Asking, HeldOut
from demoalign.pipeline.models import Models
from demoalign.pipeline.training import save_weights
from demoalign.processes import is_main
from demoalign.rollouts.engine import PromptSpec


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one training.

    Attributes:
        recipe, models, folder: of the run and of the stage.
        asking: the policy that learns.
        prompts: that it learns from.
        held_out: that it is watched on.
    """

    recipe: Recipe
    models: Models
    folder: Path
    asking: Asking
    prompts: Sequence[PromptSpec]
    held_out: HeldOut

    def store_last(self) -> None:
        """The policy as it is now, as the last one."""
        policy = self.asking.policy
        if is_main():
            save_weights(policy.backbone, policy.adapter, self.folder / "last")
