"""What collecting leaves behind, all beside the output::

OUTPUT.jsonl             demonstrations, in the order of the prompts
OUTPUT.rejected.jsonl    every prompt without one: {where, what, kind, row}
OUTPUT.replies.jsonl     every reply as it came, by a key of all that could change it
OUTPUT.summary.json      what `demoalign collect --json` prints
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.demonstrations.collect.answers import OPEN, Missing
from demoalign.demonstrations.collect.prompts import Prompts
from demoalign.demonstrations.fields import plain
from demoalign.errors import RecipeError
from demoalign.records import Demonstration, write_records
from demoalign.store import hold, write_json, write_text

REJECTED, REPLIES, SUMMARY, SAMPLED = "rejected.jsonl", "replies.jsonl", "summary.json", "sampled"


@dataclass(frozen=True, slots=True)
class Files:
    """Where the results of one output go."""

    output: Path

    def beside(self, ending: str) -> Path:
        """A file of the same name with another ending."""
        return self.output.with_name(f"{self.output.name.removesuffix('.jsonl')}.{ending}")

    def check(self) -> None:
        """Refuse to write over a file that was not collected.

        Raises:
            RecipeError: there is one.
        """
        if self.output.exists() and not self.beside(SUMMARY).is_file():
            raise RecipeError(
                f"collect.output: must be new, or have been collected here before, found "
                f"{self.output} without {self.beside(SUMMARY).name}. Name another file."
            )

    def held(self) -> AbstractContextManager[None]:
        """Hold the output against a second process, which would pay for the same again."""
        lock = self.output.with_name(f".{self.output.name}.lock")
        return hold(lock, self.output, "output")


def unusable(prompts: Prompts) -> list[Missing]:
    """Rows of the source that are not asked about."""
    unreadable = [
        Missing(each.where, "unreadable", each.what, each.row) for each in prompts.unreadable
    ]
    return unreadable + [
        Missing(each.where, "repeated", each.what, each.row) for each in prompts.repeated
    ]


def write_results(
    files: Files,
    prompts: Prompts,
    outcomes: Sequence[Demonstration | Missing],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write output, rejected prompts and summary; return the summary.

    Args:
        files: where to.
        prompts: what was read.
        outcomes: one for each prompt asked about, in order.
        about: the demonstrator, what it has cost, and why it ended early (``stopped``).
    """
    rows = [each for each in outcomes if isinstance(each, Demonstration)]
    missing = [*unusable(prompts), *(each for each in outcomes if isinstance(each, Missing))]
    lines = [
        json.dumps(
            {"where": each.where, "what": each.what, "kind": each.kind, "row": plain(each.row)},
            ensure_ascii=False,
        )
        for each in missing
    ]
    kinds = Counter(each.kind for each in missing)
    summary = {
        "output": str(files.output),
        "prompts": prompts.rows,
        "rows": len(rows),
        "missing": len(missing),
        "unanswered": sum(kinds[kind] for kind in OPEN),
        "reasons": dict(kinds.most_common()),
        "rejected": str(files.beside(REJECTED)),
        **about,
    }
    write_json(files.beside(SUMMARY), summary)
    write_text(files.beside(REJECTED), "".join(line + "\n" for line in lines))
    write_records(files.output, rows)
    return summary
