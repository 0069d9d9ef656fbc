"""From what was measured to the metrics of results.json, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from demoalign.evaluation.measured import Measured
from demoalign.improve.best_of_n import expected_best_of_n, kl_bound
from demoalign.intervals import bootstrap_mean, wilson
from demoalign.policies.policy import SFT
from demoalign.records import Metric

Array = NDArray[np.float64]
NONE = "none"

RIVALS = {
    "sft/none/1": "candidates",
    "sft/greedy/1": "greedy",
    "demonstrations/none/1": "demonstrations",
}
"""What best-of-n and improved policies are compared with, paired by prompt."""

UNIMPROVED = {"initial", *RIVALS.values()}
"""Sources that are compared with nothing."""

NORMALISED = "initial = 0, demonstrations = 1"
WINS = "fraction of prompts, a tie counts one half"
CORRELATION = "Spearman correlation within a prompt"


class MetricMaker:
    """Makes metrics of one run; every mean gets a bootstrap interval over prompts."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def mean(
        self,
        name: str,
        policy: str,
        selector: str,
        n: int,
        values: Array,
        unit: str,
        against: str | None = None,
    ) -> Metric:
        """Mean of (P,) values; null with a reason if there is none."""
        if not len(values):
            return self.missing(name, policy, selector, n, unit, "no prompt was scored", against)
        return Metric(
            name,
            policy,
            selector,
            n,
            float(values.mean()),
            bootstrap_mean(values),
            len(values),
            self.seed,
            unit,
            against,
        )

    def missing(
        self,
        name: str,
        policy: str,
        selector: str,
        n: int,
        unit: str,
        reason: str,
        against: str | None = None,
    ) -> Metric:
        """A metric that could not be computed."""
        return Metric(name, policy, selector, n, None, None, 0, self.seed, unit, against, reason)


def all_metrics(measured: Measured, sizes: Sequence[int], seed: int) -> list[Metric]:
    """Every metric of the test prompts, golden ones only on prompts that are wholly scored."""
    make = MetricMaker(seed)
    metrics = length_metrics(measured, sizes, make) + proxy_metrics(measured, sizes, make)
    metrics += unscored_metrics(measured, sizes, make)
    scored = measured.scored()
    if scored.golden is None:
        reason = "no golden reward: set evaluation.golden"
        unit = "golden reward"
        missing = [
            make.missing("golden_reward", policy, selector, 1, unit, reason)
            for policy, selector in measured.plain.values()
        ]
        return metrics + missing
    unscored = len(measured.prompt_ids) - len(scored.prompt_ids)
    count = Metric(
        "golden_unscored_prompts",
        SFT,
        NONE,
        1,
        float(unscored),
        None,
        len(measured.prompt_ids),
        seed,
        "prompts",
    )
    return [*metrics, count, *golden_metrics(scored, sizes, make)]


def unscored_metrics(measured: Measured, sizes: Sequence[int], make: MetricMaker) -> list[Metric]:
    """What is missing of the selectors that could not choose, with the reason."""
    metrics = []
    for selector, reason in measured.unscored.items():

        def missing(
            name: str,
            unit: str,
            n: int = 1,
            against: str | None = None,
            selector: str = selector,
            reason: str = reason,
        ) -> Metric:
            return make.missing(name, SFT, selector, n, unit, reason, against)

        metrics += [missing("completion_tokens", "tokens", n) for n in sizes]
        metrics.append(missing("length_correlation", CORRELATION))
        if measured.golden is None:
            continue
        for n in sizes:
            metrics += [
                missing("golden_reward", "golden reward", n),
                missing("golden_reward_normalised", NORMALISED, n),
                missing("win_rate_over_greedy", WINS, n),
                *(missing("golden_reward_difference", "golden reward", n, each) for each in RIVALS),
            ]
        metrics.append(missing("golden_correlation", CORRELATION))
    return metrics


def golden_metrics(measured: Measured, sizes: Sequence[int], make: MetricMaker) -> list[Metric]:
    """Golden reward of policies and selectors, raw and normalised, wins and paired differences."""
    golden = measured.golden
    assert golden is not None
    metrics = []
    means = {source: values.mean(axis=1) for source, values in golden.items()}
    scale = _scale(means)
    for source, (policy, selector) in measured.plain.items():
        metrics += _raw_and_normalised(make, policy, selector, 1, means[source], scale)
        if source not in UNIMPROVED:
            metrics += _compared(make, (policy, selector), source, golden)
    wins = _wins_over(golden["candidates"], golden["greedy"])
    for selector, scores in measured.selectors.items():
        for n in sizes:
            values = expected_best_of_n(golden["candidates"], scores, n)
            metrics += _raw_and_normalised(make, SFT, selector, n, values, scale)
            won = expected_best_of_n(wins, scores, n)
            metrics.append(_win_rate(make, SFT, selector, n, won))
            metrics += [
                make.mean(
                    "golden_reward_difference",
                    SFT,
                    selector,
                    n,
                    values - means[source],
                    "golden reward",
                    against,
                )
                for against, source in RIVALS.items()
            ]
        metrics.append(
            _correlation(make, "golden_correlation", selector, scores, golden["candidates"])
        )
    return metrics


def _compared(
    make: MetricMaker, name: tuple[str, str], source: str, golden: Mapping[str, Array]
) -> list[Metric]:
    """Wins over greedy decoding and paired differences of one policy's plain samples."""
    policy, selector = name
    wins = _wins_over(golden[source], golden["greedy"]).mean(axis=1)
    metrics = [_win_rate(make, policy, selector, 1, wins)]
    mean = golden[source].mean(axis=1)
    for against, rival in RIVALS.items():
        difference = mean - golden[rival].mean(axis=1)
        unit = "golden reward"
        metrics.append(
            make.mean("golden_reward_difference", policy, selector, 1, difference, unit, against)
        )
    return metrics


def proxy_metrics(measured: Measured, sizes: Sequence[int], make: MetricMaker) -> list[Metric]:
    """Reward-model value of what it selects, and the bound on how far that is from the policy."""
    metrics = [
        Metric("kl_bound", SFT, NONE, n, kl_bound(n), None, 1, make.seed, "nats") for n in sizes
    ]
    for source, values in measured.log_ratios.items():
        policy, selector = measured.plain[source]
        mean = values.mean(axis=1)
        metrics.append(make.mean("kl", policy, selector, 1, mean, "nats", f"{SFT}/{NONE}/1"))
    for name in measured.reward_models:
        scores, unit = measured.selectors[name], measured.units.get(name, "logits")
        metrics += [
            make.mean("proxy_reward", SFT, name, n, expected_best_of_n(scores, scores, n), unit)
            for n in sizes
        ]
    return metrics


def length_metrics(measured: Measured, sizes: Sequence[int], make: MetricMaker) -> list[Metric]:
    """Lengths of what policies say and selectors choose, and how far length explains a score."""
    metrics = []
    for source, (policy, selector) in measured.plain.items():
        tokens, cut = measured.tokens[source].mean(axis=1), measured.cut[source].mean(axis=1)
        metrics.append(make.mean("completion_tokens", policy, selector, 1, tokens, "tokens"))
        metrics.append(make.mean("truncated_fraction", policy, selector, 1, cut, "fraction"))
    lengths = measured.tokens["candidates"]
    for selector, scores in measured.selectors.items():
        metrics += [
            make.mean(
                "completion_tokens",
                SFT,
                selector,
                n,
                expected_best_of_n(lengths, scores, n),
                "tokens",
            )
            for n in sizes
        ]
        metrics.append(_correlation(make, "length_correlation", selector, scores, lengths))
    return metrics


def _scale(means: dict[str, Array]) -> tuple[float, float] | None:
    """Golden reward that counts as 0 and as 1, or None if they cannot be told apart."""
    if not len(means["initial"]):
        return None
    low, high = float(means["initial"].mean()), float(means["demonstrations"].mean())
    return None if abs(high - low) < 1e-9 else (low, high)


def _raw_and_normalised(
    make: MetricMaker,
    policy: str,
    selector: str,
    n: int,
    values: Array,
    scale: tuple[float, float] | None,
) -> list[Metric]:
    raw = make.mean("golden_reward", policy, selector, n, values, "golden reward")
    name, unit = "golden_reward_normalised", NORMALISED
    if scale is None:
        reason = (
            "the demonstrations score as the initial policy does"
            if len(values)
            else "no prompt was scored"
        )
        return [raw, make.missing(name, policy, selector, n, unit, reason)]
    low, high = scale
    shifted = (values - low) / (high - low)
    return [raw, make.mean(name, policy, selector, n, shifted, unit)]


def _wins_over(candidates: Array, greedy: Array) -> Array:
    """(P, M): 1 where the candidate's golden reward beats greedy's (P, 1), 0.5 for a tie."""
    wins: Array = (candidates > greedy) + 0.5 * (candidates == greedy)
    return wins


def _win_rate(make: MetricMaker, policy: str, selector: str, n: int, wins: Array) -> Metric:
    name, unit = "win_rate_over_greedy", WINS
    if not len(wins):
        return make.missing(name, policy, selector, n, unit, "no prompt was scored")
    total = float(np.clip(wins.sum(), 0, len(wins)))
    return Metric(
        name,
        policy,
        selector,
        n,
        total / len(wins),
        wilson(total, len(wins)),
        len(wins),
        make.seed,
        unit,
    )


def _correlation(
    make: MetricMaker, name: str, selector: str, scores: Array, values: Array
) -> Metric:
    """Mean over prompts of the Spearman correlation among the candidates of a prompt."""
    found = []
    for left, right in zip(scores, values, strict=True):
        a, b = rankdata(left), rankdata(right)
        if a.std() > 0 and b.std() > 0:
            found.append(float(np.corrcoef(a, b)[0, 1]))
    if not found:
        reason = "in no prompt do both vary" if len(scores) else "no prompt was scored"
        return make.missing(name, SFT, selector, 1, CORRELATION, reason)
    return make.mean(name, SFT, selector, 1, np.array(found), CORRELATION)
