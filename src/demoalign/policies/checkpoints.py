"""Resume points that are known to be whole.

A training killed while it writes leaves half a checkpoint, which the trainer would fail on.
Each finished checkpoint therefore gets a list of its files and sizes; only those count.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from demoalign.store import write_json

COMPLETE = "complete.json"


class CompleteCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Marks each checkpoint as complete once all of its files are written."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """List the files of the checkpoint just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        write_json(folder / COMPLETE, files)


def newest_complete(folder: Path) -> Path | None:
    """The newest whole checkpoint below ``folder``; damaged ones are removed."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if _is_complete(path):
            found.append(path)
        else:
            shutil.rmtree(path)
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_complete(folder: Path) -> bool:
    try:
        files = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False
