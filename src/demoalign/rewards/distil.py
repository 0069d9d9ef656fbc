"""Distillation: a reward model that learns to say what another reward says, in one pass.

The student is fitted by least squares to the teacher's scores of the completions of its sources. A
reward's constant is worth nothing: best-of-N compares completions, and a bias-free head, as
sequence classifiers have it, could not hold one. So what is stored says the teacher's score less a
constant, in the teacher's own unit; the constant is told beside it (`Lesson.offset`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from demoalign.config import ModelConfig, RewardConfig
from demoalign.errors import TrainingError
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import Policy
from demoalign.rewards.comparisons import Comparison
from demoalign.rewards.heads import last_states
from demoalign.rewards.packing import RenderedPair
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.ridge import fit_ridge
from demoalign.rewards.scorers import Scorer, SharedScorer, linear_head
from demoalign.rewards.train import fresh_scorer, render_pairs, train_scorer

Array = NDArray[np.float64]

FLAT = 1e-9
"""A teacher's deviation must be more than this share of its largest score."""


class Lesson(NamedTuple):
    """What came of a distillation.

    Attributes:
        model: the student.
        losses: mean squared errors in training, over the variance of the teacher's scores: 1 is
            what their mean alone would give.
        offset: the teacher's score is about the student's plus this.
        deviation: of the teacher's scores of the training completions.
        penalty: that of the ridge fit (see `fit_ridge`), for a head.
        left_out_error: mean squared error on training prompts that the fit left out in turn, in
            the unit of ``losses``, for a head.
    """

    model: RewardModel
    losses: list[float]
    offset: float
    deviation: float
    penalty: float | None = None
    left_out_error: float | None = None


def distil(
    config: RewardConfig,
    model_config: ModelConfig,
    backbone: Backbone,
    sft: Policy | None,
    comparisons: Sequence[Comparison],
    scores_B2: Array,
    seed: int,
    name: str,
) -> Lesson:
    """Fit a reward model to a teacher's scores.

    ``head``: ridge regression in float64 with a free constant, which is then left out. ``adapter``
    and ``full``: by gradient descent on the scores less their mean, over their deviation; the head
    is multiplied by the deviation in the end, so that settings do not depend on the teacher's unit.

    Args:
        config, model_config, backbone, sft, comparisons, seed, name: as in `train_reward_model`.
        scores_B2: (B, 2) what the teacher says of each comparison's positive and negative.

    Raises:
        TrainingError: the teacher's scores are not finite, or all the same; the loss is no longer
            finite.
    """
    _check_scores(scores_B2, name, str(config.distils))
    pairs = render_pairs(backbone.tokenizer, comparisons, config.max_length)
    if config.model == "head":
        if sft is None:
            raise TrainingError("reward.model: head needs the SFT policy, found none")
        prompts = [pair.prompt_id for pair in comparisons]
        return _distil_head(config, sft, pairs, prompts, scores_B2, name)
    level, deviation = float(scores_B2.mean()), float(scores_B2.std())
    targets = (scores_B2 - level) / deviation
    taught = [
        dataclasses.replace(pair, targets=(float(up), float(down)))
        for pair, (up, down) in zip(pairs, targets, strict=True)
    ]
    scorer = fresh_scorer(config, model_config, backbone, seed, name)
    losses = train_scorer(config, scorer, backbone, taught, seed, name)
    _scale_head(scorer, deviation)
    return Lesson(RewardModel(name, scorer, backbone.tokenizer), losses, level, deviation)


def _check_scores(scores_B2: Array, name: str, teacher: str) -> None:
    if wrong := int((~np.isfinite(scores_B2)).sum()):
        raise TrainingError(
            f"reward {name}: every score of {teacher} must be finite, found {wrong} of "
            f"{scores_B2.size} that are not"
        )
    if scores_B2.std() <= FLAT * np.abs(scores_B2).max():
        raise TrainingError(
            f"reward {name}: {teacher} must tell completions apart, found that it scores all "
            f"{scores_B2.size} of its sources {scores_B2.flat[0]:.6g}: there is nothing to learn"
        )


def _distil_head(
    config: RewardConfig,
    sft: Policy,
    pairs: Sequence[RenderedPair],
    prompts: Sequence[str],
    scores_B2: Array,
    name: str,
) -> Lesson:
    backbone = sft.backbone
    head = linear_head(backbone.hidden_size, 0, backbone.device)
    scorer = SharedScorer(backbone, sft.adapter, head)
    states = torch.cat(last_states(scorer, pairs, config.batch_size, name))
    targets = torch.from_numpy(np.concatenate([scores_B2[:, 0], scores_B2[:, 1]]))
    if not bool(torch.isfinite(states).all()):
        raise TrainingError(f"reward {name}: hidden states of the SFT policy must be finite")
    fit = fit_ridge(states, targets, [*prompts, *prompts])
    with torch.no_grad():
        head.weight.copy_(fit.weights[None].float())
    errors = states @ fit.weights + fit.constant - targets
    loss = float(errors.square().mean() / targets.var(correction=0))
    model = RewardModel(name, scorer, backbone.tokenizer)
    deviation = float(scores_B2.std())
    return Lesson(model, [loss], fit.constant, deviation, fit.penalty, fit.left_out_error)


def _scale_head(scorer: Scorer, factor: float) -> None:
    head = scorer.head if isinstance(scorer, SharedScorer) else scorer.model.score
    with torch.no_grad():
        for weight in head.parameters():
            weight.mul_(factor)
