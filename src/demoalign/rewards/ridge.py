"""Ridge regression in closed form, its penalty chosen by the prompts that it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-14, 3))
"""Penalties that are tried, as shares of the largest eigenvalue of the features' covariance."""

CONSTANT = 1e-12
"""A feature that varies less than this share of the one that varies most has no weight."""


class RidgeFit(NamedTuple):
    """A linear fit: a target is about ``features @ weights + constant``.

    Attributes:
        weights: (H,) float64.
        constant: what was not penalised.
        penalty: the chosen one of `PENALTIES`.
        left_out_error: mean squared error on rows of groups that were left out, over the targets'
            variance: 0 is perfect, 1 what the mean alone would give.
    """

    weights: Tensor
    constant: float
    penalty: float
    left_out_error: float


def fit_ridge(features_NH: Tensor, targets_N: Tensor, groups: Sequence[object]) -> RidgeFit:
    """Minimise sum_i (t_i - c - w . x_i)^2 + penalty * v_1 * sum_j (d_j w_j)^2 over w and c.

    d_j is feature j's standard deviation, and v_1 the largest eigenvalue of the scatter of the
    features after division by d. Each penalty is judged by leaving every group out in turn, which
    needs no second fit: with H the matrix that maps targets to predictions and r the residuals,
    the residuals of a left-out group g are (I - H_gg)^-1 r_g.

    Args:
        features_NH: (N, H).
        targets_N: (N,) not all equal.
        groups: N labels; rows of one group (prompt) are left out together.
    """
    features, targets = features_NH.double(), targets_N.double()
    centre, level = features.mean(0), targets.mean()
    deviation = features.std(0, correction=0)
    varies = deviation > CONSTANT * deviation.max()
    scale = torch.where(varies, deviation, torch.ones_like(deviation))
    scaled = torch.where(varies, (features - centre) / scale, torch.zeros_like(features))
    left, singular, right = torch.linalg.svd(scaled, full_matrices=False)
    residual = targets - level
    projected = left.T @ residual
    blocks = list(_blocks(groups))
    errors = []
    for penalty in PENALTIES:
        kept = _kept(singular, penalty)
        errors.append(_left_out_error(left, kept, residual - left @ (kept * projected), blocks))
    best = min(range(len(PENALTIES)), key=errors.__getitem__)
    kept = _kept(singular, PENALTIES[best])
    steps = torch.where(kept > 0, kept / singular, torch.zeros_like(kept)) * projected
    weights = torch.where(varies, (right.T @ steps) / scale, torch.zeros_like(scale))
    variance = float(residual.square().mean())
    return RidgeFit(
        weights, float(level - centre @ weights), PENALTIES[best], errors[best] / variance
    )


def _kept(singular: Tensor, penalty: float) -> Tensor:
    """Share of each principal direction's least-squares fit that the penalty leaves."""
    squares = singular.square()
    return torch.where(squares > 0, squares / (squares + penalty * squares[0]), 0.0)


def _blocks(groups: Sequence[object]) -> Iterator[Tensor]:
    """Row numbers of groups of one size, (G, size); of single rows if there is but one group."""
    rows: dict[object, list[int]] = {}
    for number, group in enumerate(groups):
        rows.setdefault(group, []).append(number)
    if len(rows) == 1:
        rows = {number: [number] for number in range(len(groups))}
    for size in sorted({len(each) for each in rows.values()}):
        yield torch.tensor([each for each in rows.values() if len(each) == size])


def _left_out_error(
    left: Tensor, kept: Tensor, residuals: Tensor, blocks: Sequence[Tensor]
) -> float:
    """Mean squared error of every row under the fit to the other groups' rows."""
    total = 0.0
    for rows in blocks:
        ours = left[rows]
        hat = (ours * kept) @ ours.transpose(1, 2) + 1 / len(left)
        rest = torch.eye(rows.shape[1], dtype=left.dtype) - hat
        total += float(torch.linalg.solve(rest, residuals[rows]).square().sum())
    return total / len(left)
