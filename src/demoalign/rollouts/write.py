"""Rollouts to disk as they come, resumable at any row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoalign.processes import from_main, is_main, parts, rank, wait, world
from demoalign.records import Rollout, read_records, to_line
from demoalign.rollouts.engine import AnyPolicy, Engine, PromptSpec
from demoalign.rollouts.transformers_engine import TransformersEngine
from demoalign.store import write_json

Hidden = NDArray[np.float32]


def write_rollouts(
    path: Path,
    engine: Engine,
    policy: AnyPolicy,
    prompts: Sequence[PromptSpec],
    n: int,
    seed: int,
    greedy: bool = False,
    keeps_hidden: bool = False,
    source: str | None = None,
) -> None:
    """Sample ``n`` rollouts of each prompt into a file, in the order of the prompts.

    What an interrupted attempt left in ``path.partial`` is kept, row by row, and only the rest is
    sampled. A finished file is left alone.

    Args:
        path: where to.
        engine, policy, prompts, n, seed, greedy: as in `Engine.sample`.
        keeps_hidden: store what ``head`` reward models read beside it (`read_hidden`), if the
            engine knows it.
        source: what the rollouts' ids name instead of the policy, where it is sampled from in
            several ways.
    """
    asked = policy, n, seed, greedy, keeps_hidden, source
    if parts() > 1:
        return _write_together(path, engine, prompts, asked)
    return _write(path, engine, prompts, asked)


Asked = tuple[AnyPolicy, int, int, bool, bool, str | None]
"""Policy, n, seed, greedy, keeps_hidden and source of `write_rollouts`."""


def _write_together(
    path: Path, engine: Engine, prompts: Sequence[PromptSpec], asked: Asked
) -> None:
    """Each process samples its share of the prompts; the main one joins what all have written."""
    _, n, _, greedy, _, _ = asked
    whole = from_main(lambda: path)
    if not from_main(whole.is_file):
        mine = whole.with_name(f"{whole.stem}.part-{rank()}-of-{world()}.jsonl")
        _write(mine, engine, prompts[rank() :: world()], asked)
        wait()
        if is_main():
            join_shares(whole, len(prompts), 1 if greedy else n)
    wait()
    if path != whole:  # a stage reads back what it has written, in this process, too
        for written in whole.parent.glob(f"{whole.stem}.*"):
            shutil.copy(written, path.parent / written.name)


def join_shares(path: Path, prompts: int, rows: int) -> None:
    """Put the shares of all processes together in the order of the prompts, and remove them.

    Args:
        path: of the whole.
        prompts: how many there are; number p is in share p modulo the number of processes.
        rows: rollouts of each.
    """
    count = world()
    shares = [path.with_name(f"{path.stem}.part-{i}-of-{count}.jsonl") for i in range(count)]
    lines = [share.read_bytes().splitlines(keepends=True) for share in shares]
    order = [(p % count, p // count * rows + row) for p in range(prompts) for row in range(rows)]
    states = [read_hidden(share) for share in shares]
    known = [each for each in states if each is not None]
    if known:
        shape = (len(order), known[0].shape[1])
        stored = _hidden_path(path)
        joined = np.lib.format.open_memmap(stored, mode="w+", dtype=np.float32, shape=shape)
        for number, (share, row) in enumerate(order):
            state = states[share]
            joined[number] = np.nan if state is None else state[row]
        joined.flush()
    described = shares[0].with_suffix(".engine.json")
    if described.is_file():
        described.replace(path.with_suffix(".engine.json"))
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(b"".join(lines[share][row] for share, row in order))
    partial.replace(path)
    for left in path.parent.glob(f"{path.stem}.part-*-of-*"):
        left.unlink()


def _write(path: Path, engine: Engine, prompts: Sequence[PromptSpec], asked: Asked) -> None:
    """As `write_rollouts`, in this process alone."""
    policy, n, seed, greedy, keeps_hidden, source = asked
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    wanted = 1 if greedy else n
    kept = _whole_lines(partial, prompts, wanted)
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    rest = _rest(prompts, len(kept), wanted)
    with partial.open("a", encoding="utf-8", buffering=1) as stream:
        if keeps_hidden and prompts and not greedy and isinstance(engine, TransformersEngine):
            rows = _with_hidden(path, engine, policy, rest, n, seed, (len(kept), len(prompts)))
        else:
            rows = engine.sample(policy, rest, n, seed, greedy)
        for rollout in rows:
            name = f"{rollout.prompt_id}/{source}/{rollout.index}" if source else rollout.id
            stream.write(to_line(replace(rollout, id=name)) + "\n")
    if rest:
        write_json(path.with_suffix(".engine.json"), engine.describe())
    partial.replace(path)


def read_rollouts(path: Path) -> list[Rollout]:
    """Rollouts that `write_rollouts` wrote."""
    return read_records(path, Rollout)


def read_hidden(path: Path) -> Hidden | None:
    """Final hidden states (rows, H) of the rollouts in a file, NaN where one is not known.

    The state is that of the rollout's last token under the policy that sampled it. None if none
    were stored.
    """
    stored = _hidden_path(path)
    return np.load(stored, mmap_mode="r") if stored.is_file() else None


def _hidden_path(path: Path) -> Path:
    return path.with_suffix(".hidden.npy")


def _with_hidden(
    path: Path,
    engine: TransformersEngine,
    policy: AnyPolicy,
    rest: Sequence[PromptSpec],
    n: int,
    seed: int,
    done: tuple[int, int],
) -> Iterator[Rollout]:
    """Rollouts; their hidden states go into a file beside theirs first."""
    row, prompts = done
    shape = (prompts * n, policy.backbone.hidden_size)
    stored = _hidden_path(path)
    if row == 0 or not stored.is_file() or np.load(stored, mmap_mode="r").shape != shape:
        hidden = np.lib.format.open_memmap(stored, mode="w+", dtype=np.float32, shape=shape)
        hidden[:] = np.nan
    else:
        hidden = np.lib.format.open_memmap(stored, mode="r+")
    for number, sampled in enumerate(engine.sample_hidden(policy, rest, n, seed), start=row):
        hidden[number] = np.nan if sampled.hidden is None else sampled.hidden
        yield sampled.rollout
    hidden.flush()


def _rest(prompts: Sequence[PromptSpec], rows: int, wanted: int) -> list[PromptSpec]:
    """What is left to sample after a number of rows."""
    whole, within = divmod(rows, wanted)
    rest = list(prompts[whole:])
    if within:
        rest[0] = replace(rest[0], first=within)
    return rest


def _whole_lines(partial: Path, prompts: Sequence[PromptSpec], wanted: int) -> list[str]:
    """The leading lines that are the rollouts wanted."""
    if not partial.is_file():
        return []
    lines: list[str] = []
    for number, raw in enumerate(partial.read_bytes().split(b"\n")):  # the last may be half a line
        try:
            line = raw.decode()
            rollout = json.loads(line)
            fits = rollout["prompt_id"] == prompts[number // wanted].id
            fits = fits and (wanted == 1 or rollout["index"] == number % wanted)
        except (ValueError, KeyError, IndexError, TypeError):
            break
        if not fits:
            break
        lines.append(line)
    return lines
