"""Golden rewards, best-of-n curves, win rates and their intervals."""

from demoalign.evaluation.golden import GoldenReward, load_golden
from demoalign.evaluation.measured import Measured
from demoalign.evaluation.metrics import all_metrics

__all__ = ["GoldenReward", "Measured", "all_metrics", "load_golden"]
