"""Metrics of three prompts with four candidates each, against numbers computed by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from demoalign.errors import EvaluationError
from demoalign.evaluation import Measured, all_metrics
from demoalign.evaluation.measured import as_grid
from demoalign.intervals import bootstrap_mean, wilson
from demoalign.records import Metric

Array = NDArray[np.float64]
NAN = math.nan
SIZES = (1, 2, 4)


def grid(*rows: list[float]) -> Array:
    return np.array(rows, dtype=np.float64)


TOKENS = {
    "candidates": grid([10, 20, 30, 40], [5, 5, 5, 5], [2, 4, 4, 8]),
    "greedy": grid([20], [6], [4]),
    "initial": grid([8, 12], [4, 4], [2, 0]),
    "demonstrations": grid([9], [9], [9]),
}
CUT = {
    "candidates": grid([0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]),
    "greedy": grid([0], [1], [0]),
    "initial": grid([1, 1], [0, 0], [0, 0]),
    "demonstrations": grid([0], [0], [0]),
}
GOLDEN = {
    "candidates": grid([1, 2, 3, 4], [4, 0, 2, 2], [3, 3, 1, 1]),
    "greedy": grid([2], [2], [3]),
    "initial": grid([0, 1], [1, 1], [0, 0]),
    "demonstrations": grid([5], [4], [3]),
}
SELECTORS = {"rm": grid([1, 2, 3, 4], [0, 3, 1, 2], [5, 5, 0, 0]), "length": TOKENS["candidates"]}
MEASURED = Measured(("a", "b", "c"), SELECTORS, ("rm",), TOKENS, CUT, GOLDEN)


def with_golden(**sources: Array) -> Measured:
    return dataclasses.replace(MEASURED, golden={**GOLDEN, **sources})


def find(
    metrics: list[Metric],
    name: str,
    policy: str = "sft",
    selector: str = "none",
    n: int = 1,
    against: str | None = None,
) -> Metric:
    found = [
        each
        for each in metrics
        if (each.metric, each.policy, each.selector, each.n) == (name, policy, selector, n)
        and against in (None, each.against)
    ]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def metrics() -> list[Metric]:
    return all_metrics(MEASURED, SIZES, seed=11)


@pytest.mark.parametrize(
    ("policy", "selector", "by_prompt"),
    [
        ("initial", "none", [0.5, 1, 0]),
        ("sft", "none", [2.5, 2, 2]),
        ("sft", "greedy", [2, 2, 3]),
        ("demonstrations", "none", [5, 4, 3]),
    ],
)
def test_golden_reward_of_plain_policies(
    metrics: list[Metric], policy: str, selector: str, by_prompt: list[float]
) -> None:
    values = np.array(by_prompt, dtype=np.float64)
    raw = find(metrics, "golden_reward", policy, selector)
    assert raw.value == pytest.approx(values.mean())
    assert raw.ci95 == pytest.approx(bootstrap_mean(values))
    assert (raw.count, raw.seed, raw.unit, raw.reason) == (3, 11, "golden reward", None)
    normalised = find(metrics, "golden_reward_normalised", policy, selector)
    assert normalised.value == pytest.approx((values.mean() - 0.5) / 3.5)
    assert normalised.ci95 == pytest.approx(bootstrap_mean((values - 0.5) / 3.5))


def test_the_scale_runs_from_initial_to_demonstrations(metrics: list[Metric]) -> None:
    low = find(metrics, "golden_reward_normalised", "initial").value
    high = find(metrics, "golden_reward_normalised", "demonstrations").value
    assert [low, high] == pytest.approx([0, 1])


RM_BY_PROMPT = {1: [2.5, 2, 2], 2: [10 / 3, 1, 8 / 3], 4: [4, 0, 3]}
LENGTH_BY_PROMPT = {1: [2.5, 2, 2], 2: [10 / 3, 2, 1.5], 4: [4, 2, 1]}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("selector", "by_prompt"), [("rm", RM_BY_PROMPT), ("length", LENGTH_BY_PROMPT)]
)
def test_golden_reward_of_selectors(
    metrics: list[Metric], selector: str, by_prompt: dict[int, list[float]], n: int
) -> None:
    values = np.array(by_prompt[n])
    raw = find(metrics, "golden_reward", "sft", selector, n)
    assert raw.value == pytest.approx(values.mean())
    assert raw.ci95 == pytest.approx(bootstrap_mean(values))
    normalised = find(metrics, "golden_reward_normalised", "sft", selector, n)
    assert normalised.value == pytest.approx((values.mean() - 0.5) / 3.5)
    for rival, means in (
        ("sft/none/1", [2.5, 2, 2]),
        ("sft/greedy/1", [2, 2, 3]),
        ("demonstrations/none/1", [5, 4, 3]),
    ):
        difference = values - np.array(means)
        paired = find(metrics, "golden_reward_difference", "sft", selector, n, rival)
        assert paired.value == pytest.approx(difference.mean(), abs=1e-12)
        assert paired.ci95 == pytest.approx(bootstrap_mean(difference))
        assert paired.count == 3


@pytest.mark.parametrize(("n", "wins"), [(1, 1.375), (2, 19 / 12), (4, 1.5)])
def test_win_rate_over_greedy_counts_ties_as_one_half(
    metrics: list[Metric], n: int, wins: float
) -> None:
    rate = find(metrics, "win_rate_over_greedy", "sft", "rm", n)
    assert rate.value == pytest.approx(wins / 3)
    assert rate.ci95 == pytest.approx(wilson(wins, 3))
    assert (rate.count, rate.against) == (3, None)
    assert rate.unit == "fraction of prompts, a tie counts one half"


def test_correlations_within_prompts(metrics: list[Metric]) -> None:
    """Lengths of the second prompt do not vary: it has no correlation."""
    length = find(metrics, "length_correlation", selector="rm")
    assert length.value == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert length.count == 2
    golden = find(metrics, "golden_correlation", selector="rm")
    assert golden.value == pytest.approx((2 - 4.5 / math.sqrt(22.5)) / 3)
    assert golden.count == 3
    assert find(metrics, "length_correlation", selector="length").value == pytest.approx(1)


def test_a_selector_that_never_varies_has_no_correlation() -> None:
    measured = dataclasses.replace(MEASURED, selectors={"rm": np.zeros((3, 4))})
    found = all_metrics(measured, SIZES, 0)
    for name in ("length_correlation", "golden_correlation"):
        metric = find(found, name, selector="rm")
        assert (metric.value, metric.count) == (None, 0)
        assert metric.reason == "in no prompt do both vary"
    assert find(found, "golden_reward", selector="rm", n=4).value == pytest.approx(13 / 6)


@pytest.mark.parametrize(("n", "value"), [(1, 6.5 / 3), (2, 59 / 18), (4, 4.0)])
def test_proxy_reward_is_what_the_reward_model_thinks_of_its_choice(
    metrics: list[Metric], n: int, value: float
) -> None:
    metric = find(metrics, "proxy_reward", selector="rm", n=n)
    assert metric.value == pytest.approx(value)
    assert metric.unit == "logits"


def test_baselines_have_no_proxy_reward(metrics: list[Metric]) -> None:
    assert {each.selector for each in metrics if each.metric == "proxy_reward"} == {"rm"}


@pytest.mark.parametrize("n", SIZES)
def test_kl_bound(metrics: list[Metric], n: int) -> None:
    bound = find(metrics, "kl_bound", n=n)
    assert bound.value == pytest.approx(math.log(n) - (n - 1) / n)
    assert (bound.ci95, bound.unit) == (None, "nats")


@pytest.mark.parametrize(
    ("policy", "selector", "n", "value"),
    [
        ("initial", "none", 1, 5),
        ("sft", "none", 1, 11.5),
        ("sft", "greedy", 1, 10),
        ("demonstrations", "none", 1, 9),
        ("sft", "rm", 1, 11.5),
        ("sft", "rm", 2, (200 / 6 + 5 + 3.5) / 3),
        ("sft", "rm", 4, (40 + 5 + 3) / 3),
        ("sft", "length", 4, (40 + 5 + 8) / 3),
    ],
)
def test_completion_tokens(
    metrics: list[Metric], policy: str, selector: str, n: int, value: float
) -> None:
    metric = find(metrics, "completion_tokens", policy, selector, n)
    assert metric.value == pytest.approx(value)
    assert (metric.count, metric.unit) == (3, "tokens")


@pytest.mark.parametrize(
    ("policy", "selector", "value"),
    [
        ("initial", "none", 1 / 3),
        ("sft", "none", 0.25),
        ("sft", "greedy", 1 / 3),
        ("demonstrations", "none", 0),
    ],
)
def test_truncated_fraction(
    metrics: list[Metric], policy: str, selector: str, value: float
) -> None:
    assert find(metrics, "truncated_fraction", policy, selector).value == pytest.approx(value)


def test_all_prompts_scored(metrics: list[Metric]) -> None:
    count = find(metrics, "golden_unscored_prompts")
    assert (count.value, count.count, count.ci95) == (0, 3, None)


@pytest.mark.parametrize(
    "sources",
    [
        {"candidates": grid([1, 2, 3, 4], [4, 0, NAN, 2], [3, 3, 1, 1])},
        {"greedy": grid([2], [NAN], [3])},
        {"initial": grid([0, 1], [NAN, 1], [0, 0])},
        {"demonstrations": grid([5], [NAN], [3])},
    ],
    ids=lambda sources: next(iter(sources)),
)
def test_a_prompt_with_an_unscored_answer_is_left_out(sources: dict[str, Array]) -> None:
    found = all_metrics(with_golden(**sources), SIZES, 0)
    count = find(found, "golden_unscored_prompts")
    assert (count.value, count.count) == (1, 3)
    raw = find(found, "golden_reward", "sft", "rm", 4)
    assert (raw.value, raw.count) == (3.5, 2)
    assert find(found, "golden_reward").value == pytest.approx(2.25)
    normalised = find(found, "golden_reward_normalised", "sft", "rm", 4)
    assert normalised.value == pytest.approx((3.5 - 0.25) / (4 - 0.25))
    assert find(found, "win_rate_over_greedy", "sft", "rm", 4).value == pytest.approx(0.75)
    paired = find(found, "golden_reward_difference", "sft", "rm", 4, "sft/greedy/1")
    assert paired.value == pytest.approx(1)
    assert paired.count == 2
    assert find(found, "golden_correlation", selector="rm").value == pytest.approx(1)
    assert find(found, "completion_tokens").value == pytest.approx(11.5)
    assert find(found, "completion_tokens").count == 3
    assert find(found, "proxy_reward", selector="rm", n=4).count == 3


def test_nothing_scored_is_null_with_the_reason() -> None:
    nothing = {source: np.full(values.shape, NAN) for source, values in GOLDEN.items()}
    found = all_metrics(with_golden(**nothing), SIZES, 0)
    assert find(found, "golden_unscored_prompts").value == 3
    golden = [
        each
        for each in found
        if each.metric.startswith(("golden_reward", "win_rate", "golden_correlation"))
    ]
    assert len(golden) == 4 * 2 + 2 * (len(SIZES) * 6 + 1)
    for metric in golden:
        assert (metric.value, metric.ci95, metric.count) == (None, None, 0)
        assert metric.reason == "no prompt was scored"
    rivals = {each.against for each in golden if each.metric == "golden_reward_difference"}
    assert rivals == {"sft/none/1", "sft/greedy/1", "demonstrations/none/1"}


def test_no_golden_reward_is_null_with_the_reason() -> None:
    found = all_metrics(dataclasses.replace(MEASURED, golden=None), SIZES, 0)
    for policy, selector in (
        ("initial", "none"),
        ("sft", "none"),
        ("sft", "greedy"),
        ("demonstrations", "none"),
    ):
        metric = find(found, "golden_reward", policy, selector)
        assert (metric.value, metric.ci95, metric.count) == (None, None, 0)
        assert metric.reason == "no golden reward: set evaluation.golden"
    assert find(found, "proxy_reward", selector="rm", n=4).value == pytest.approx(4)
    golden = [each for each in found if each.metric.startswith(("golden", "win"))]
    assert len(golden) == 4


def test_demonstrations_no_better_than_initial_leave_no_scale() -> None:
    found = all_metrics(with_golden(demonstrations=grid([0.5], [0.5], [0.5])), SIZES, 0)
    normalised = [each for each in found if each.metric == "golden_reward_normalised"]
    assert len(normalised) == 4 + 2 * len(SIZES)
    for metric in normalised:
        assert (metric.value, metric.ci95) == (None, None)
        assert metric.reason == "the demonstrations score as the initial policy does"
    assert find(found, "golden_reward", "demonstrations").value == 0.5


def test_every_number_has_its_interval_or_its_reason(metrics: list[Metric]) -> None:
    without_interval = {each.metric for each in metrics if each.ci95 is None}
    assert without_interval == {"kl_bound", "golden_unscored_prompts"}
    for metric in metrics:
        assert metric.value is not None
        assert metric.reason is None
        if metric.ci95 is not None:
            assert metric.ci95[0] <= metric.value + 1e-12
            assert metric.value <= metric.ci95[1] + 1e-12


def test_more_than_the_candidates_cannot_be_chosen_from() -> None:
    with pytest.raises(EvaluationError, match="n must be between 1 and 4 samples, found 8"):
        all_metrics(MEASURED, (1, 8), 0)


WRONG = [
    ({"selectors": {"rm": np.zeros((3, 3))}}, r"selector rm: scores must be \(3, 4\), found"),
    ({"selectors": {"rm": np.zeros(4)}}, r"selector rm: scores must be \(3, 4\), found"),
    ({"tokens": {**TOKENS, "greedy": np.zeros((2, 1))}}, r"tokens of greedy must be \(3, 1\)"),
    ({"tokens": {**TOKENS, "greedy": np.zeros(3)}}, "tokens of greedy must be"),
    ({"cut": {**CUT, "initial": np.zeros((3, 1))}}, r"cut of initial must be \(3, 2\), found"),
    (
        {"golden": {**GOLDEN, "candidates": np.zeros((3, 1))}},
        r"golden of candidates must be \(3, 4\), found \(3, 1\)",
    ),
    ({"prompt_ids": ("a", "b")}, r"selector rm: scores must be \(2, 4\), found \(3, 4\)"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_shapes(change: dict[str, object], message: str) -> None:
    fields = {field.name: getattr(MEASURED, field.name) for field in dataclasses.fields(Measured)}
    with pytest.raises(EvaluationError, match=message):
        Measured(**{**fields, **change})


def test_some_of_the_prompts() -> None:
    taken = MEASURED.take(np.array([2, 0]))
    assert taken.prompt_ids == ("c", "a")
    assert taken.selectors["rm"].tolist() == [[5, 5, 0, 0], [1, 2, 3, 4]]
    assert taken.tokens["greedy"].tolist() == [[4], [20]]
    assert taken.cut["initial"].tolist() == [[0, 0], [1, 1]]
    assert taken.golden is not None
    assert taken.golden["demonstrations"].tolist() == [[3], [5]]
    assert taken.reward_models == ("rm",)
    without = dataclasses.replace(MEASURED, golden=None)
    assert without.take(np.array([1])).golden is None
    assert without.scored() is without


def test_values_prompt_by_prompt() -> None:
    found = as_grid([1, 2.5, None, 4], 2)
    assert found.tolist()[0] == [1, 2.5]
    assert np.isnan(found[1, 0])
    assert found[1, 1] == 4
    assert found.dtype == np.float64


@pytest.mark.parametrize(("count", "prompts"), [(3, 2), (0, 0), (4, 0)])
def test_values_that_do_not_fit_the_prompts(count: int, prompts: int) -> None:
    wanted = f"{count} values cannot be K for each of {prompts} prompts"
    with pytest.raises(EvaluationError, match=wanted):
        as_grid([0.0] * count, prompts)


def test_a_selector_that_could_not_choose_is_null_with_a_reason() -> None:
    reason = "the log-probability of 3 of 12 candidates is not known"
    measured = dataclasses.replace(MEASURED, unscored={"mean-logprob": reason})
    found = [m for m in all_metrics(measured, SIZES, 0) if m.selector == "mean-logprob"]
    like = [m for m in all_metrics(measured, SIZES, 0) if m.selector == "length"]
    keys = [[(m.metric, m.policy, m.n, m.against, m.unit) for m in each] for each in (found, like)]
    assert sorted(keys[0], key=str) == sorted(keys[1], key=str)
    assert {(m.value, m.ci95, m.count, m.reason) for m in found} == {(None, None, 0, reason)}
    without = dataclasses.replace(measured, golden=None)
    names = {m.metric for m in all_metrics(without, SIZES, 0) if m.selector == "mean-logprob"}
    assert names == {"completion_tokens", "length_correlation"}
    others = [m for m in all_metrics(measured, SIZES, 0) if m.selector != "mean-logprob"]
    assert others == all_metrics(MEASURED, SIZES, 0)
