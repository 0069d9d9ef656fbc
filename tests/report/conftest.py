"""A run folder with plausible results, built the same way every time."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from demoalign.intervals import bootstrap_mean, wilson
from demoalign.records import Metric

Array = NDArray[np.float64]
PROMPTS, SAMPLES, NS = 100, 64, (1, 2, 4, 8, 16, 32, 64)
# selector -> (weight on golden, on tokens, on a taste that costs golden reward at the extreme)
SELECTORS = {
    "init-sft": (0.9, 0.15, 0.0),
    "init-demo": (0.35, 0.1, 1.6),
    "sft-demo": (0.15, 0.0, 0.5),
    "preference": (1.1, 0.3, 0.0),
    "length": (0.0, 1.0, 0.0),
    "mean-logprob": (0.1, -0.2, 0.0),
    "sequence-logprob": (0.0, -0.7, 0.0),
}
FIXES = ("Unplug the router for ten seconds.", "Hold the reset key until the lamp turns green.")
EXTRAS = (
    "I am sorry for the trouble.",
    "Your warranty covers this.",
    "It takes about five minutes.",
    "Please switch off the mains first.",
    "Write back if it blinks again.",
)


class World:
    """Golden rewards, lengths and scores of every candidate, (PROMPTS, SAMPLES) each."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        shape = (PROMPTS, SAMPLES)
        ease = random.normal(0, 0.5, (PROMPTS, 1))
        taste = random.normal(0, 1, shape)
        quality = random.normal(0, 1, shape)
        self.golden: Array = 2.1 + ease + quality - 0.5 * np.maximum(taste, 0) ** 2
        self.tokens: Array = np.clip(np.round(34 + 5 * quality + random.normal(0, 9, shape)), 6, 64)
        self.greedy: Array = 2.4 + ease[:, 0] + random.normal(0, 0.7, PROMPTS)
        self.initial: Array = 0.4 + ease[:, 0] + random.normal(0, 1.0, PROMPTS)
        self.demonstrations: Array = 2.2 + ease[:, 0] + random.normal(0, 0.9, PROMPTS)
        length = (self.tokens - self.tokens.mean()) / self.tokens.std()
        self.scores: dict[str, Array] = {
            name: good * quality + long * length + bad * taste + random.normal(0, 0.7, shape)
            for name, (good, long, bad) in SELECTORS.items()
        }
        self.scores["golden"] = self.golden

    def best(self, selector: str, n: int) -> NDArray[np.intp]:
        """Index of the first n candidates' best by a selector, (PROMPTS,)."""
        return np.asarray(self.scores[selector][:, :n].argmax(axis=1))


def _mean(metric: str, selector: str, n: int, values: Array, **more: Any) -> Metric:
    named = {"policy": "sft", "unit": "golden reward", **more}
    return Metric(
        metric=metric,
        selector=selector,
        n=n,
        value=float(values.mean()),
        ci95=bootstrap_mean(values, resamples=200),
        count=len(values),
        seed=0,
        **named,
    )


def _metrics(world: World) -> list[Metric]:
    low, high = world.initial.mean(), world.demonstrations.mean()
    plain = world.golden.mean(axis=1)
    found = []
    for policy, selector, values in (
        ("initial", "none", world.initial),
        ("sft", "none", plain),
        ("sft", "greedy", world.greedy),
        ("demonstrations", "none", world.demonstrations),
    ):
        scaled = (values - low) / (high - low)
        tokens = world.tokens.mean(axis=1) - (8.0 if policy == "initial" else 0.0)
        found += [
            _mean("golden_reward", selector, 1, values, policy=policy),
            _mean("golden_reward_normalised", selector, 1, scaled, policy=policy, unit="share"),
            _mean("completion_tokens", selector, 1, tokens, policy=policy, unit="tokens"),
        ]
    rows = np.arange(PROMPTS)
    for n in NS:
        bound = math.log(n) - (n - 1) / n
        found.append(Metric("kl_bound", "sft", "none", n, bound, None, PROMPTS, 0, "nats"))
        for name, scores in world.scores.items():
            best = world.best(name, n)
            golden = world.golden[rows, best]
            wins = float((golden > world.greedy).sum())
            found += [
                _mean("golden_reward", name, n, golden),
                _mean("golden_reward_normalised", name, n, (golden - low) / (high - low)),
                _mean("completion_tokens", name, n, world.tokens[rows, best], unit="tokens"),
                _mean("proxy_reward", name, n, scores[rows, best], unit="reward"),
                Metric(
                    "win_rate_over_greedy", "sft", name, n, wins / PROMPTS,
                    wilson(wins, PROMPTS), PROMPTS, 0, "fraction",
                ),
            ]  # fmt: skip
            for against, other in (
                ("sft/none/1", plain),
                ("sft/greedy/1", world.greedy),
                ("demonstrations/none/1", world.demonstrations),
            ):
                found.append(
                    _mean("golden_reward_difference", name, n, golden - other, against=against)
                )
    return found + _trust()


def _trust() -> list[Metric]:
    found = []
    for place, name in enumerate((*SELECTORS, "golden")):
        if place < 4:
            accuracy = 0.86 - 0.06 * place
            found += [
                Metric("heldout_accuracy", "none", name, 1, accuracy,
                       wilson(accuracy * 200, 200), 200, 0, "fraction"),
                Metric("heldout_calibration_error", "none", name, 1, 0.03 + 0.01 * place,
                       (0.02, 0.06), 200, 0, "fraction"),
                Metric("heldout_log_loss", "none", name, 1, 0.38 + 0.07 * place,
                       (0.33 + 0.07 * place, 0.43 + 0.07 * place), 200, 0, "nats"),
            ]  # fmt: skip
        golden, length = 0.62 - 0.11 * place, (0.35, 0.21, 0.05, 0.55, 1.0, -0.2, -0.7, 0.4)[place]
        found += [
            Metric("golden_correlation", "sft", name, 1, golden, (golden - 0.05, golden + 0.05),
                   PROMPTS, 0, "spearman"),
            Metric("length_correlation", "sft", name, 1, length, None, PROMPTS, 0, "spearman"),
        ]  # fmt: skip
    return found


def _rewards(world: World) -> dict[str, Any]:
    random = np.random.default_rng(11)
    shifts = {"initial": -1.6, "sft": 0.0, "demonstrations": 0.35}
    found: dict[str, Any] = {}
    for name in tuple(SELECTORS)[:4]:
        found[name] = {}
        for source, shift in shifts.items():
            tokens = np.maximum(3, np.round(world.tokens[:, :5].ravel() + 6 * shift))
            values = shift + 0.05 * (tokens - 34) + random.normal(0, 0.9, tokens.size)
            found[name][source] = {
                "values": values.round(4).tolist(),
                "tokens": tokens.astype(int).tolist(),
                "golden": world.golden[:, :5].ravel().round(4).tolist(),
            }
    return found


def _samples(world: World) -> list[dict[str, Any]]:
    random = np.random.default_rng(13)
    found = []
    for place in range(20):
        texts = []
        for _ in range(SAMPLES):
            extras = random.permutation(EXTRAS)[: int(random.integers(0, 5))]
            texts.append(" ".join([FIXES[int(random.integers(2))], *map(str, extras)]))
        found.append(
            {
                "prompt_id": f"test-{place}",
                "prompt": f"My router, model R{place + 10}, blinks red and I have no connection.",
                "demonstration": " ".join([EXTRAS[0], FIXES[0], EXTRAS[1], EXTRAS[4]]),
                "greedy": {"completion": FIXES[0], "golden": round(world.greedy[place], 3)},
                "candidates": [
                    {
                        "completion": text,
                        "tokens": int(world.tokens[place, i]),
                        "finish_reason": "length" if world.tokens[place, i] >= 64 else "stop",
                        "golden": round(world.golden[place, i], 3),
                        "scores": {k: round(v[place, i], 4) for k, v in world.scores.items()},
                    }
                    for i, text in enumerate(texts)
                ],
                "chosen": {k: int(v[place].argmax()) for k, v in world.scores.items()},
            }
        )
    return found


RECIPE = {
    "name": "help-desk",
    "seed": 0,
    "model": {"base": "lab/base", "adapter": {"kind": "lora", "r": 8}},
    "demonstrations": {"source": "demonstrations.jsonl", "test_fraction": 0.1},
    "rollouts": {"samples_per_prompt": SAMPLES, "max_new_tokens": 64, "temperature": 1.0},
    "reward": [
        {"positives": "sft", "negatives": "initial", "loss": "bce"},
        {"positives": "demonstrations", "negatives": "initial"},
    ],
    "evaluation": {"golden": "lab", "n": list(NS)},
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def build_run(folder: Path) -> Path:
    """Write a whole run folder and return it."""
    world = World()
    for place, stage in enumerate(
        (
            *("demonstrations", "sft", "rollouts", "rollouts-test", "best-of-n"),
            *(f"reward/{m}" for m in list(SELECTORS)[:4]),
        )
    ):
        manifest = {
            "stage": stage.partition("/")[0],
            "status": "done",
            "fingerprint": f"{place:064x}",
            "seed": 0,
            "started": "2025-01-01T12:00:00+00:00",
            "seconds": 2.5 + 17.0 * place,
            "files": [{"name": "data.jsonl", "size": 10, "sha256": "0" * 64}],
        }
        write_json(folder / stage / "manifest.json", manifest)
    write_json(
        folder / "evaluation" / "manifest.json",
        {"stage": "evaluation", "status": "done", "seed": 0, "seconds": 31.0, "files": []},
    )
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
    versions = {"torch": "2.8.0", "transformers": "5.10.1"}
    write_json(folder / "env.json", {"python": "3.11.2", "cores": 2, "packages": versions})
    metrics = [dataclasses.asdict(metric) for metric in _metrics(world)]
    results = {"schema": 1, "run": "help-desk", "metrics": metrics}
    write_json(folder / "evaluation" / "results.json", results)
    write_json(folder / "evaluation" / "rewards.json", _rewards(world))
    write_json(folder / "evaluation" / "samples.json", _samples(world))
    return folder


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run folder; read only (`run_copy` may be changed)."""
    return build_run(tmp_path_factory.mktemp("run") / "help-desk")


@pytest.fixture
def run_copy(full_run: Path, tmp_path: Path) -> Path:
    """A copy of the complete run that a test may change."""
    return Path(shutil.copytree(full_run, tmp_path / "help-desk"))


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file with what ``change`` makes of its value."""
    write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))


def shrink(run: Path) -> None:
    """Leave one reward model and one baseline, so that few charts have to be drawn."""
    kept = {"none", "greedy", "init-sft", "length"}

    def fewer(results: dict[str, Any]) -> dict[str, Any]:
        return {**results, "metrics": [m for m in results["metrics"] if m["selector"] in kept]}

    change_json(run / "evaluation/results.json", fewer)
    change_json(run / "evaluation/rewards.json", lambda r: {"init-sft": r["init-sft"]})
