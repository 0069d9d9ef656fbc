"""What the scripts of this folder share: tables between markers, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def insert(path: Path, name: str, text: str) -> None:
    """Put text between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text(encoding="utf-8")
    before, found_begin, rest = old.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{path}: needs the markers {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def interval(value: float, bounds: Sequence[float], sign: bool = False) -> str:
    """A mean with its 95 % interval."""
    mark = "+" if sign else ""
    return f"{value:{mark}.2f} [{bounds[0]:{mark}.2f}, {bounds[1]:{mark}.2f}]"


def save(figure: Figure, path: Path) -> None:
    """Store a picture; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "demoalign"}):
        FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None})
