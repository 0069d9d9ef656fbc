"""Commands on what runs have stored, and studies over many runs."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from demoalign.cli.app import app
from demoalign.cli.options import AsJson, Set, finish, shipped
from demoalign.config import load_recipe
from demoalign.console import print_results


class Dtype(enum.StrEnum):
    """What merged weights are stored in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


Push = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="Upload it to the hub.")
]
Public = Annotated[
    bool, typer.Option("--public", help="Make the repository public; private by default.")
]


@app.command()
def report(
    where: Annotated[Path, typer.Argument(help="A recipe or a run's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run from what it has stored.

    Example: `demoalign report runs/quickstart`
    """
    from demoalign.report import write_cards, write_report

    folder = where if where.is_dir() else load_recipe(where).folder
    path = write_report(folder)
    write_cards(folder)
    print_results(folder, path)
    finish({"report": str(path)}, as_json)


@app.command()
def merge(
    policy: Annotated[
        Path,
        typer.Argument(help="A folder with an adapter, as runs/NAME/sft or runs/NAME/reward/R."),
    ],
    output: Annotated[Path, typer.Option("--output", help="Where the whole model goes.")],
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Of the weights that are written.")
    ] = Dtype.float32,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: one plain model folder for other tools, with a model card.

    Example: `demoalign merge runs/quickstart/sft --output merged`
    """
    from demoalign.pipeline.sharing import merge as merge_folder

    card = merge_folder(policy, output, dtype.value)
    sys.stderr.write(f"wrote {output}\n")
    result = {"policy": str(policy), "path": str(output), "card": card and str(card)}
    finish(result | _pushed(output, push, public), as_json)


@app.command("push")
def push_folder(
    folder: Annotated[Path, typer.Argument(help="A model's folder, as runs/NAME/reward/R.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    public: Public = False,
    as_json: AsJson = False,
) -> None:
    """Upload a model as it is, with its card, to a private repository of the hub.

    Example: `demoalign push runs/quickstart/reward/init-sft me/my-reward`
    """
    finish({"folder": str(folder)} | _pushed(folder, repository, public), as_json)


def _pushed(folder: Path, repository: str | None, public: bool) -> dict[str, str]:
    """Upload a folder if a repository is named; what came of it."""
    if repository is None:
        return {}
    from demoalign.pipeline.sharing import push

    commit = push(folder, repository, public=public)
    sys.stderr.write(f"pushed {folder} to {repository}: {commit}\n")
    return {"repository": repository, "commit": commit}


@app.command()
def study(
    name: Annotated[
        str,
        typer.Argument(
            help="policies, rewards, critic, quality, transfer, amount, closed-form, alarm, "
            "heterogeneity, ensembles, optimisers, adversarial, stabilisers, irl, rejection or "
            "discriminator."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Where results.json goes.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 3,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="A recipe of your own instead of the quickstart's."),
    ] = None,
    runs_of: Annotated[
        Path | None,
        typer.Option("--runs-of", help="Output of a study whose runs are used and added to."),
    ] = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question of the embedded world, or of your own models, over seeds.

    Policies: `policies` compares ways of training on what is at hand (the paper's Figure 3),
    `optimisers` ways of training against one reward, `adversarial` divergences, `stabilisers` what
    keeps those stable, `irl` reward and policy in turns. Rewards: `rewards` compares reward models
    (Figure 4), `critic` has answers compared in pairs (Table 2), `closed-form` asks where the
    reward in closed form holds, `discriminator` how close training comes to it, `ensembles`
    whether several models doubt better than one. Demonstrations: `quality` degrades them, `amount`
    takes 10 to 10,000, `transfer` leaves families of faults out. Warnings: `alarm` and
    `heterogeneity` hold the report's diagnostics against the truth; `rejection` asks what stopping
    candidates early loses.

    Example: `demoalign study rewards --seeds 3 --output runs/rewards`
    """
    from demoalign.pipeline.studies import run_study

    asked = load_recipe(recipe or shipped("quickstart"), overrides or [])
    results = run_study(name, asked, seeds, output, runs_of, overrides or [])
    finish({"study": name, "results": str(results)}, as_json)
