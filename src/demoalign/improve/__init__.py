"""From a reward model to better answers."""

from demoalign.improve.best_of_n import (
    Choice,
    best_of_n,
    expected_best_of_n,
    kl_bound,
    order_statistic_weights,
    selection_probabilities,
)
from demoalign.improve.extrapolate import extrapolate
from demoalign.improve.trl_reward import trl_reward

__all__ = [
    "Choice",
    "best_of_n",
    "expected_best_of_n",
    "extrapolate",
    "kl_bound",
    "order_statistic_weights",
    "selection_probabilities",
    "trl_reward",
]
