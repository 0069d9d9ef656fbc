"""Training curves for TensorBoard, W&B or trackio: off unless the recipe asks, and numbers only.

What is sent is a training's name, step and numbers such as loss and learning rate. Recipes,
prompts, answers and paths are not.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from demoalign.errors import RecipeError

PROJECT = "demoalign"
LEFT_OUT = frozenset({"total_flos", "step"})

Log = Callable[[Mapping[str, float], int], None]
Close = Callable[[], None]
Open = Callable[[str, Path], tuple[Log, Close]]


def check_tracking(tool: str) -> None:
    """Refuse a tool that is not installed.

    Raises:
        RecipeError: naming the package.
    """
    if tool != "none" and importlib.util.find_spec(tool) is None:
        raise RecipeError(
            f"tracking: {tool} needs the package {tool}, which is not installed; pip install {tool}"
        )


@contextmanager
def tracked(tool: str, run: str, folder: Path) -> Iterator[None]:
    """Send what `track` is told, while the block runs, to a tool.

    Args:
        tool: ``none``, ``tensorboard``, ``wandb`` or ``trackio``.
        run: what the tool calls these curves; a tool is opened by the first value.
        folder: where a tool that writes files puts them.

    Raises:
        RecipeError: it is not installed.
    """
    if tool == "none":
        yield
        return
    check_tracking(tool)
    sink = _Sink(_OPEN[tool], run, folder)
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)
        sink.close()


def track(title: str, values: Mapping[str, Any], step: int) -> None:
    """Tell the tool of the enclosing `tracked` about finite numbers; without one, nothing.

    Args:
        title: of the training; names the curves.
        values: any; what is no finite number is left out.
        step: optimiser step.
    """
    sink = _current.get()
    numbers = {
        f"{title}/{key}": float(value)
        for key, value in values.items()
        if key not in LEFT_OUT and isinstance(value, int | float) and math.isfinite(value)
    }
    if sink is not None and numbers:
        sink.log(numbers, step)


class _Sink:
    """A tool that is opened when there is something to say."""

    def __init__(self, opens: Open, run: str, folder: Path) -> None:
        self._opens, self._run, self._folder = opens, run, folder
        self._open: tuple[Log, Close] | None = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        if self._open is None:
            self._open = self._opens(self._run, self._folder)
        self._open[0](numbers, step)

    def close(self) -> None:
        if self._open is not None:
            self._open[1]()


_current: ContextVar[_Sink | None] = ContextVar("tracking", default=None)


def _tensorboard(_run: str, folder: Path) -> tuple[Log, Close]:
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def log(numbers: Mapping[str, float], step: int) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)

    return log, writer.close


def _wandb(run: str, folder: Path) -> tuple[Log, Close]:
    folder.mkdir(parents=True, exist_ok=True)
    tool = importlib.import_module("wandb")
    settings = tool.Settings(save_code=False, disable_git=True)
    tool.init(project=PROJECT, name=run, dir=str(folder), settings=settings)
    return _logger(tool), tool.finish


def _trackio(run: str, _folder: Path) -> tuple[Log, Close]:
    tool = importlib.import_module("trackio")
    tool.init(project=PROJECT, name=run)  # without a space it stays on this machine
    return _logger(tool), tool.finish


def _logger(tool: Any) -> Log:
    """Logging of wandb, whose interface trackio has; the trainings of one stage each count anew."""

    def log(numbers: Mapping[str, float], step: int) -> None:
        tool.log({**numbers, "step": step})

    return log


_OPEN: Mapping[str, Open] = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
TOOLS = tuple(_OPEN)
