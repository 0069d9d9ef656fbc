"""Reward models learned from comparisons of declared sources."""

from demoalign.rewards.comparisons import Answer, Comparison
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.reward_model import RewardModel

__all__ = ["Answer", "Comparison", "DensityRatio", "RewardModel"]
