"""Sentences from hand-made metrics: what is told, what is not, and what must worry the reader."""

from __future__ import annotations

from demoalign.records import Metric
from demoalign.report.read import RunResults
from demoalign.report.rewards import recipe_reward_models
from demoalign.report.verdict import (
    compare,
    give_verdict,
    main_n,
    main_reward_model,
)

Interval = tuple[float, float]
GOLDEN = Metric("golden_reward", "sft", "none", 1, 1.0, (0.9, 1.1), 100, 0, "reward")


def run_of(*metrics: Metric, recipe: dict[str, object] | None = None) -> RunResults:
    return RunResults("r", recipe or {}, None, {}, (), metrics, "", {}, (), ())


def difference(
    value: float | None,
    ci95: Interval | None,
    selector: str = "init-sft",
    n: int = 16,
    policy: str = "sft",
    against: str = "sft/none/1",
    reason: str | None = None,
) -> Metric:
    name = "golden_reward_difference"
    return Metric(name, policy, selector, n, value, ci95, 100, 0, "reward", against, reason)


def test_better_is_told_with_its_size_and_interval() -> None:
    verdict = give_verdict(run_of(GOLDEN, difference(0.9, (0.7, 1.1))))
    assert verdict.tone == "better"
    assert verdict.headline == (
        "Best of 16 under init-sft beats the SFT policy's plain samples by 0.90 [0.70, 1.10] "
        "golden reward, paired over 100 prompts."
    )
    assert verdict.warnings == ()


def test_worse_is_told_and_called_hacked() -> None:
    verdict = give_verdict(run_of(GOLDEN, difference(-0.4, (-0.6, -0.2))))
    assert verdict.tone == "worse"
    assert "falls below the SFT policy's plain samples by 0.40 [0.20, 0.60]" in verdict.headline
    assert verdict.warnings[0].startswith("Hacked: Best of 16 under init-sft falls below")


def test_an_interval_that_holds_zero_tells_nothing() -> None:
    for interval in ((-0.1, 0.3), (0.0, 0.3), (-0.3, 0.0), None):
        tone, sentence = compare(difference(0.1, interval))
        assert tone == "unclear"
        assert sentence.startswith("No difference can be told between best of 16 under init-sft")
        assert "+0.10" in sentence


def test_better_at_the_headline_but_hacked_at_large_n() -> None:
    proxy = [
        Metric("proxy_reward", "sft", "init-sft", n, float(n), None, 100, 0, "reward")
        for n in (1, 64)
    ]
    verdict = give_verdict(
        run_of(GOLDEN, difference(0.5, (0.3, 0.7)), difference(-0.5, (-0.8, -0.2), n=64), *proxy)
    )
    assert verdict.tone == "hacked"
    assert verdict.label == "Better, then hacked"
    assert verdict.headline.startswith("Best of 16 under init-sft beats")
    assert "Best of 64 under init-sft falls below" in verdict.warnings[0]
    assert verdict.warnings[0].endswith("while the reward it was chosen for kept rising.")


def test_past_its_peak_is_over_optimised_not_hacked() -> None:
    golden = [
        Metric("golden_reward", "sft", "init-sft", n, v, (v - 0.1, v + 0.1), 100, 0, "reward")
        for n, v in ((1, 1.0), (16, 2.0), (64, 1.5))
    ]
    differences = [difference(1.0, (0.8, 1.2)), difference(0.5, (0.3, 0.7), n=64)]
    verdict = give_verdict(run_of(*golden, *differences))
    assert verdict.tone == "better"
    assert verdict.warnings[0].startswith("Over-optimised: init-sft peaks at n = 16")


def test_no_golden_reward_says_why_and_what_is_known() -> None:
    absent = Metric("golden_reward", "sft", "none", 1, None, None, 0, 0, "", None, "none named")
    accuracy = Metric("heldout_accuracy", "none", "init-sft", 1, 0.8, (0.7, 0.9), 50, 0, "fraction")
    verdict = give_verdict(run_of(absent, accuracy))
    assert verdict.tone == "unmeasured"
    assert verdict.headline.startswith("No golden reward was measured (none named)")
    assert "80% [70%, 90%] of 50 pairs" in verdict.details[0]


def test_a_null_difference_is_not_measured() -> None:
    verdict = give_verdict(run_of(GOLDEN, difference(None, None, reason="too few samples")))
    assert verdict.tone == "unmeasured"
    assert "was not measured (too few samples)" in verdict.headline


def test_other_models_and_baselines_qualify_the_headline() -> None:
    verdict = give_verdict(
        run_of(
            GOLDEN,
            difference(0.9, (0.7, 1.1)),
            difference(0.8, (0.6, 1.0), "length"),
            difference(0.2, (0.1, 0.3), "mean-logprob"),
            difference(0.4, (0.2, 0.6), "preference"),
            difference(0.1, (-0.1, 0.3), against="sft/greedy/1"),
        )
    )
    assert "the SFT policy's greedy decoding" in verdict.details[0]
    assert "preference +0.40 [+0.20, +0.60]" in verdict.details[1]
    assert "length, gains +0.80" in verdict.details[2]
    assert "not clearly above it" in verdict.details[2]


def test_length_and_truncation_warn() -> None:
    verdict = give_verdict(
        run_of(
            GOLDEN,
            difference(0.9, (0.7, 1.1)),
            Metric("length_correlation", "sft", "init-sft", 1, 0.7, None, 100, 0, "spearman"),
            Metric("truncated_fraction", "sft", "none", 1, 0.25, None, 100, 0, "fraction"),
        )
    )
    assert [warning.partition(":")[0] for warning in verdict.warnings] == ["Length", "Truncation"]


def test_the_headline_is_fixed_beforehand_and_not_the_best() -> None:
    run = run_of(
        GOLDEN,
        difference(0.2, (0.1, 0.3), "init-sft", 8),
        difference(0.9, (0.7, 1.1), "init-sft", 64),
        difference(0.1, (0.05, 0.2), "init-demo", 8),
        recipe={"reward": {"positives": "demonstrations", "negatives": "initial"}},
    )
    assert main_n(run) == 8
    assert main_reward_model(run) == "init-demo"
    assert give_verdict(run).headline.startswith("Best of 8 under init-demo beats")


def test_the_first_of_several_reward_models_heads_the_report() -> None:
    metrics = [GOLDEN, difference(0.2, (0.1, 0.3)), difference(0.1, (0.05, 0.2), "mine")]
    named = {"name": "mine", "positives": "sft", "negatives": "initial"}
    preferred = {"positives": "preferred", "negatives": "dispreferred"}
    run = run_of(*metrics, recipe={"reward": [preferred, named]})
    assert [name for name, _ in recipe_reward_models(run)] == ["preference", "mine"]
    assert main_reward_model(run) == "mine"


def test_reward_models_without_a_name_are_called_as_in_the_recipe() -> None:
    sources = {"positives": "sft", "negatives": "initial"}
    sections = [
        {"model": "density_ratio", "name": None, **sources},
        {"model": "mixture", "members": ["a", "b"], **sources},
        {"model": "head", "distils": "a", **sources},
        {"distils": "b"},
    ]
    run = run_of(GOLDEN, recipe={"reward": sections})
    names = [name for name, _ in recipe_reward_models(run)]
    assert names == ["density-ratio", "mixture", "a-head", "b-adapter"]


def test_a_trained_policy_heads_a_run_without_selectors() -> None:
    trained = difference(0.3, (0.1, 0.5), "none", 1, policy="raft")
    verdict = give_verdict(run_of(GOLDEN, trained))
    assert verdict.tone == "better"
    assert verdict.headline.startswith("The RAFT policy (samples) beats")
