"""How far to extrapolate: by hand."""

from __future__ import annotations

import pytest

from demoalign.config import DecodingRatioConfig, ExtrapolateConfig
from demoalign.errors import RecipeError
from demoalign.improve.strength import Tried, choose_strength


def tried(*proxies: float, cut: tuple[float, ...] = ()) -> list[Tried]:
    shares = cut or (0.0,) * len(proxies)
    return [
        Tried(float(i), proxy, share, 10.0)
        for i, (proxy, share) in enumerate(zip(proxies, shares, strict=True))
    ]


@pytest.mark.parametrize(
    ("proxies", "cut", "chosen"),
    [
        ((1.0, 5.0, 9.9, 10.0), (), 2),  # 8.9 of 9 gained
        ((1.0, 5.0, 9.0, 10.0), (), 3),  # 8 of 9 are not enough
        ((1.0, 9.8, 9.9, 10.0), (), 1),
        ((1.0, 5.0, 9.9, 10.0), (0.0, 0.0, 0.06, 0.0), 3),
        ((1.0, 5.0, 9.9, 10.0), (0.1, 0.1, 0.14, 0.2), 2),
        ((1.0, 0.5, 0.2, 0.1), (), 0),  # nothing is gained
    ],
)
def test_by_hand(proxies: tuple[float, ...], cut: tuple[float, ...], chosen: int) -> None:
    assert choose_strength(tried(*proxies, cut=cut)).strength == chosen


def test_auto_is_for_runs() -> None:
    with pytest.raises(RecipeError, match=r"improve.strength: auto is chosen in a run"):
        _ = ExtrapolateConfig(strength="auto").settled_strength
    with pytest.raises(RecipeError, match=r"ratio.support: auto is found out in a run"):
        _ = DecodingRatioConfig(support="auto").threshold
