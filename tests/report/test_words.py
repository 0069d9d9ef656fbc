"""Numbers and names as the reader sees them."""

from __future__ import annotations

import pytest

from demoalign.records import Metric
from demoalign.report.words import (
    Style,
    cell,
    in_order,
    kind_of,
    spoken_name,
    write,
    write_list,
    write_seconds,
)


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        (0.926, "number", "0.93"),
        (-0.5, "number", "\u22120.50"),
        (0.5, "signed", "+0.50"),
        (0.0, "signed", "0.00"),
        (-1e-17, "signed", "0.00"),
        (0.003, "number", "0.0030"),
        (123.456, "number", "123.5"),
        (5432.1, "number", "5432"),
        (0.634, "percent", "63%"),
        (0.034, "percent", "3.4%"),
        (0.0, "percent", "0%"),
        (34.04, "tokens", "34.0"),
    ],
)
def test_write(value: float, style: Style, text: str) -> None:
    assert write(value, style) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.54, "2.5 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7260, "2 h 1 min")],
)
def test_write_seconds(seconds: float, text: str) -> None:
    assert write_seconds(seconds) == text


def test_a_missing_value_is_a_reason_and_never_a_number() -> None:
    null = Metric("m", "sft", "none", 1, None, None, 0, 0, "", None, "no judge")
    assert (cell(null).text, cell(null).reason) == (None, "no judge")
    assert cell(None).text is None
    zero = Metric("m", "sft", "none", 1, 0.0, (-1.0, 1.0), 5, 0, "")
    assert (cell(zero).text, cell(zero).interval) == ("0.00", "[\u22121.00, 1.00]")


def test_order_and_kinds_of_selectors() -> None:
    names = ["golden", "length", "zeta", "preference", "init-sft", "none", "greedy", "alpha"]
    assert in_order(names) == ["init-sft", "preference", "alpha", "zeta", "length", "golden"]
    assert [kind_of(name) for name in ("zeta", "length", "golden")] == [
        "reward model",
        "baseline",
        "upper bound",
    ]


def test_write_list() -> None:
    assert [write_list(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("sft", "the SFT policy"),
        ("ppo", "the PPO policy"),
        ("adversarial", "the adversarial policy"),
        ("mine", "the mine"),
    ],
)
def test_names_within_sentences(policy: str, name: str) -> None:
    assert spoken_name(policy) == name
