"""The command that collects demonstrations from a demonstrator."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from demoalign.cli.app import app
from demoalign.cli.options import AsJson, Seed, Set, SkipInvalid, finish, price_of
from demoalign.config import Recipe, load_recipe, parse_recipe, with_overrides
from demoalign.console import print_collection
from demoalign.errors import RecipeError

NOWHERE = {"name": "collect", "model": {"base": "none"}, "demonstrations": {"source": "none"}}
"""What a recipe needs besides the collect section, where none is given."""


@app.command()
def collect(
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="File, folder or hub id with prompts in it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where demonstrations go (.jsonl).")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Address of the API, often ending in /v1.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="What the server calls the demonstrator.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="A model's folder, instead of a server.")
    ] = None,
    template: Annotated[
        str | None, typer.Option("--template", help="paper, none, or a file with {prompt}.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="How many prompts; all by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Not sent to a server by default.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Tokens that an answer may have.")
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option("--min-characters", help="Shorter answers are rejected.")
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option("--max-characters", help="Longer answers are rejected.")
    ] = None,
    max_prompt_characters: Annotated[
        int | None, typer.Option("--max-prompt-characters", help="Longer prompts are not asked.")
    ] = None,
    refusals: Annotated[
        str | None, typer.Option("--refusals", help="Answers that decline in words: keep, reject.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Requests under way at the same time.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option("--retries", help="How often one request is made again.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds that one request may take.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option("--price", metavar="IN,OUT", help="Of a million tokens: --price 2.5,10"),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="What the output may cost; needs --price.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, and stop.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe whose `collect` flags override.")
    ] = None,
    overrides: Set = None,
    seed: Seed = None,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Collect demonstrations: a demonstrator's answers to your prompts.

    The demonstrator is asked with the paper's words (appendix E.2) or yours. The key is taken from
    OPENAI_API_KEY. Replies are stored as they come: the same command goes on after an
    interruption, and asks nothing twice. Every prompt ends as a row of the output, or with a
    reason in OUTPUT.rejected.jsonl beside it. Every flag has a key in `collect` of a recipe.

    Example: `demoalign collect --prompts prompts.jsonl --output demonstrations.jsonl
    --base-url http://localhost:8000/v1 --model my-model --price 2.5,10 --max-cost 20`
    """
    server = {
        "base_url": base_url,
        "model": model,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "concurrency": concurrency,
        "retries": retries,
        "timeout": timeout,
        "price": None if price is None else price_of(price),
    }
    flags = {
        "prompts": prompts,
        "output": None if output is None else str(output),
        "policy": None if policy is None else str(policy),
        "template": template,
        "limit": limit,
        "min_characters": min_characters,
        "max_characters": max_characters,
        "max_prompt_characters": max_prompt_characters,
        "refusals": refusals,
        "max_cost": max_cost,
        "skip_invalid": skip_invalid or None,
    }
    wanted = _recipe(recipe, _keys(flags, server, seed), overrides or [])
    config = wanted.collect
    assert config is not None
    if config.server is None:
        if estimate:
            raise RecipeError("--estimate: is of a server's price, found --policy; leave it out")
        from demoalign.pipeline.collecting import collect_from_policy

        summary = collect_from_policy(config, wanted.rollouts, wanted.seed, wanted.model.device)
    else:
        from demoalign.demonstrations.collect.server import Collection

        collection = Collection(config, config.server)
        expected = collection.estimate()
        sys.stderr.write(expected.line("collect") + "\n")
        if estimate:
            return finish({"estimate": dataclasses.asdict(expected)}, as_json)
        summary = collection.collect()
    print_collection(summary)
    finish(summary, as_json)
    if summary["unanswered"]:
        raise typer.Exit(1)
    return None


def _keys(flags: Mapping[str, Any], server: Mapping[str, Any], seed: int | None) -> list[str]:
    """Flags as overrides of recipe keys; a local policy is sampled as the rollouts section says."""
    given = {f"collect.{key}": value for key, value in flags.items()}
    if flags["policy"] is None:
        given |= {f"collect.server.{key}": value for key, value in server.items()}
    else:
        given["rollouts.temperature"] = server["temperature"]
        given["rollouts.max_new_tokens"] = server["max_tokens"]
        given |= {f"collect.server.{key}": server[key] for key in ("base_url", "model", "price")}
    given["seed"] = seed
    if flags["policy"] is not None:
        none = ["collect.server=null"]
    else:
        none = ["collect.policy=null"] if server["base_url"] or server["model"] else []
    return none + [
        f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None
    ]


def _recipe(path: Path | None, flags: list[str], overrides: list[str]) -> Recipe:
    """The recipe as flags change it; without one, what flags say."""
    changes = [*flags, *overrides]
    if path is not None:
        found = load_recipe(path, changes)
        return found if found.collect is not None else load_recipe(path, [*changes, "collect={}"])
    raw = with_overrides({**NOWHERE, "collect": {}}, changes)
    return parse_recipe(raw, "demoalign collect")
