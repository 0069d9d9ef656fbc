"""Rollouts to disk as they come, resumable in the middle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from demoalign.policies.policy import Policy
from demoalign.records import Rollout, read_records, to_line
from demoalign.rollouts.engine import Engine, PromptSpec


def write_rollouts(
    path: Path,
    engine: Engine,
    policy: Policy,
    prompts: Sequence[PromptSpec],
    n: int,
    seed: int,
    greedy: bool = False,
) -> None:
    """Sample ``n`` rollouts of each prompt into a file, in the order of the prompts.

    What an interrupted attempt left in ``path.partial`` is kept, prompt by prompt, and only the
    rest is sampled. A finished file is left alone.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    wanted = 1 if greedy else n
    kept = _whole_prompts(partial, prompts, wanted)
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    rest = prompts[len(kept) // wanted :]
    with partial.open("a", encoding="utf-8") as stream:
        for rollout in engine.sample(policy, rest, n, seed, greedy):
            stream.write(to_line(rollout) + "\n")
    partial.replace(path)


def read_rollouts(path: Path) -> list[Rollout]:
    """Rollouts that `write_rollouts` wrote."""
    return read_records(path, Rollout)


def _whole_prompts(partial: Path, prompts: Sequence[PromptSpec], wanted: int) -> list[str]:
    """The lines of the leading prompts all of whose rollouts are there."""
    if not partial.is_file():
        return []
    lines: list[str] = []
    for number, raw in enumerate(partial.read_bytes().split(b"\n")):  # the last may be half a line
        try:
            line = raw.decode()
            rollout = json.loads(line)
            fits = rollout["prompt_id"] == prompts[number // wanted].id
        except (ValueError, KeyError, IndexError, TypeError):
            break
        if not fits:
            break
        lines.append(line)
    return lines[: len(lines) // wanted * wanted]
