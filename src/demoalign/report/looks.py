"""How selectors and policies look in every chart. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demoalign.report.words import BASELINES, ORACLE, REWARD_MODELS

LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Look:
    """Colour variable, marker and line style of one selector, the same in every chart."""

    colour: str
    marker: str
    line: LineStyle


def looks_of(selectors: Sequence[str]) -> Mapping[str, Look]:
    """The look of each selector: known names always have the same one, whatever else is there."""
    known = dict(zip(REWARD_MODELS, ("o", "s", "^", "D"), strict=True))
    base = dict(zip(BASELINES, ("x", "+", "1"), strict=True))
    lines: tuple[LineStyle, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (2, 1)))
    looks: dict[str, Look] = {}
    others = 0
    for name in selectors:
        if name in known:
            place = REWARD_MODELS.index(name)
            looks[name] = Look(f"s{place}", known[name], lines[place])
        elif name in base:
            looks[name] = Look("base", base[name], (0, (1.0, 1.5 + BASELINES.index(name))))
        elif name == ORACLE:
            looks[name] = Look("oracle", "*", "solid")
        else:
            looks[name] = Look(f"s{4 + others % 2}", "vPp<>h"[others // 2 % 6], "solid")
            others += 1
    return looks


def looks_of_policies(labels: Sequence[str]) -> Mapping[str, Look]:
    """The look of policies that stand as points beside the selectors' coloured lines."""
    return {
        label: Look("oracle", "PX*D^sHp"[place % 8], "none") for place, label in enumerate(labels)
    }
