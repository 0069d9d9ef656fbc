"""What examples/ and docs/trl.md show of TRL's trainers runs on a run's folders."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import demoalign as da
from tests.pipeline.runs import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(finished: Project) -> Path:
    """The finished run under the name that the docs use; its ensemble's first member stands for
    a single reward model."""
    place = Path("runs/quickstart")
    shutil.copytree(finished.run, place)
    reward = place / "reward" / "init-sft"
    shutil.copytree(reward / "member-0", reward, dirs_exist_ok=True)
    return place


def moved(before: Path, after: Path) -> float:
    """How far training has moved an adapter."""
    old, new = (load_file(each / "adapter_model.safetensors") for each in (before, after))
    assert old.keys() == new.keys()
    return max(float((new[key].cpu() - old[key]).abs().max()) for key in old)


def test_the_example_trains_a_policy(run: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "trl_grpo.py"))
    example["main"]([str(run), "--output", "grpo", "--steps", "2", "--max-new-tokens", "8"])
    assert moved(run / "sft", Path("grpo")) > 1e-5
    policy, before = da.Policy.load("grpo", device="cpu"), da.Policy.load(run / "sft", device="cpu")
    assert policy.backbone.base == before.backbone.base
    assert policy.adapter in policy.backbone.adapters


def test_the_page_runs(run: Path) -> None:
    page = (ROOT / "docs" / "trl.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(shown) == 3
    names: dict[str, object] = {}
    for code in shown:
        names.setdefault("policy", names.get("better"))
        exec(compile(code, "docs/trl.md", "exec"), names)
    assert moved(run / "sft", Path("runs/rloo")) > 1e-8
    assert isinstance(names["better"], da.Policy)
    assert isinstance(names["ratio"], da.DensityRatio)
    assert names["ratio"].config.clip == 2.0
