"""The metrics of a stored results file, whatever else is in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from demoalign.records import Metric
from demoalign.report.stored import (
    Json,
    Problems,
    interval_of,
    list_of,
    mapping_of,
    number_of,
    text_of,
    whole_of,
)


def metrics_of(results: Mapping[str, Json], problems: Problems, shown: str) -> Iterator[Metric]:
    """The metrics of a results file; ``shown`` is its name for the reader."""
    for item in list_of(results.get("metrics")):
        row = mapping_of(item)
        name, n = text_of(row.get("metric")), whole_of(row.get("n"))
        if not name or n is None or n < 1:
            problems.add(f"{shown} holds an entry without a metric name or n >= 1.")
            continue
        value, reason = number_of(row.get("value")), row.get("reason")
        if value is None and row.get("value") is not None:
            reason = "the stored value is not a finite number"
        yield Metric(
            metric=name,
            policy=text_of(row.get("policy"), "none"),
            selector=text_of(row.get("selector"), "none"),
            n=n,
            value=value,
            ci95=interval_of(row.get("ci95")),
            count=whole_of(row.get("count")) or 0,
            seed=whole_of(row.get("seed")) or 0,
            unit=text_of(row.get("unit")),
            against=text_of(row.get("against")) or None,
            reason=text_of(reason) or None,
        )
