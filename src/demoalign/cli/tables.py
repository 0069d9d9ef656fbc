"""What `demoalign validate` prints about data: short tables for people, on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demoalign.demonstrations.fields import shorten
from demoalign.records import Demonstration

if TYPE_CHECKING:
    from demoalign.demonstrations.quality.look import DataReport
    from demoalign.pipeline.data_report import Filtered
    from demoalign.pipeline.ranking import Ranking

WORST, LANGUAGES = 5, 5
TITLES = {
    "duplicate": "repeat an earlier row",
    "near-duplicate": "nearly repeat one",
    "overlap": "prompt in an evaluation set",
    "refusal": "decline in words",
    "leak": "hold marks of a template",
    "pair": "from a pair that is none",
}


def print_data_report(found: DataReport) -> None:
    """Counts of what was found, with an example of each."""
    console = Console(stderr=True, highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.title, table.title_justify = "\ndata report", "left"
    table.add_row("rows", f"{found.rows:,} usable, {found.unusable:,} not", *found.reasons[:1])
    plain = found.as_json()["findings"]
    for kind, title in TITLES.items():
        examples = plain[kind]["examples"]
        example = f"{examples[0]['id']}: {examples[0]['what']}" if examples else ""
        count = plain[kind]["count"]
        share = f" ({count / found.rows:.1%})" if count else ""
        table.add_row(title, f"{count:,}{share}", escape(shorten(example)))
    for overlap in found.overlaps:
        text = f"{overlap.same:,} word for word, {overlap.near:,} nearly, of {overlap.prompts:,}"
        table.add_row(escape(f"prompts of {overlap.name}"), text, "")
    languages = list(found.languages.items())[:LANGUAGES]
    told = ", ".join(f"{name} {count:,}" for name, count in languages)
    table.add_row("language", told, "by script and stop words")
    for name, lengths in found.lengths.items():
        if lengths is not None:
            text = f"median {lengths.median:.0f}, 95 % below {lengths.p95:.0f}"
            table.add_row(name.replace("_", " "), f"{text}, most {lengths.maximum:.0f}", "")
    console.print(table)


def print_ranking(found: Ranking, rows: Sequence[Demonstration]) -> None:
    """The rows that a run thinks least of."""
    console = Console(stderr=True, highlight=False)
    worst = found.worst()
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.title = f"\nlikely low quality, by {found.by} of {len(worst):,} ranked rows"
    for column in ("row", found.reward, "loss", "completion"):
        table.add_column(escape(column))
    for each in worst[:WORST]:
        row = rows[each.index]
        cells = (row.id, f"{each.reward:.2f}", f"{each.loss:.2f}", shorten(row.completion.strip()))
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)


def print_filtered(found: Filtered) -> None:
    """What a filter has written."""
    console = Console(stderr=True, highlight=False)
    console.print(Text(f"{found.kept:,} rows kept: {found.output}"), soft_wrap=True)
    console.print(Text(f"{found.gone:,} dropped, with reasons: {found.dropped}"), soft_wrap=True)
