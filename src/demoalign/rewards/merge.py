"""Merge a reward model's adapter into its base: one plain sequence classifier."""

from __future__ import annotations

from pathlib import Path

from demoalign.errors import ModelError
from demoalign.policies.backbone import Backbone
from demoalign.policies.merge import ADAPTER, DTYPES, check_adapter, exact, merge_layers
from demoalign.policies.policy import Policy
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer
from demoalign.store import read_json


def merge_reward(folder: Path, output: Path, dtype: str = "float32") -> None:
    """Write merged weights with the reward's head, and the tokenizer, as `RewardModel.save` does.

    Raises:
        ModelError: the folder has no adapter, or one that cannot be merged, or the output exists.
    """
    check_adapter(folder, output)
    backbone = Backbone.load(exact(read_json(folder / ADAPTER)["base_model_name_or_path"]))
    model = RewardModel.load(folder, "merged", "cpu", backbone)
    scorer = model.scorer
    if not isinstance(scorer, SharedScorer):
        raise ModelError(f"merge {folder}: needs an adapter reward model, found whole weights")
    merged = merge_layers(Policy("reward", backbone, scorer.adapter), folder)
    merged.to(DTYPES[dtype])
    scorer.adapter = None
    model.save(output)
