"""Seconds of one prompt's rollouts against N, prompt length and completion length, on one core.

    python benchmarks/cost_curve.py --json > docs/results/cost-curve.json
    python docs/cost_curve.py docs/results/cost-curve.json

Both sides run in turns in this process in fp32, on the small Llama of `best_of_n.py` with random
weights. Along N and prompt length answers end with probability 1/32 at each token, at 64 tokens at
the latest; along completion length all have that length. `generate` is left out from where it
would take longer than `PATIENCE`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench_models import as_backbone, prompt_ids, small_llama, text_of
from bench_sampling import peak_bytes
from demoalign.config import RolloutsConfig
from demoalign.policies.branches import SPARE
from demoalign.policies.policy import Policy
from demoalign.rollouts import PromptSpec, TransformersEngine

PATIENCE = 60.0
"""Most seconds that one call of `generate` is expected to take."""

ENOUGH = 1.5
"""Seconds after which a point is not measured again."""

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Point:
    """n completions of one prompt; ``is_exact``: all have ``most`` tokens, else at most."""

    n: int = 64
    prompt: int = 200
    most: int = 64
    is_exact: bool = False

    @property
    def work(self) -> int:
        """What `generate`'s time grows no faster than: token positions that are held."""
        return self.n * (self.prompt + self.most) * self.most


CURVES: dict[str, list[Point]] = {
    "n": [Point(n=n) for n in (1, 4, 16, 64, 256, 1024)],
    "prompt": [Point(prompt=length) for length in (16, 64, 256, 512, 1024)],
    "completion": [Point(most=most, is_exact=True) for most in (8, 16, 32, 64, 128, 256)],
}


def spec_of(point: Point) -> PromptSpec:
    """A random prompt."""
    return PromptSpec("p", text_of(prompt_ids(point.prompt)))


def ours(policy: Policy, point: Point, seed: int) -> int:
    """Sample with the engine; give the number of tokens."""
    config = RolloutsConfig(
        max_new_tokens=point.most, min_new_tokens=point.most if point.is_exact else 0
    )
    rollouts = TransformersEngine(config).sample(policy, [spec_of(point)], point.n, seed)
    return sum(len(each.token_ids) for each in rollouts)


def theirs(policy: Policy, point: Point, seed: int) -> int:
    """Sample with `generate`; give the number of tokens, padding included."""
    torch.manual_seed(seed)
    ids = torch.tensor([prompt_ids(point.prompt)])
    output = policy.backbone.causal.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=point.n,
        do_sample=True,
        max_new_tokens=point.most,
        min_new_tokens=point.most if point.is_exact else None,
        top_k=0,
    )
    return int(output[:, ids.shape[1] :].numel())


Sample = Callable[[Policy, Point, int], int]


def seconds(sample: Sample, policy: Policy, point: Point) -> float:
    """Median of some runs."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < ENOUGH:
        clock = time.perf_counter()
        sample(policy, point, len(times))
        times.append(time.perf_counter() - clock)
    return statistics.median(times)


def curve(policy: Policy, points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """Seconds of both sides at each point."""
    rate = 0.0
    for point in points:
        found: dict[str, Any] = {"n": point.n, "prompt": point.prompt, "completion": point.most}
        found["ours"] = seconds(ours, policy, point)
        expected = rate * point.work
        if expected > PATIENCE:
            found |= {"generate": None, "reason": f"expected to take {expected:.0f} s"}
        else:
            found["generate"] = seconds(theirs, policy, point)
            rate = found["generate"] / point.work
        yield found


def memory(policy: Policy) -> dict[str, Any]:
    """Most bytes of keys and values with 256 places, at prompt 512 and up to 64 new tokens.

    256 samples fill the places once and end together; with more, places are filled again, and
    what is held stops growing at latest where all of them are as long as they can be.
    """
    point, places = Point(prompt=512), 256
    config = policy.backbone.causal.config
    token = 2 * 4 * config.num_hidden_layers * config.hidden_size
    held = {
        n: peak_bytes(policy, spec_of(point), n, places=places, most=point.most)
        for n in (256, 1000, 4000)
    }
    return {
        "prompt": point.prompt,
        "completion": point.most,
        "places": places,
        "bound": (point.prompt + places * (point.most + SPARE)) * token,
        "held": [
            {"n": n, "bytes": most, "copied_bytes": n * (point.prompt + point.most) * token}
            for n, most in held.items()
        ],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="all figures as one line of JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy = Policy("initial", as_backbone(small_llama()))
    warm = replace(Point(), n=4, most=4)
    ours(policy, warm, 0)
    theirs(policy, warm, 0)
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, points in CURVES.items():
        curves[name] = []
        for found in curve(policy, points):
            curves[name].append(found)
            sys.stderr.write(f"{name:12} {json.dumps(found)}\n")
    held = memory(policy)
    sys.stderr.write(f"memory       {json.dumps(held)}\n")
    if given.json:
        sys.stdout.write(json.dumps({"schema": 1, "curves": curves, "memory": held}) + "\n")


if __name__ == "__main__":
    main()
