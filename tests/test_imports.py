"""Imports go up the list of stages only; the package itself is light to import."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import demoalign

PACKAGE = Path(demoalign.__file__).parent
VOCABULARY = (
    "version",
    "errors",
    "records",
    "config",
    "store",
    "intervals",
    "processes",
    "progress",
)
TOP = ("pipeline", "cli", "console", "__main__", "__init__")
STAGES = (
    VOCABULARY,
    ("endpoints",),
    ("demonstrations",),
    ("policies",),
    ("rollouts",),
    ("rewards",),
    ("divergences",),
    ("improve",),
    ("evaluation",),
    ("report",),
    ("lab",),
    ("serving",),
    TOP,
)
LEVEL = {room: level for level, stage in enumerate(STAGES) for room in stage}
FOR_THE_TOP_ONLY = {"lab", "pipeline", *TOP}
MAY_LOOK_UP_FOR_TYPES = "demoalign.console"

Sources = Mapping[str, str]
"""Module name -> its source."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_sources() -> dict[str, str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {module_name(path): path.read_text(encoding="utf-8") for path in paths}


def room_of(module: str) -> str:
    """The file or folder right below the package that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def for_types(tree: ast.AST) -> set[ast.AST]:
    """Everything below an ``if TYPE_CHECKING``."""
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {node for block in blocks for line in block.body for node in ast.walk(line)}


def imports_of(module: str, sources: Sources) -> set[str]:
    """The package's modules that a module imports, anywhere in its source."""
    return set(_imports_of(module, sources[module], frozenset(sources)))


@functools.cache
def _imports_of(module: str, source: str, known: frozenset[str]) -> frozenset[str]:
    tree = ast.parse(source)
    left_out = for_types(tree) if module == MAY_LOOK_UP_FOR_TYPES else set()
    is_package = any(other.startswith(module + ".") for other in known)
    found = set()
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")
                parent = here[: len(here) - node.level + is_package]
                base = ".".join([*parent, base]).strip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in known else base)
    return frozenset({name for name in found if name.split(".")[0] == "demoalign"} - {module})


def violations(sources: Sources) -> list[str]:
    """Every import against the order of the stages."""
    found = []
    for module in sources:
        room = room_of(module)
        if room not in LEVEL:
            found.append(f"{module}: {room} has no place in the order")
            continue
        for target in sorted(imports_of(module, sources)):
            other = room_of(target)
            if other == room:
                continue
            allowed = (
                other in LEVEL
                and (room in TOP or other not in FOR_THE_TOP_ONLY)
                and (room != "report" or other in VOCABULARY)
                and (
                    LEVEL[other] < LEVEL[room] or (LEVEL[other] == LEVEL[room] in (0, LEVEL["cli"]))
                )
            )
            if not allowed:
                found.append(f"{module} imports {target}")
    return found


def cycles(sources: Sources) -> list[str]:
    """Modules that import themselves by way of others; a package's own ``__init__`` aside."""
    graph = {module: imports_of(module, sources) & set(sources) for module in sources}
    done: set[str] = set()
    found = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    return found


def test_every_import_goes_up_the_list() -> None:
    assert violations(package_sources()) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert cycles(package_sources()) == []


def test_the_checker_sees_the_package() -> None:
    sources = package_sources()
    assert "demoalign.improve.best_of_n" in sources
    assert imports_of("demoalign.evaluation.golden_metrics", sources) >= {
        "demoalign.improve.best_of_n",
        "demoalign.intervals",
        "demoalign.records",
    }
    assert "demoalign.report.charts" in imports_of("demoalign.report.page", sources)


@pytest.mark.parametrize(
    ("module", "planted", "target"),
    [
        ("demoalign.records", "from demoalign.policies import Policy", "demoalign.policies"),
        ("demoalign.policies.sft", "import demoalign.rewards.losses", "demoalign.rewards.losses"),
        ("demoalign.policies.sft", "from ..rewards import losses", "demoalign.rewards.losses"),
        ("demoalign.policies", "from ..rewards import losses", "demoalign.rewards.losses"),
        ("demoalign.rollouts.engine", "def f():\n  import demoalign.improve", "demoalign.improve"),
        ("demoalign.report.page", "from demoalign import policies", "demoalign.policies"),
        ("demoalign.report.page", "from demoalign.lab import BASE", "demoalign.lab"),
        ("demoalign.evaluation.golden", "import demoalign.lab.golden", "demoalign.lab.golden"),
        ("demoalign.lab.golden", "import demoalign.cli", "demoalign.cli"),
        ("demoalign.records", "import demoalign", "demoalign"),
        (
            "demoalign.rewards.train",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import demoalign.improve",
            "demoalign.improve",
        ),
    ],
)
def test_a_planted_import_is_found(module: str, planted: str, target: str) -> None:
    sources = package_sources()
    sources[module] += "\n" + planted + "\n"
    assert violations(sources) == [f"{module} imports {target}"]


def test_serving_may_not_import_the_lab_and_only_consoles_may_look_up_for_types() -> None:
    sources = {**package_sources(), "demoalign.serving": "import demoalign.lab"}
    assert violations(sources) == ["demoalign.serving imports demoalign.lab"]
    typed = "if TYPE_CHECKING:\n  from demoalign.pipeline import Outcome\n"
    assert imports_of("demoalign.console", {"demoalign.console": typed}) == set()
    assert imports_of("demoalign.store", {"demoalign.store": typed}) == {"demoalign.pipeline"}


def test_a_module_without_a_place_is_found() -> None:
    sources = {**package_sources(), "demoalign.helpers": ""}
    assert violations(sources) == ["demoalign.helpers: helpers has no place in the order"]


def test_a_planted_cycle_is_found() -> None:
    sources = package_sources()
    sources["demoalign.errors"] += "\nfrom demoalign import store\n"
    assert violations(sources) == []
    assert cycles(sources) == ["demoalign.errors -> demoalign.store -> demoalign.errors"]


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("module", ["demoalign", "demoalign.cli"])
def test_importing_the_package_is_light(module: str) -> None:
    found = run_python(f"import {module}", "-X", "importtime").stderr
    names = {line.rpartition("|")[2].strip() for line in found.splitlines()}
    assert module in names
    assert not names & {"torch", "transformers", "peft", "trl", "datasets", "matplotlib"}


EACH_ALONE = """
import importlib, sys
vocabulary, names = [line.split() for line in sys.stdin]
for name in vocabulary + names:
    for loaded in [each for each in sys.modules if each.split(".")[0] == "demoalign"]:
        if name in vocabulary or loaded not in vocabulary:
            del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {error!r}")
print("end")
"""


def test_every_module_can_be_imported_first() -> None:
    """Other libraries stay loaded, ours start afresh, so that a cycle cannot hide.

    The vocabulary stays too, once each of it was imported first: it imports nothing else.
    """
    vocabulary = [f"demoalign.{name}" for name in VOCABULARY]
    done = subprocess.run(
        [sys.executable, "-c", EACH_ALONE],
        input=" ".join(vocabulary) + "\n" + " ".join(package_sources()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["end"], done.stderr
