"""How far to extrapolate: by hand."""

from __future__ import annotations

import pytest

from demoalign.config import DecodingRatioConfig, ExtrapolateConfig
from demoalign.errors import RecipeError
from demoalign.improve.strength import Tried, choose_strength


def tried(
    proxies: tuple[float, ...], kls: tuple[float, ...], cut: tuple[float, ...] = ()
) -> list[Tried]:
    shares = cut or (0.0,) * len(proxies)
    return [
        Tried(float(i), proxy, kl, share, 10.0)
        for i, (proxy, kl, share) in enumerate(zip(proxies, kls, shares, strict=True))
    ]


@pytest.mark.parametrize(
    ("proxies", "kls", "cut", "chosen"),
    [
        ((3, 5, 8, 9), (1, 2, 6, 11), (), 2),  # 2.75, 4.5, 6.5, 6.25
        ((3, 5, 8, 9.5), (1, 2, 6, 11), (), 3),  # the last nat of reward costs 3.3 of KL
        ((3, 5, 8, 9.5), (1, 2, 6, 11), (0.0, 0.0, 0.05, 0.06), 2),
        ((3, 5, 8, 9.5), (1, 2, 6, 11), (0.1, 0.1, 0.16, 0.2), 1),
        ((3, 2, 1, 0), (1, 2, 6, 11), (), 0),  # nothing is gained
    ],
)
def test_by_hand(
    proxies: tuple[float, ...], kls: tuple[float, ...], cut: tuple[float, ...], chosen: int
) -> None:
    assert choose_strength(tried(proxies, kls, cut)).strength == chosen


def test_auto_is_for_runs() -> None:
    with pytest.raises(RecipeError, match=r"improve.strength: auto is chosen in a run"):
        _ = ExtrapolateConfig(strength="auto").settled_strength
    with pytest.raises(RecipeError, match=r"ratio.support: auto is found out in a run"):
        _ = DecodingRatioConfig(support="auto").threshold
