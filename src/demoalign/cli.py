"""The command line. Heavy libraries are imported only by the command that needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.config import Recipe, load_recipe
from demoalign.console import (
    print_results,
    print_stages,
    print_validation,
    quiet_libraries,
)
from demoalign.errors import DemoalignError, RecipeError
from demoalign.version import __version__

app = typer.Typer(
    name="demoalign",
    help="Align language models from demonstrations alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

INTERRUPTED = 130
"""Exit status after Ctrl-C, into which typer turns a KeyboardInterrupt."""

RecipePath = Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key: sft.epochs=3"),
]
SkipInvalid = Annotated[
    bool,
    typer.Option("--skip-invalid", help="Go on without unusable rows; they go to rejected.jsonl."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Override the recipe's seed.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"demoalign {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Align language models from demonstrations alone."""


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option("--output", help="Where runs go.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", help="Of data, training and sampling.")] = 0,
    dial: Annotated[
        float, typer.Option("--dial", min=0.0, max=1.0, help="Heterogeneity of demonstrations.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the whole method on embedded data: no download, no GPU, under three minutes.

    Example: `demoalign quickstart --output runs --dial 1`
    """
    overrides = [f"output={json.dumps(str(output))}", f"seed={seed}", f"demonstrations.dial={dial}"]
    _advance(_shipped("quickstart"), overrides, "report", as_json)


@app.command("init")
def initialise(
    output: Annotated[Path, typer.Option("--output", help="The file to write.")] = Path(
        "recipe.yaml"
    ),
    recipe: Annotated[str, typer.Option("--recipe", help="Which recipe.")] = "own-data",
    show: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe to start from.

    Example: `demoalign init --output recipe.yaml`
    """
    names = sorted(path.stem for path in _recipes().glob("*.yaml"))
    if show:
        for name in names:
            first = _shipped(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            sys.stderr.write(f"{name:<14}{first}\n")
        return _finish({"recipes": names}, as_json)
    text = _shipped(recipe).read_text(encoding="utf-8")
    if output.exists() and not force:
        raise RecipeError(f"--output {output}: exists already; pass --force to overwrite it")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    sys.stderr.write(f"wrote {output}; edit it, then: demoalign validate {output}\n")
    return _finish({"recipe": recipe, "path": str(output)}, as_json)


@app.command()
def validate(
    recipe: RecipePath,
    overrides: Set = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and its data without training anything.

    Example: `demoalign validate recipe.yaml`
    """
    from demoalign.pipeline.validate import validate as check

    found = check(_recipe(recipe, overrides, skip_invalid=skip_invalid))
    print_validation(found)
    _finish(found.as_json(), as_json)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe; stages that are up to date are not run again.

    Example: `demoalign run recipe.yaml --set sft.epochs=3`
    """
    _advance(recipe, _flags(overrides, seed, skip_invalid), "report", as_json)


def _stage_command(name: str, stage: str, summary: str) -> None:
    def command(
        recipe: RecipePath,
        overrides: Set = None,
        seed: Seed = None,
        skip_invalid: SkipInvalid = False,
        as_json: AsJson = False,
    ) -> None:
        _advance(recipe, _flags(overrides, seed, skip_invalid), stage, as_json)

    command.__doc__ = f"{summary}\n\n    Example: `demoalign {name} recipe.yaml`"
    app.command(name)(command)


_stage_command("sft", "sft", "Fine-tune the initial policy on the demonstrations.")
_stage_command("sample", "rollouts", "Sample the initial and the SFT policy on training prompts.")
_stage_command("reward", "reward", "Train the reward models.")
_stage_command("improve", "improve", "Make a better policy and sample it on the test prompts.")
_stage_command("evaluate", "evaluation", "Measure everything on the test prompts.")


@app.command("best-of-n")
def best_of_n(
    recipe: RecipePath,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Answer these prompts instead of the test set.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the chosen answers go (JSONL).")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates a prompt.")] = 16,
    selector: Annotated[
        str | None, typer.Option("--selector", help="Which reward model; the first by default.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="Who answers: sft, extrapolated or distilled.")
    ] = "sft",
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Choose the best of N candidates on the test prompts, or on prompts of your own.

    Example: `demoalign best-of-n recipe.yaml --prompts prompts.jsonl --output best.jsonl --n 16`
    """
    flags = _flags(overrides, seed, skip_invalid)
    if prompts is None:
        return _advance(recipe, flags, "best-of-n", as_json)
    from demoalign.pipeline.answer import answer_prompts

    if output is None:
        raise RecipeError("--output: needed with --prompts, found nothing; name a .jsonl file")
    wanted = load_recipe(recipe, flags)
    counts = answer_prompts(wanted, prompts, output, n, selector, policy)
    sys.stderr.write(f"{counts['answers']} answers in {output}\n")
    return _finish({**counts, "path": str(output), "n": n}, as_json)


@app.command()
def report(
    where: Annotated[Path, typer.Argument(help="A recipe or a run's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run from what it has stored.

    Example: `demoalign report runs/quickstart`
    """
    from demoalign.report import write_report

    folder = where if where.is_dir() else load_recipe(where).folder
    path = write_report(folder)
    print_results(folder, path)
    _finish({"report": str(path)}, as_json)


@app.command()
def merge(
    policy: Annotated[
        Path, typer.Argument(help="A policy folder with an adapter, as runs/NAME/sft.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Where the whole model goes.")],
    as_json: AsJson = False,
) -> None:
    """Merge a policy's adapter into its base: one plain model folder for other tools.

    Example: `demoalign merge runs/quickstart/sft --output merged`
    """
    from demoalign.policies.merge import merge_policy

    merge_policy(policy, output)
    sys.stderr.write(f"wrote {output}\n")
    _finish({"policy": str(policy), "path": str(output)}, as_json)


@app.command()
def env(as_json: AsJson = False) -> None:
    """Print versions and hardware, for bug reports.

    Example: `demoalign env --json`
    """
    from demoalign.pipeline.environment import environment

    found = environment()
    for key, value in found.items():
        sys.stderr.write(f"{key}: {value}\n")
    _finish(found, as_json)


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(help="reward-models, rejection, discriminator or closed-form.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Where results.json goes.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 3,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question of the embedded world over seeds.

    `reward-models` repeats the paper's comparison of reward models at three dials; `rejection`
    asks what stopping candidates early saves and loses; `discriminator` how close training comes
    to the reward in closed form, on two policies whose completions can all be written down;
    `closed-form` where that reward and decoding by it hold, and where they fail.

    Example: `demoalign study reward-models --seeds 3 --output runs/study`
    """
    from demoalign.pipeline.studies import run_study

    results = run_study(name, load_recipe(_shipped("quickstart"), overrides or []), seeds, output)
    _finish({"study": name, "results": str(results)}, as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0 only when the work was done."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet_libraries()
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except (DemoalignError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            sys.stderr.write("interrupted; run the same command again to go on\n")
        raise


def _advance(path: Path, overrides: Sequence[str], target: str, as_json: bool) -> None:
    from demoalign.pipeline import Pipeline

    pipeline = Pipeline(load_recipe(path, overrides))
    outcomes = pipeline.advance(target)
    print_stages(outcomes)
    result: dict[str, Any] = {
        "run": str(pipeline.run.folder),
        "stages": [
            {"stage": each.stage, "status": each.status, "seconds": each.seconds}
            for each in outcomes
        ],
    }
    if target == "report":
        print_results(pipeline.run.folder, pipeline.report)
        result["report"] = str(pipeline.report)
    _finish(result, as_json)


def _recipe(path: Path, overrides: Sequence[str] | None, *, skip_invalid: bool) -> Recipe:
    return load_recipe(path, _flags(overrides, None, skip_invalid))


def _flags(overrides: Sequence[str] | None, seed: int | None, skip_invalid: bool) -> list[str]:
    flags = list(overrides or [])
    if seed is not None:
        flags.append(f"seed={seed}")
    if skip_invalid:
        flags.append("demonstrations.skip_invalid=true")
    return flags


def _recipes() -> Path:
    return Path(__file__).parent / "recipes"


def _shipped(name: str) -> Path:
    path = _recipes() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in _recipes().glob("*.yaml")))
        raise RecipeError(f"--recipe: must be one of {known}, found {name!r}")
    return path


def _finish(result: Any, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
