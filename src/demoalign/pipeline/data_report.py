"""The data report of a recipe or of a data file alone, and files without what it found."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from demoalign.config import DemonstrationsConfig, Recipe
from demoalign.demonstrations import Stream, stream_demonstrations
from demoalign.demonstrations.collect.prompts import read_prompts
from demoalign.demonstrations.quality.look import KINDS, DataReport, Look
from demoalign.demonstrations.quality.overlap import EvaluationSet
from demoalign.demonstrations.rows import Rejected
from demoalign.errors import RecipeError
from demoalign.pipeline.data import Data
from demoalign.progress import meter
from demoalign.records import Demonstration, to_line

TEST = "the test split"
DROPPED = "dropped.jsonl"

Reasons = Mapping[int, Sequence[str]]
"""Index of a row among those looked at -> why it is dropped."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What a filter has written.

    Attributes:
        output: the rows that are kept.
        dropped: the file of those that are not, each with its reasons.
        kept, gone: how many.
    """

    output: str
    dropped: str
    kept: int
    gone: int


def look_at(
    recipe: Recipe, data: Data, specials: Iterable[str], against: Sequence[str]
) -> DataReport:
    """The report on a recipe's training demonstrations.

    Evaluation sets are its test split, the preference sets that it names, and those of
    ``against``.

    Args:
        recipe: of the run.
        data: its demonstrations.
        specials: of its tokenizer.
        against: files, folders or hub ids with prompts.

    Raises:
        DataError: an evaluation set cannot be read.
    """
    test = EvaluationSet(TEST, [row.prompt for row in data.test])
    named = [*recipe.evaluation.preferences, *against]
    look = Look([test, *evaluation_sets(named)], specials)
    with meter("look at the data", len(data.train)) as shown:
        for row in data.train:
            look.add(row)
            shown.advance()
    return look.report()


def look_at_file(config: DemonstrationsConfig, against: Sequence[str]) -> DataReport:
    """The report on a data file alone, in memory that hardly grows with it.

    Raises:
        DataError: it or an evaluation set cannot be read.
    """
    look = Look(evaluation_sets(against))
    for row in opened(config).rows:
        look.add(row)
    return look.report()


def opened(config: DemonstrationsConfig) -> Stream:
    """The rows of a data file."""
    return stream_demonstrations(
        config.source, format=config.format, columns=config.map, split=config.split
    )


def evaluation_sets(sources: Sequence[str]) -> list[EvaluationSet]:
    """Evaluation sets by their sources; rows without a prompt do not count."""
    return [
        EvaluationSet(each, [asked.prompt for asked in read_prompts(each, skip_invalid=True).asked])
        for each in dict.fromkeys(sources)
    ]


def reasons_of(report: DataReport, kinds: Sequence[str]) -> dict[int, list[str]]:
    """Why rows are dropped for what the report found.

    Raises:
        RecipeError: there is no such kind of finding.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise RecipeError(f"--drop: must be of {', '.join(KINDS)}, found {unknown[0]!r}")
    found: dict[int, list[str]] = defaultdict(list)
    for each in report.findings:
        if each.kind in kinds:
            found[each.index].append(f"{each.kind}: {each.what}")
    return found


def write_filtered(output: Path, rows: Iterable[Demonstration], reasons: Reasons) -> Filtered:
    """Write rows without those that are dropped, and those with their reasons.

    Args:
        output: where to; OUTPUT.dropped.jsonl beside it gets the others.
        rows: in the order of their indices.
        reasons: by index.

    Raises:
        RecipeError: ``output`` does not end in .jsonl, or exists already.
    """
    if output.suffix != ".jsonl" or output.exists():
        raise RecipeError(f"--output: must be a new file that ends in .jsonl, found {output}")
    dropped = output.with_name(f"{output.name.removesuffix('.jsonl')}.{DROPPED}")
    kept = gone = 0
    with _whole(dropped) as others, _whole(output) as stream:
        for index, row in enumerate(rows):
            why = reasons.get(index)
            if not why:
                stream.write(to_line(row) + "\n")
                kept += 1
                continue
            line = {"id": row.id, "what": list(why), "row": dataclasses.asdict(row)}
            others.write(json.dumps(line, ensure_ascii=False) + "\n")
            gone += 1
    return Filtered(str(output), str(dropped), kept, gone)


def usable(stream: Stream) -> Iterator[Demonstration]:
    """The rows of a stream that can be used."""
    return (row for row in stream.rows if not isinstance(row, Rejected))


def by_whole(data: Data, reasons: Reasons) -> dict[int, list[str]]:
    """Reasons by index among training rows, as those by index among all that were read."""
    places = {row.id: place for place, row in enumerate(data.whole.rows)}
    return {places[data.train[index].id]: list(why) for index, why in reasons.items()}


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A text file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield stream
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def report_json(report: DataReport, **more: Any) -> dict[str, Any]:
    """A report with what was made of it, for --json."""
    return report.as_json() | {key: value for key, value in more.items() if value is not None}
