"""Who judges partial completions when best-of-N stops the least promising ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demoalign.config import RejectionConfig, RolloutsConfig
from demoalign.improve.selector import Selector, StateReader, reads_states
from demoalign.policies.policy import Policy
from demoalign.rollouts.rejection import Partial, Rejection

KEEP = {"gentle": 0.75, "moderate": 0.5, "aggressive": 0.25}
"""Share of the completions still going on that survives a checkpoint."""


def make_rejection(
    config: RejectionConfig, rollouts: RolloutsConfig, policy: Policy, selector: Selector, n: int
) -> Rejection:
    """Speculative rejection as the recipe asks for it.

    A head on the policy's hidden states judges for nothing; any other selector reads the partial
    completions at every checkpoint, as answers that are not finished.
    """
    most = rollouts.max_new_tokens
    checkpoints = config.checkpoints or tuple(sorted({max(1, most // 4), max(1, most // 2)}))

    def by_states(partials: Sequence[Partial]) -> NDArray[np.float64]:
        assert isinstance(selector, StateReader)
        return selector.judge_states(np.stack([each.hidden for each in partials]))

    def by_text(partials: Sequence[Partial]) -> NDArray[np.float64]:
        prompts = [each.prompt for each in partials]
        return selector.score(prompts, [e.text for e in partials], [False] * len(partials))

    judge = by_states if reads_states(selector, policy) else by_text
    return Rejection(checkpoints, KEEP[config.level], min(config.cohort, n), judge)
