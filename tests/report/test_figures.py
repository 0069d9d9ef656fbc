"""Drawings: self-contained, themable, with ids of their own, the same bytes every time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from demoalign.report.figures import (
    VARIABLES,
    Bar,
    Point,
    Series,
    bar_chart,
    forest,
    histogram,
    line_chart,
    scatter,
    swatch,
)
from demoalign.report.looks import looks_of

NAMES = ["init-sft", "init-demo", "sft-demo", "preference", "mine", "length", "golden"]


def lines(chart: str = "c") -> str:
    series = [
        Series(name, tuple(Point(n, i + n / 9, (i + n / 9 - 0.1, i + n / 9 + 0.1)) for n in (1, 8)))
        for i, name in enumerate(NAMES)
    ]
    return line_chart(
        chart, "Words & <more>.", series, looks_of(NAMES), x_label="n", log2=True,
        references={"demos": 1.0, "greedy": 1.01},
    )  # fmt: skip


def every_chart() -> dict[str, str]:
    bars = [Bar("a $x_1$ <b>", Point(0, 1.0, (0.5, 1.5)), "s0", "1.00")]
    bars.append(Bar("b", Point(0, -1.0, None), "base", "-1.00"))
    return {
        "line": lines("line"),
        "bar": bar_chart("bar", "d", [bars, []], "x"),
        "forest": forest("forest", "d", [bars, bars], "x"),
        "hist": histogram("hist", "d", {"sft": [1.0, 2.0], "other": [1.5]}, "x"),
        "scatter": scatter("scatter", "d", {"sft": [(1.0, 2.0)]}, "x", "y"),
        "swatch": swatch("swatch", looks_of(["length"])["length"]),
    }


def test_drawings_are_well_formed_and_refer_only_to_themselves() -> None:
    seen: set[str] = set()
    for chart, svg in every_chart().items():
        ElementTree.fromstring(svg)
        assert "http" not in svg
        assert "<style" not in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that no theme can change"
        assert "font-family" not in svg
        assert not re.search(r"\bnan\b", svg)
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert all(name == chart or name.startswith(f"{chart}-") for name in ids)
        assert set(re.findall(r'href="#([^"]+)"', svg)) <= ids
        assert not ids & seen
        seen |= ids


def test_the_same_input_gives_the_same_bytes() -> None:
    assert lines() == lines()


def test_names_from_data_are_text_and_never_markup_or_mathematics() -> None:
    svg = every_chart()["bar"]
    assert "a $x_1$ &lt;b&gt;" in svg
    assert 'aria-label="Words &amp; &lt;more&gt;."' in lines()


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [0.0, 1e6]])
def test_degenerate_histograms_are_drawn(values: list[float]) -> None:
    assert histogram("h", "d", {"sft": values}, "x").startswith("<svg ")


def test_a_selector_looks_the_same_whatever_stands_beside_it() -> None:
    alone, together = looks_of(["sft-demo"]), looks_of(NAMES)
    assert alone["sft-demo"] == together["sft-demo"]
    assert len({(look.colour, look.marker, look.line) for look in together.values()}) == len(NAMES)
    assert {look.colour for look in together.values()} <= set(VARIABLES)
