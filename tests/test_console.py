"""The short table of results that commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from demoalign.config import DECODINGS
from demoalign.console import print_results, print_training
from demoalign.report.trainings import Noted, Trained
from demoalign.store import write_json


def metric(policy: str, selector: str, n: int = 1, value: float | None = 1.0) -> dict[str, object]:
    interval = None if value is None else [value - 0.5, value + 0.5]
    return {
        "metric": "golden_reward",
        "policy": policy,
        "selector": selector,
        "n": n,
        "value": value,
        "ci95": interval,
    }


def test_decodings_are_policies_and_selectors_choose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decodings = [metric(policy, each) for policy in ("sft", "extrapolated") for each in DECODINGS]
    chosen = [metric("sft", name, n) for name in ("density-ratio", "length") for n in (1, 4)]
    unknown = [metric("distilled", "none", value=None)]
    results = {"metrics": [*decodings, metric("demonstrations", "none"), *chosen, *unknown]}
    write_json(tmp_path / "evaluation" / "results.json", results)
    print_results(tmp_path, tmp_path / "report.html")
    lines = capsys.readouterr().err.splitlines()
    rows = {line.strip().split("  ")[0]: line for line in lines}
    ways = ["", ", greedy", ", temperature-0.7", ", top-p-0.9", ", min-p-0.1"]
    policies = [f"{policy}{way}" for policy in ("sft", "extrapolated") for way in ways]
    wanted = {*policies, "demonstrations", "by density-ratio", "by length"}
    assert wanted <= set(rows)
    assert not {"by temperature-0.7", "distilled"} & set(rows)
    assert rows["by density-ratio"].count("1.00 ± 0.50") == 2
    assert rows["sft, top-p-0.9"].count("1.00 ± 0.50") == 1


@pytest.mark.parametrize(
    ("best", "stopped", "said"),
    [
        (10, "", "rloo: 20 rounds, nothing stopped it; kept the policy of round 10"),
        (
            0,
            "collapse: entropy",
            "rloo: 20 rounds; kept the SFT policy\nstopped: collapse: entropy",
        ),
    ],
)
def test_a_training_in_two_lines(
    capsys: pytest.CaptureFixture[str], best: int, stopped: str, said: str
) -> None:
    checks = tuple(Noted(n, {"reward": 0.1 * n, "kl": 1.0}, {}, {}) for n in (0, 10, 20))
    print_training(Trained("rloo", (), checks, 32, 20, best, stopped))
    end = "10: reward 0.00 -> 1.00" if best else "20: reward 0.00 -> 2.00"
    wanted = f"{said}\nheld-out prompts, round 0 -> {end}, kl 1.00 -> 1.00\n"
    assert capsys.readouterr().err == wanted
