"""Commands to start with: quickstart, init, validate, env."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from demoalign.cli.app import app
from demoalign.cli.options import (
    AsJson,
    advance,
    finish,
    launcher,
    launchers,
    shipped,
    shipped_recipes,
)
from demoalign.errors import RecipeError


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
    advance(shipped("quickstart"), overrides, "report", as_json)


@app.command("init")
def initialise(
    output: Annotated[Path, typer.Option("--output", help="The file to write.")] = Path(
        "recipe.yaml"
    ),
    recipe: Annotated[str, typer.Option("--recipe", help="Which recipe.")] = "own-data",
    accelerate: Annotated[
        str | None,
        typer.Option("--accelerate", help="Write a configuration of `accelerate launch` instead."),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe to start from.

    Example: `demoalign init --output recipe.yaml`
    """
    names = sorted(path.stem for path in shipped_recipes().glob("*.yaml"))
    if show:
        for name in names:
            first = shipped(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            sys.stderr.write(f"{name:<18}{first}\n")
        configs = ", ".join(launchers())
        sys.stderr.write(f"configurations of `accelerate launch` (--accelerate): {configs}\n")
        return finish({"recipes": names, "accelerate": launchers()}, as_json)
    text = (launcher(accelerate) if accelerate else shipped(recipe)).read_text(encoding="utf-8")
    if output.exists() and not force:
        raise RecipeError(f"--output {output}: exists already; pass --force to overwrite it")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    if accelerate:
        then = f"accelerate launch --config_file {output} -m demoalign run recipe.yaml"
        sys.stderr.write(f"wrote {output}; then: {then}\n")
        return finish({"accelerate": accelerate, "path": str(output)}, as_json)
    sys.stderr.write(f"wrote {output}; edit it, then: demoalign validate {output}\n")
    return finish({"recipe": recipe, "path": str(output)}, as_json)


@app.command()
def env(as_json: AsJson = False) -> None:
    """Print versions and hardware, for bug reports.

    Example: `demoalign env --json`
    """
    from demoalign.pipeline.environment import environment

    found = environment()
    for key, value in found.items():
        sys.stderr.write(f"{key}: {value}\n")
    finish(found, as_json)
