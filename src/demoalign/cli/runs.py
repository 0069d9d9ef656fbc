"""Commands that run a recipe, or some of its stages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from demoalign.cli.app import app
from demoalign.cli.options import (
    AsJson,
    Miniature,
    RecipePath,
    Seed,
    Set,
    SkipInvalid,
    advance,
    finish,
    flags_of,
    go,
    in_miniature,
)
from demoalign.config import IMPROVED, load_recipe
from demoalign.errors import RecipeError


@app.command()
def run(
    recipe: RecipePath,
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    miniature: Miniature = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe; stages that are up to date are not run again.

    Example: `demoalign run recipe.yaml --set sft.epochs=3`
    """
    wanted = load_recipe(recipe, flags_of(overrides, seed, skip_invalid))
    finish(go(in_miniature(wanted) if miniature else wanted, "report"), as_json)


def _stage_command(name: str, stage: str, summary: str) -> None:
    def command(
        recipe: RecipePath,
        overrides: Set = None,
        seed: Seed = None,
        skip_invalid: SkipInvalid = False,
        as_json: AsJson = False,
    ) -> None:
        advance(recipe, flags_of(overrides, seed, skip_invalid), stage, as_json)

    command.__doc__ = f"{summary}\n\n    Example: `demoalign {name} recipe.yaml`"
    app.command(name)(command)


_stage_command("sft", "sft", "Fine-tune the initial policy on the demonstrations.")
_stage_command("sample", "rollouts", "Sample the initial and the SFT policy on training prompts.")
_stage_command("reward", "reward", "Train the reward models.")
_stage_command(
    "improve",
    "improve",
    """Make a better policy and sample it on the test prompts.

    `improve.method` of the recipe says how: `extrapolate` decodes with two policies' logits (and
    may distil the result); `raft`, `rloo`, `grpo` and `ppo` train the policy against a reward of
    the recipe; `adversarial` against a discriminator that learns along; `irl` turns between reward
    and policy. A trained policy is stored in RUN/policy and named by its method; `best_of_n` makes
    none.""",
)


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
        str,
        typer.Option(
            "--policy",
            help=f"Who answers: sft, one that improve.method makes ({', '.join(IMPROVED)}), or a "
            "baseline's name.",
        ),
    ] = "sft",
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Choose the best of N candidates on the test prompts, or on prompts of your own.

    Example: `demoalign best-of-n recipe.yaml --prompts prompts.jsonl --output best.jsonl --n 16`
    """
    flags = flags_of(overrides, seed, skip_invalid)
    if prompts is None:
        return advance(recipe, flags, "best-of-n", as_json)
    from demoalign.pipeline.answer import answer_prompts

    if output is None:
        raise RecipeError("--output: needed with --prompts, found nothing; name a .jsonl file")
    wanted = load_recipe(recipe, flags)
    counts = answer_prompts(wanted, prompts, output, n, selector, policy)
    sys.stderr.write(f"{counts['answers']} answers in {output}\n")
    return finish({**counts, "path": str(output), "n": n}, as_json)
