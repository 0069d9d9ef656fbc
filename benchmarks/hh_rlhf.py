"""How fast, and in how much memory, HH-RLHF of its real size is read, reported on and rendered.

Nothing is downloaded: rows are made up in the format of the real files, as long as those and with
their traps at known rates (`tests/demonstrations/hh_rows.py`). Each step runs in a process of its
own, whose peak memory is reported, with 10,000 rows and with all of them::

    python benchmarks/hh_rlhf.py --rows 160000 --json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

Work = Callable[[Path], int]
STEPS = ("read", "report", "render", "validate")
SMALL = 10_000
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=160_000)
    parser.add_argument("--step", choices=STEPS, help="this one alone, in this process")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(given.step, given.file)))
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in (min(SMALL, given.rows), given.rows):
            path = Path(folder) / f"{rows}.jsonl.gz"
            make(path, rows)
            for name in STEPS:
                said = alone(name, path)
                found |= {f"{name}_{rows}_{key}": value for key, value in said.items()}
                if not given.json:
                    print(name, rows, said)
    if given.json:
        print(json.dumps(found))


def make(path: Path, rows: int) -> None:
    from tests.demonstrations.hh_rows import hh_rows, write_gz

    write_gz(path, hh_rows(rows, seed=0))


def alone(name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", name, "--file", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def step(name: str, path: Path) -> dict[str, float]:
    """Rows a second, and peak memory above what the imports took, in MiB."""
    work = {"read": reading, "report": reporting, "render": rendering, "validate": validating}
    run = work[name]()
    before = peak()
    started = time.perf_counter()
    count = run(path)
    seconds = time.perf_counter() - started
    return {"rows_per_second": count / seconds, "mib": peak() - before, "mib_whole": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reading() -> Work:
    """Rows as they come, none of them kept."""
    from demoalign.demonstrations import stream_demonstrations

    return lambda path: sum(1 for _ in stream_demonstrations(path).rows)


def reporting() -> Work:
    """All of `demoalign validate FILE`, with an evaluation set of 2,000 prompts."""
    from tests.demonstrations.hh_rows import hh_rows

    from demoalign.demonstrations import stream_demonstrations
    from demoalign.demonstrations.quality.look import Look
    from demoalign.demonstrations.quality.overlap import EvaluationSet

    others = [row["chosen"].rpartition("Assistant:")[0] for row in hh_rows(2_000, seed=1)]
    sets = [EvaluationSet("held-out", others)]

    def run(path: Path) -> int:
        look = Look(sets)
        count = 0
        for row in stream_demonstrations(path).rows:
            look.add(row)
            count += 1
        look.report()
        return count

    return run


def rendering() -> Work:
    """Prompts and completions as token ids, a batch at a time; none are kept."""
    from demoalign.config import ModelConfig
    from demoalign.demonstrations import Rejected, stream_demonstrations
    from demoalign.demonstrations.render import render_many
    from demoalign.lab import BASE
    from demoalign.pipeline.resolve import read_base

    tokenizer = read_base(ModelConfig(base=str(BASE))).tokenizer

    def run(path: Path) -> int:
        count = 0
        batch = []
        for row in stream_demonstrations(path).rows:
            count += 1
            if not isinstance(row, Rejected):
                batch.append((row.prompt, row.completion))
            if len(batch) == BATCH:
                render_many(tokenizer, batch)
                batch = []
        render_many(tokenizer, batch)
        return count

    return run


def validating() -> Work:
    """`demoalign validate RECIPE`, which holds the texts: what is held out depends on all."""
    from demoalign.config import parse_recipe
    from demoalign.pipeline.validate import validate

    def run(path: Path) -> int:
        data = {"source": str(path), "skip_invalid": True, "max_prompt_tokens": 4096}
        recipe = {"name": "hh", "model": {"base": "lab"}, "demonstrations": data}
        found = validate(parse_recipe({**recipe, "rollouts": {"max_new_tokens": 32}}))
        return found.summary.rows

    return run


if __name__ == "__main__":
    main()
