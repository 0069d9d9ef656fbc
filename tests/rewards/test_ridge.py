"""Ridge regression against fits by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from demoalign.rewards.ridge import PENALTIES, _blocks, _kept, _left_out_error, fit_ridge


def make_rows(count: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of very different sizes, true weights, targets with a constant."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.linspace(-2, 2, width, dtype=torch.float64)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64) * sizes + 3
    weights = torch.randn(width, generator=generator, dtype=torch.float64) / sizes
    jitter = torch.randn(count, generator=generator, dtype=torch.float64)
    return features, weights, features @ weights - 7 + noise * jitter


def direct(
    features: Tensor, targets: Tensor, penalty: float, scale: Tensor
) -> tuple[Tensor, float]:
    """Normal equations with a free constant; ``penalty`` is absolute, on weights times scale."""
    whole = torch.cat([features / scale, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    weight = torch.eye(whole.shape[1], dtype=torch.float64) * penalty
    weight[-1, -1] = 0
    found = torch.linalg.solve(whole.T @ whole + weight, whole.T @ targets)
    return found[:-1] / scale, float(found[-1])


def test_targets_that_are_linear_are_recovered() -> None:
    features, weights, targets = make_rows(60, 12, noise=0.0)
    fit = fit_ridge(features, targets, [i // 2 for i in range(60)])
    assert torch.allclose(fit.weights, weights, rtol=1e-8)
    assert fit.constant == pytest.approx(-7, abs=1e-7)
    assert fit.left_out_error < 1e-15


def test_it_is_the_ridge_fit_that_the_formula_says() -> None:
    features, _, targets = make_rows(40, 12, noise=2.0)
    fit = fit_ridge(features, targets, [i // 2 for i in range(40)])
    scale = features.std(0, correction=0)
    scatter = ((features - features.mean(0)) / scale).T @ ((features - features.mean(0)) / scale)
    largest = float(torch.linalg.eigvalsh(scatter)[-1])
    weights, constant = direct(features, targets, fit.penalty * largest, scale)
    assert torch.allclose(fit.weights, weights, rtol=1e-8)
    assert fit.constant == pytest.approx(constant)
    assert 1e-14 < fit.penalty < 1


def test_left_out_errors_are_those_of_fits_without_the_group() -> None:
    features, _, targets = make_rows(21, 8, noise=1.0)
    groups = [0, 0, 0, *[1 + i // 2 for i in range(18)]]
    scale = features.std(0, correction=0)
    scaled = (features - features.mean(0)) / scale
    left, singular, _ = torch.linalg.svd(scaled, full_matrices=False)
    residual = targets - targets.mean()
    labels = np.array(groups)
    for penalty in (1e-6, 1e-2, 1.0):
        kept = _kept(singular, penalty)
        fast = _left_out_error(
            left, kept, residual - left @ (kept * (left.T @ residual)), list(_blocks(groups))
        )
        slow = 0.0
        for group in set(groups):
            here = torch.from_numpy(labels == group)
            strength = penalty * float(singular[0] ** 2)
            weights, constant = direct(features[~here], targets[~here], strength, scale)
            slow += float((targets[here] - features[here] @ weights - constant).square().sum())
        assert fast == pytest.approx(slow / 21, rel=1e-8)


def test_noise_is_not_fitted_where_rows_are_fewer_than_features() -> None:
    features, weights, targets = make_rows(30, 50, noise=5.0)
    fit = fit_ridge(features, targets, range(30))
    fresh, _, _ = make_rows(500, 50, noise=0.0, seed=1)
    truth, found = fresh @ weights, fresh @ fit.weights
    least = (
        fresh @ torch.linalg.lstsq(features - features.mean(0), targets - targets.mean()).solution
    )
    assert (truth - found).var() < (truth - least).var()
    assert fit.penalty > PENALTIES[0]
    assert fit.left_out_error < 1.2


def test_features_that_do_not_vary_have_no_weight() -> None:
    features, _, targets = make_rows(20, 4, noise=0.1)
    padded = torch.cat([features, torch.full((20, 1), 5.0, dtype=torch.float64)], dim=1)
    fit, wanted = (fit_ridge(each, targets, range(20)) for each in (padded, features))
    assert fit.weights[-1] == 0
    assert torch.allclose(fit.weights[:-1], wanted.weights)


def test_features_that_are_all_alike_give_the_mean() -> None:
    fit = fit_ridge(torch.ones(4, 3), torch.tensor([1.0, 2.0, 3.0, 6.0]), range(4))
    assert (fit.weights.tolist(), fit.constant) == ([0.0] * 3, 3.0)
    assert fit.left_out_error > 1


def test_one_prompt_is_left_out_row_by_row() -> None:
    features, _, targets = make_rows(6, 2, noise=0.1)
    one, each = (fit_ridge(features, targets, groups) for groups in (["p"] * 6, range(6)))
    assert torch.equal(one.weights, each.weights)
