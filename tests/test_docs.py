"""What README and docs say: tables are those of the stored results, recipes are accepted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from demoalign.config import parse_recipe

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("script", "results", "picture"),
    [
        ("rewards.py", "rewards.json", "rewards.svg"),
        ("critic.py", "critic.json", "critic.svg"),
        ("quality.py", "quality.json", "quality.svg"),
        ("policies.py", "policies.json", "policies.svg"),
        ("amount.py", "amount.json", "amount.svg"),
        ("transfer.py", "transfer.json", "transfer.svg"),
        ("ensembles.py", "ensembles.json", "ensembles.svg"),
        ("alarm.py", "alarm.json", "alarm.svg"),
        ("heterogeneity.py", "heterogeneity.json", "heterogeneity.svg"),
        ("trained.py", "optimisers.json", "optimisers.svg"),
        ("trained.py", "adversarial.json", "adversarial.svg"),
        ("rejection.py", "rejection.json", "rejection.svg"),
        ("discriminator.py", "discriminator.json", "discriminator.svg"),
        ("closed_form.py", "closed-form.json", "closed-form.svg"),
        ("extrapolation_theory.py", "extrapolation-theory.json", "extrapolation-theory.svg"),
        ("modes.py", "modes.json", "modes.svg"),
        ("cost_curve.py", "cost-curve.json", "cost-curve.svg"),
        ("falls.py", "falls.json", None),
        ("rollout_engine.py", None, "rollout-engine.svg"),
        ("best_of_n.py", "best-of-n.json", None),
    ],
)
def test_pages_are_what_the_scripts_write(
    tmp_path: Path, script: str, results: str | None, picture: str | None
) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    pages = [tmp_path / "README.md", *sorted((tmp_path / "docs").glob("*.md"))]
    before = {page: page.read_text(encoding="utf-8") for page in pages}
    drawn = tmp_path / "docs" / "images" / picture if picture else None
    if drawn:
        drawn.unlink()
    stored = [str(tmp_path / "docs" / "results" / results)] if results else []
    command = [sys.executable, str(tmp_path / "docs" / script), *stored]
    subprocess.run(command, check=True, capture_output=True)
    assert {page: page.read_text(encoding="utf-8") for page in pages} == before
    assert drawn is None or drawn.read_text(encoding="utf-8").startswith("<?xml")


def test_recipes_shown_are_accepted() -> None:
    least = {"name": "shown", "model": {"base": "b"}, "demonstrations": {"source": "d.jsonl"}}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for shown in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            parse_recipe({**least, **yaml.safe_load(shown)}, str(page))
