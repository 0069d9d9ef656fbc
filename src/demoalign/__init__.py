"""demoalign: align language models from demonstrations alone.

>>> import demoalign as da
>>> data = da.Demonstrations.read("demonstrations.jsonl")
>>> policy = da.Policy.load("runs/my-run/sft")
>>> reward = da.RewardModel.load("runs/my-run/reward/init-sft")
>>> choices = da.best_of_n(policy, reward, ["How do I reset it?"], n=16)
>>> folder = da.run(da.load_recipe("recipe.yaml"))

Names are imported when they are first used, so that ``import demoalign`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from demoalign.version import __version__

if TYPE_CHECKING:
    from demoalign.config import (
        DecodingRatioConfig,
        ExtrapolateConfig,
        RatioConfig,
        Recipe,
        RolloutsConfig,
        dump_recipe,
        load_recipe,
        parse_recipe,
    )
    from demoalign.demonstrations import Demonstrations
    from demoalign.errors import DemoalignError
    from demoalign.improve import Choice, best_of_n, extrapolate, kl_bound, trl_reward
    from demoalign.pipeline import Pipeline, run
    from demoalign.policies import Policy
    from demoalign.records import Demonstration, Metric, Preference, Rollout, Score
    from demoalign.report import write_report
    from demoalign.rewards import DensityRatio, RewardModel

_HOMES = {
    "Choice": "improve",
    "DecodingRatioConfig": "config",
    "Demonstration": "records",
    "DemoalignError": "errors",
    "Demonstrations": "demonstrations",
    "DensityRatio": "rewards",
    "ExtrapolateConfig": "config",
    "Metric": "records",
    "Pipeline": "pipeline",
    "Policy": "policies",
    "Preference": "records",
    "RatioConfig": "config",
    "Recipe": "config",
    "RewardModel": "rewards",
    "Rollout": "records",
    "RolloutsConfig": "config",
    "Score": "records",
    "best_of_n": "improve",
    "dump_recipe": "config",
    "extrapolate": "improve",
    "kl_bound": "improve",
    "load_recipe": "config",
    "parse_recipe": "config",
    "run": "pipeline",
    "trl_reward": "improve",
    "write_report": "report",
}

__all__ = [
    "Choice",
    "DecodingRatioConfig",
    "DemoalignError",
    "Demonstration",
    "Demonstrations",
    "DensityRatio",
    "ExtrapolateConfig",
    "Metric",
    "Pipeline",
    "Policy",
    "Preference",
    "RatioConfig",
    "Recipe",
    "RewardModel",
    "Rollout",
    "RolloutsConfig",
    "Score",
    "__version__",
    "best_of_n",
    "dump_recipe",
    "extrapolate",
    "kl_bound",
    "load_recipe",
    "parse_recipe",
    "run",
    "trl_reward",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its package."""
    if name not in _HOMES:
        raise AttributeError(f"module 'demoalign' has no attribute {name!r}")
    return getattr(importlib.import_module(f"demoalign.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
