"""The command that checks a recipe, and looks at data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.cli.app import app
from demoalign.cli.options import (
    AsJson,
    Miniature,
    Set,
    SkipInvalid,
    finish,
    in_miniature,
    read_recipe,
)
from demoalign.cli.tables import print_data_report, print_filtered, print_ranking
from demoalign.config import DemonstrationsConfig, parse_recipe, with_overrides
from demoalign.console import print_validation
from demoalign.demonstrations.files import is_data_file
from demoalign.errors import RecipeError

NOWHERE = {"name": "data", "model": {"base": "none"}, "demonstrations": {}}
"""What a recipe needs besides its demonstrations, where a data file is looked at alone."""


@app.command()
def validate(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe (YAML), or a data file alone.", show_default=False)
    ],
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="An evaluation set whose prompts must not be trained on."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A finished run: what it thinks of each row.")
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", help="Which of its rewards; the first by default.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="What rows are ranked by: both, reward, loss.")
    ] = "both",
    keep_best: Annotated[
        float | None,
        typer.Option("--keep-best", help="Share of the ranked rows to keep; needs --run."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            help="Findings whose rows go: duplicate, near-duplicate, overlap, refusal, leak, pair.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the rows that are kept go (.jsonl).")
    ] = None,
    overrides: Set = None,
    skip_invalid: SkipInvalid = False,
    miniature: Miniature = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and its data without training anything; report on the data.

    Given a data file instead of a recipe, only the data is looked at, as it is read. With --run the
    rows are ranked by the reward and the loss of a finished run. What --keep-best and --drop take
    out of --output stands, with reasons, in OUTPUT.dropped.jsonl beside it.

    Example: `demoalign validate recipe.yaml --run runs/mine --keep-best 0.8 --output best.jsonl`
    """
    if (keep_best is not None or drop) and output is None:
        raise RecipeError("--output: needed with --keep-best and --drop, found nothing")
    if output is not None and keep_best is None and not drop:
        raise RecipeError("--keep-best or --drop: needed with --output, found neither")
    if keep_best is not None and (run is None or not 0 < keep_best < 1):
        raise RecipeError(
            f"--keep-best: must be between 0 and 1, and needs --run, found {keep_best} "
            f"{'without' if run is None else 'with'} --run"
        )
    if is_data_file(recipe) or recipe.is_dir():
        if run is not None:
            raise RecipeError("--run: ranks a recipe's rows, found a data file; name its recipe")
        return finish(_data(recipe, overrides or [], against or [], drop or [], output), as_json)
    from demoalign.pipeline.data_report import (
        by_whole,
        reasons_of,
        report_json,
        write_filtered,
    )
    from demoalign.pipeline.ranking import rank
    from demoalign.pipeline.validate import validate as check

    wanted = read_recipe(recipe, overrides, skip_invalid=skip_invalid)
    found = check(in_miniature(wanted) if miniature else wanted, against or [])
    reasons = reasons_of(found.report, drop or [])
    print_validation(found)
    print_data_report(found.report)
    ranking = None if run is None else rank(run, found.data.train, by, selector)
    if ranking is not None:
        print_ranking(ranking, found.data.train)
        for index, why in ranking.reasons(keep_best or 1).items():
            reasons.setdefault(index, []).extend(why)
    written = None
    if output is not None:
        written = write_filtered(output, found.data.whole.rows, by_whole(found.data, reasons))
        print_filtered(written)
    more = {
        "ranking": None if ranking is None else ranking.as_json(found.data.train),
        "filtered": None if written is None else dataclasses.asdict(written),
    }
    return finish(found.as_json() | {"data": report_json(found.report, **more)}, as_json)


def _data(
    path: Path,
    overrides: Sequence[str],
    against: Sequence[str],
    drop: Sequence[str],
    output: Path | None,
) -> dict[str, Any]:
    """Look at a data file alone."""
    from demoalign.pipeline.data_report import (
        look_at_file,
        opened,
        reasons_of,
        report_json,
        usable,
        write_filtered,
    )

    config = _data_config(path, overrides)
    report = look_at_file(config, against)
    reasons = reasons_of(report, drop)
    print_data_report(report)
    written = None
    if output is not None:
        written = write_filtered(output, usable(opened(config)), reasons)
        print_filtered(written)
    filtered = None if written is None else dataclasses.asdict(written)
    return {"source": str(path), "data": report_json(report, filtered=filtered)}


def _data_config(path: Path, overrides: Sequence[str]) -> DemonstrationsConfig:
    source = f"demonstrations.source={json.dumps(str(path))}"
    raw = with_overrides(NOWHERE, [source, *overrides])
    return parse_recipe(raw, "demoalign validate").demonstrations
