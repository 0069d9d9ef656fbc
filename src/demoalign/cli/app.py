"""The command line itself. Heavy libraries are imported only by the command that needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from demoalign.console import quiet_libraries
from demoalign.errors import DemoalignError
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

SPINS = "5000"
"""How often a waiting thread of libgomp looks again before it sleeps."""


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


def _share_cores() -> None:
    """Let threads that wait for others spin for a moment only, where the user has not said.

    Spinning as long as OpenMP does by default makes a training step 3.6 times slower beside one
    other busy process; not spinning at all makes it 1.7 times slower alone (docs/LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0 only when the work was done."""
    _share_cores()
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
