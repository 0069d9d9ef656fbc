"""What commands print: short tables for people, on stderr; machines read --json on stdout."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demoalign.config import DECODINGS
from demoalign.store import read_json

if TYPE_CHECKING:
    from demoalign.pipeline import Outcome
    from demoalign.pipeline.validate import Validation
    from demoalign.report.trainings import Trained

SHOWN_SIZES = (1, 4, 16, 64)


def quiet_libraries() -> None:
    """Leave the terminal to our own progress: other libraries' bars and notices are hidden."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.filterwarnings("ignore", module=r"(transformers|trl|peft|torch|accelerate)(\..*)?")
    for name in ("transformers", "trl", "peft", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def print_stages(outcomes: Sequence[Outcome]) -> None:
    """One line: how many stages ran and for how long."""
    ran = [each for each in outcomes if each.status == "done"]
    seconds = sum(each.seconds for each in ran)
    text = (
        f"{len(ran)} of {len(outcomes)} stages ran in {seconds:.0f} s"
        if ran
        else f"nothing to do: all {len(outcomes)} stages are up to date"
    )
    Console(stderr=True, highlight=False).print(text)


def print_training(found: Trained) -> None:
    """How many rounds a policy learned, which one was kept, and why it stopped."""
    console = Console(stderr=True, highlight=False)
    unit = "iteration" if found.method == "irl" else "round"
    done = f"{found.done} {unit}{'' if found.done == 1 else 's'}"
    kept = f"kept the policy of {unit} {found.best}" if found.best else "kept the SFT policy"
    ended = "" if found.stopped else ", nothing stopped it"
    console.print(f"{found.method}: {done}{ended}; {kept}", soft_wrap=True)
    if found.stopped:
        console.print(Text(f"stopped: {found.stopped}", style="yellow"), soft_wrap=True)
    if len(found.checks) < 2:
        return
    first, last = found.checks[0], found.checks[-1]
    last = next((each for each in found.checks if each.round == found.best != 0), last)
    said = [
        f"{name} {first.values[name]:.2f} -> {last.values[name]:.2f}"
        for name in ("reward", "witness", "golden", "kl", "tokens")
        if name in first.values and name in last.values
    ]
    shown = f"held-out prompts, {unit} {first.round} -> {last.round}: {', '.join(said)}"
    console.print(shown, soft_wrap=True)


def print_results(folder: Path, report: Path) -> None:
    """The short table of golden rewards (or proxy rewards), and where the report is."""
    console = Console(stderr=True, highlight=False)
    path = folder / "evaluation" / "results.json"
    if path.is_file():
        metrics = read_json(path)["metrics"]
        name = "golden_reward" if _values(metrics, "golden_reward") else "proxy_reward"
        console.print(_results_table(metrics, name))
    console.print(f"report: {escape(str(report.resolve()))}", soft_wrap=True)


def _values(metrics: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [m for m in metrics if m["metric"] == name and m["value"] is not None]


def _results_table(metrics: Sequence[dict[str, Any]], name: str) -> Table:
    found = {(m["policy"], m["selector"], m["n"]): m for m in _values(metrics, name)}
    sizes = sorted({n for _, _, n in found})
    shown = [n for n in SHOWN_SIZES if n in sizes] or sizes
    title = f"{name.replace('_', ' ')}, mean ± half of the 95 % interval over prompts"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy, or best of N", no_wrap=True)
    for n in shown:
        table.add_column(f"N = {n}", justify="right", no_wrap=True)
    for policy, selector in dict.fromkeys((policy, selector) for policy, selector, _ in found):
        label = f"{policy}, {selector}" if selector in DECODINGS else f"by {selector}"
        label = policy if selector == "none" else label
        cells = [_cell(found.get((policy, selector, n))) for n in shown]
        table.add_row(escape(label), *(escape(cell) for cell in cells))
    return table


def _cell(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return ""
    interval = metric["ci95"]
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.2f}"
    return f"{metric['value']:.2f}{half}"


def print_judgement(found: Mapping[str, Any]) -> None:
    """What a judge said of two policies: shares with intervals, controls, what it has cost."""
    console = Console(stderr=True, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = escape(f"{found['policy']} against {found['against']}: {found['pairs']} pairs")
    for column in ("", "share", "95 % interval", "pairs"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for label, count in _JUDGED.items():
        pairs = found["counts"][count] if count else ""
        table.add_row(label, *_share(found[label], found["ci95"][label]), str(pairs))
    for kind, shares in found["controls"].items():
        passed = shares["passed"]
        cells = _share(passed["value"], passed["ci95"])
        table.add_row(f"control passed: {kind}", *cells, str(passed["count"]))
    for name, shares in found["golden"].items():
        agreement = shares["agreement"]
        cells = _share(agreement["value"], agreement["ci95"])
        table.add_row(escape(f"agrees with {name}"), *cells, str(agreement["count"]))
    console.print(table)
    if found["reason"]:
        console.print(Text(f"no result: {found['reason']}", style="yellow"), soft_wrap=True)
    cost, now = found["cost"], found["now"]
    console.print(f"asked now: {_told(now)}; {now['asked_again']} requests made again")
    console.print(f"in all: {_told(cost)}")
    console.print(f"results: {escape(found['folder'])}", soft_wrap=True)


_JUDGED = {
    "win": "win",
    "tie": "tie",
    "lose": "lose",
    "flip_rate": "flipped",
    "unparseable": "unparseable",
    "refused": "refused",
}
"""What is shown of a judgement, and the name of the count behind it."""


def _share(value: float | None, interval: Sequence[float] | None) -> tuple[str, str]:
    if value is None:
        return "not measured", ""
    return f"{value:.3f}", "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _told(cost: Mapping[str, Any]) -> str:
    """Replies, tokens by the server's count, and their price."""
    text = f"{cost['replies']} replies"
    if cost["prompt_tokens"] is None:
        return f"{text}, the server told no tokens"
    text += f", {cost['prompt_tokens']:,} tokens read and {cost['completion_tokens']:,} written"
    if cost["without_usage"]:
        text += f" ({cost['without_usage']} replies told none)"
    return text if cost["price"] is None else f"{text}, {cost['price']:.4f} at the prices given"


def print_collection(found: Mapping[str, Any]) -> None:
    """What collecting came to: rows, what is missing and why, what it has cost."""
    console = Console(stderr=True, highlight=False)
    console.print(
        f"{found['rows']} demonstrations of {found['prompts']} rows in {escape(found['output'])}"
    )
    for kind, count in found["reasons"].items():
        console.print(f"  {count} without: {escape(kind)}")
    if found["missing"]:
        console.print(f"reasons: {escape(found['rejected'])}", soft_wrap=True)
    if "now" in found:
        asked_again = found["now"]["asked_again"]
        console.print(f"asked now: {_told(found['now'])}; {asked_again} requests made again")
        console.print(f"in all: {_told(found['cost'])}")
    if found["stopped"]:
        console.print(Text(f"stopped: {found['stopped']}", style="yellow"), soft_wrap=True)
    if found["unanswered"]:
        text = f"{found['unanswered']} prompts have no answer yet; run the same command again"
        console.print(Text(text, style="yellow"), soft_wrap=True)


def print_preferences(metrics: Sequence[dict[str, Any]]) -> None:
    """The accuracy of every reward on every preference set, with scores of benchmarks."""
    wanted = ("preference_accuracy", "rewardbench_score", "rewardbench_2_score")
    shown = [m for m in metrics if m["metric"] in wanted and "/" not in m["policy"]]
    columns = list(dict.fromkeys((m["policy"], m["metric"]) for m in shown))
    title = "in per cent, mean ± half of the 95 % interval over prompts"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reward", no_wrap=True)
    for name, metric in columns:
        what = "accuracy" if metric == wanted[0] else "score"
        table.add_column(escape(f"{name}, {what}"), justify="right")
    found = {(m["selector"], m["policy"], m["metric"]): m for m in shown}
    for reward in dict.fromkeys(m["selector"] for m in shown):
        cells = [_per_cent(found[reward, *column]) for column in columns]
        table.add_row(escape(reward), *(escape(cell) for cell in cells))
    Console(stderr=True, highlight=False).print(table)


def print_lm_eval(metrics: Sequence[dict[str, Any]]) -> None:
    """What lm-eval found, a row for each task's metric and a column for each policy."""
    title = "lm-eval, ± half of the 95 % interval"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task and metric", no_wrap=True)
    policies = list(dict.fromkeys(m["policy"] for m in metrics))
    for policy in policies:
        table.add_column(escape(policy), justify="right")
    found = {(m["metric"], m["policy"]): m for m in metrics if m["value"] is not None}
    for name in dict.fromkeys(m["metric"] for m in metrics):
        cells = [_cell(found.get((name, policy))) for policy in policies]
        table.add_row(escape(name.removeprefix("lm_eval/")), *(escape(cell) for cell in cells))
    Console(stderr=True, highlight=False).print(table)


def _per_cent(metric: dict[str, Any]) -> str:
    if metric["value"] is None:
        return "not measured"
    interval = metric["ci95"]
    half = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * metric['value']:.1f}{half}"


def print_validation(found: Validation) -> None:
    """What `demoalign validate` found, with one example's loss mask in colour."""
    console = Console(stderr=True, highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, text in found.facts:
        table.add_row(label, escape(text))
    console.print(table)
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    console.print("\none example as the model sees it (grey: read, green: learned)")
    example = Text()
    for token, learned in found.example:
        example.append(token, style="green" if learned else "bright_black")
    console.print(example, soft_wrap=True)
    plan = Table(title="\nplan", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("stage", "state", "estimated time"):
        plan.add_column(column)
    for stage, state, seconds in found.plan:
        plan.add_row(stage, state, seconds)
    console.print(plan)
