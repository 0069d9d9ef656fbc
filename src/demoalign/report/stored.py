"""Defensive readers of JSON and YAML: text made printable, numbers finite or None. Pure."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

Json = object
"""Anything that ``json.loads`` may return; narrowed by the functions below."""


@dataclass(slots=True)
class Problems:
    """What could not be read, in plain words, in the order it was met."""

    found: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note a problem once."""
        if problem not in self.found:
            self.found.append(problem)


def printable(text: str) -> str:
    """The text with control characters shown as pictures (U+2400...) and lone surrogates replaced.

    Tabs and newlines stay. Everything in a report has passed through here: a browser drops or
    misreads raw control characters, and a lone surrogate cannot be encoded at all.
    """
    if text.isprintable():
        return text
    return "".join(_printable(character) for character in text.replace("\r\n", "\n"))


def _printable(character: str) -> str:
    code = ord(character)
    if character in "\t\n":
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if unicodedata.category(character) in {"Cc", "Cs"} else character


def text_of(value: Json, default: str = "") -> str:
    """A printable string; numbers and booleans are spelled, anything else gives ``default``."""
    if isinstance(value, str):
        return printable(value)
    return str(value) if isinstance(value, bool | int | float) else default


def number_of(value: Json) -> float | None:
    """A finite number, or None (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole_of(value: Json) -> int | None:
    """A whole number, or None."""
    number = number_of(value)
    return int(number) if number is not None and number == int(number) else None


def mapping_of(value: Json) -> Mapping[str, Json]:
    """The mapping with its keys as printable strings; anything else is empty."""
    if not isinstance(value, Mapping):
        return {}
    return {printable(str(key)): item for key, item in value.items()}


def list_of(value: Json) -> Sequence[Json]:
    """The list; anything else is empty."""
    return value if isinstance(value, list) else ()


def read_text(path: Path, problems: Problems, shown: str) -> str | None:
    """The file's text, or None with a problem noted; ``shown`` is its name for the reader."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems.add(f"{shown} is not in the run folder.")
    except OSError as error:
        problems.add(f"{shown} could not be read ({error.strerror or type(error).__name__}).")
    return None


def read_json(path: Path, problems: Problems, shown: str) -> Json:
    """The file's JSON value, or None with a problem noted."""
    text = read_text(path, problems, shown)
    if text is None:
        return None
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.add(f"{shown} is not valid JSON ({printable(str(error))}).")
        return None
    return value


def read_lines(path: Path, problems: Problems, shown: str) -> list[Mapping[str, Json]]:
    """The objects of a file with one a line; a problem is noted for what is none."""
    found = []
    for number, line in enumerate((read_text(path, problems, shown) or "").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value: Json = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.add(f"{shown}:{number} is not valid JSON ({printable(str(error))}).")
            continue
        if isinstance(value, dict):
            found.append(mapping_of(value))
        else:
            problems.add(f"{shown}:{number} is not an object.")
    return found


def interval_of(value: Json) -> tuple[float, float] | None:
    """Two finite bounds, the lower one first; None of anything else."""
    bounds = [number_of(bound) for bound in list_of(value)]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return None
    return min(bounds[0], bounds[1]), max(bounds[0], bounds[1])


def parse_yaml(text: str, problems: Problems, shown: str) -> Json:
    """The text's YAML value, or None with a problem noted."""
    try:
        value: Json = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [""])[0]
        problems.add(f"{shown} is not valid YAML ({printable(first)}).")
        return None
    return value
