"""The command that asks a judge about the answers of a stored run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.cli.app import app
from demoalign.cli.options import AsJson, Set, finish, price_of
from demoalign.config import JudgeConfig, load_recipe
from demoalign.console import print_judgement
from demoalign.errors import RecipeError

SECTION = "evaluation.judge."


@app.command()
def judge(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its recipe.", show_default=False)],
    policy: Annotated[
        str, typer.Option("--policy", help="Whose answers: a policy of the run, or demonstrations.")
    ],
    against: Annotated[str, typer.Option("--against", help="Whose answers they are judged with.")],
    selector: Annotated[
        str, typer.Option("--selector", help="none (first sample), greedy, or what chooses of N.")
    ] = "none",
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Candidates of --selector; all by default.")
    ] = None,
    against_selector: Annotated[
        str, typer.Option("--against-selector", help="The same for --against.")
    ] = "none",
    against_n: Annotated[
        int | None, typer.Option("--against-n", min=1, help="Candidates of --against-selector.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Address of the API, often ending in /v1.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="What the server calls the judge.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option("--template", help="File of the question; the paper's without.")
    ] = None,
    criterion: Annotated[
        str | None, typer.Option("--criterion", help="Which is more ...: helpful, harmless.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Test prompts to judge; all by default.")
    ] = None,
    controls: Annotated[
        int | None, typer.Option("--controls", help="Prompts for each kind of control pair.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Requests under way at the same time.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option("--price", metavar="IN,OUT", help="Of a million tokens: --price 2.5,10"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Folder of the results, below RUN/judge.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, and stop.")
    ] = False,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Ask a judge model which of two policies answers the test prompts better.

    Both orders are asked; a win is one in both. The key is taken from OPENAI_API_KEY. Replies are
    stored as they come: the same command goes on after an interruption, and asks nothing twice.
    Every flag about the judge has a key in `evaluation.judge` of the recipe, which --set sets too.

    Example: `demoalign judge runs/quickstart --policy sft --selector init-sft --against initial
    --base-url http://localhost:8000/v1 --model my-judge`
    """
    from demoalign.pipeline.judging import Comparison, Judging

    flags = {
        "base_url": base_url,
        "model": model,
        "template": None if template is None else str(template),
        "criterion": criterion,
        "prompts": prompts,
        "controls": controls,
        "concurrency": concurrency,
        "price": None if price is None else price_of(price),
    }
    folder, config = _settings(run, flags, overrides or [])
    wanted = Comparison((policy, selector, n), (against, against_selector, against_n))
    judging = Judging(folder, config, wanted, name)
    expected = judging.estimate()
    sys.stderr.write(expected.line("judge") + "\n")
    if estimate:
        return finish({"estimate": dataclasses.asdict(expected)}, as_json)
    summary = judging.judge()
    print_judgement(summary)
    return finish(summary, as_json)


def _settings(
    run: Path, flags: Mapping[str, Any], overrides: list[str]
) -> tuple[Path, JudgeConfig]:
    """The run's folder, and the judge of its recipe as flags change it."""
    for override in overrides:
        if not override.strip().startswith(SECTION):
            raise RecipeError(
                f"--set {override}: `demoalign judge` changes nothing of a run, so that the key "
                f"must begin with {SECTION}"
            )
    set_here = [
        f"{SECTION}{key}={json.dumps(value)}" for key, value in flags.items() if value is not None
    ]
    from demoalign.pipeline.judging import stored_recipe

    if run.is_dir():
        stored_recipe(run)
    path = run / "recipe.yaml" if run.is_dir() else run
    recipe = load_recipe(path, [*set_here, *overrides])
    if recipe.evaluation.judge is None:
        raise RecipeError(
            "--base-url and --model: needed, found neither them nor evaluation.judge in the "
            "recipe. Name an OpenAI-compatible server and the model that is to judge."
        )
    return (run if run.is_dir() else recipe.folder), recipe.evaluation.judge
