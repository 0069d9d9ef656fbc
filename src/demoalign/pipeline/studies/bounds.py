"""Discriminators that say what data and what capacity allow, on an enumerable pair."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit

from demoalign.demonstrations.render import render
from demoalign.pipeline.studies.enumerable import PROMPT, EnumerablePair
from demoalign.pipeline.studies.worlds import Array
from demoalign.policies.last_hidden import Row, last_hidden
from demoalign.rewards.comparisons import Answer


def table_logits(
    positives: Sequence[Answer], negatives: Sequence[Answer], completions: Sequence[Answer]
) -> Array:
    """(Y,) log (n_p + 1/2) - log (n_q + 1/2): a logit of its own for each completion.

    It can be anything and knows nothing but the counts, so its error falls as 1 / sqrt(n).
    """
    ups, downs = Counter(positives), Counter(negatives)
    return np.array([math.log((ups[y] + 0.5) / (downs[y] + 0.5)) for y in completions])


def best_head(pair: EnumerablePair) -> Array:
    """(Y,) logits of the linear head on p's last hidden states that endless data would give."""
    states = _last_states(pair)
    p, q = np.exp(pair.log_p), np.exp(pair.log_q)

    def slope(weights: Array) -> Array:
        gradient: Array = states.T @ ((p + q) * expit(states @ weights) - p) / 2
        return gradient

    start = np.zeros(states.shape[1])
    fitted = minimize(lambda weights: pair.bce(states @ weights), start, jac=slope, method="BFGS")
    logits: Array = states @ fitted.x
    return logits


def _last_states(pair: EnumerablePair) -> Array:
    """(Y, H) what a head on p reads."""
    backbone = pair.positive.backbone
    rows = []
    for each in pair.completions:
        tokens = render(backbone.tokenizer, PROMPT, each.completion, each.finished)
        rows.append(Row(tuple(tokens.prompt_ids), tuple(tokens.completion_ids)))
    states = torch.empty(len(rows), backbone.hidden_size, dtype=torch.float64)
    with torch.inference_mode(), pair.positive.active():
        for chunk, hidden in last_hidden(backbone.causal, rows, len(rows)):
            states[chunk] = hidden.double().cpu()
    found: Array = states.numpy()
    return found
