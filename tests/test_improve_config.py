"""What the improve section refuses, method by method, and what its defaults mean."""

from __future__ import annotations

from typing import Any

import pytest

from demoalign.config import (
    METHODS,
    RlooConfig,
    parse_recipe,
    policies_of,
    reward_of,
    trained_policy,
)
from demoalign.config.section import IMPROVED, TRAINED
from demoalign.errors import RecipeError

LEAST = {"name": "r", "model": {"base": "b"}, "demonstrations": {"source": "d.jsonl"}}


def improve(**section: Any) -> Any:
    return parse_recipe({**LEAST, "improve": section}, "test").improve


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"method": "rloo", "samples_per_prompt": 1},
            "samples_per_prompt: rloo compares the samples of a prompt with each other and needs "
            "at least 2, found 1",
        ),
        ({"method": "grpo", "samples_per_prompt": 1}, "grpo compares the samples"),
        ({"method": "ppo", "rounds": -1}, "improve.rounds"),
        (
            {"method": "extrapolate", "ratio": {"repeats": 4}},
            "repeats: a next token is weighed before what it repeats is known; must be null, "
            "found 4",
        ),
        ({"method": "rloo", "beta": -0.1}, "improve.beta"),
        ({"method": "rloo", "betta": 0.1}, "unknown key; did you mean 'beta'"),
        (
            {"method": "adversarial", "divergence": "alpha"},
            "alpha: needs a number, found None with alpha",
        ),
        (
            {"method": "adversarial", "alpha": 0.5},
            "alpha: belongs to alpha only, found 0.5 with airl",
        ),
        (
            {"method": "adversarial", "discriminator": {"positives": "preferred"}},
            "positives: must be demonstrations, initial, sft or policy:FOLDER, found preferred",
        ),
        (
            {"method": "adversarial", "discriminator": {"positives": "sft", "negatives": ["sft"]}},
            "positives and negatives must differ, found 'sft' on both sides",
        ),
        (
            {"method": "irl", "step": {"method": "rloo", "reward": "init-sft"}},
            "step.reward: the policy step follows the reward that is learned, found 'init-sft'",
        ),
        (
            {"method": "irl", "reward": {"positives": "preferred"}},
            "reward.positives: must be demonstrations",
        ),
        (
            {"method": "irl", "step": {"method": "ppo", "level": "token"}},
            "step.level: the reward that is learned judges whole answers",
        ),
        ({"method": "raft", "check": {"collapse": 1.5}}, "improve.check.collapse"),
        (
            {"method": "irl", "step": {"method": "rloo", "betta": 1}},
            "improve.step.betta: unknown key; did you mean 'beta'",
        ),
        (
            {"method": "irl", "step": {"method": "dqn"}},
            "improve.step.method: must be one of rloo, grpo, ppo, raft, found 'dqn'",
        ),
    ],
)
def test_refusals_say_key_rule_and_value(section: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        improve(**section)
    assert said in str(caught.value)


def test_a_served_policy_cannot_be_trained() -> None:
    rollouts = {"engine": "openai", "endpoint": {"base_url": "http://localhost:1"}}
    with pytest.raises(RecipeError, match=r"improve\.method: rloo trains and samples by turns"):
        parse_recipe({**LEAST, "rollouts": rollouts, "improve": {"method": "rloo"}}, "test")


def test_rewards_of_tokens_need_a_reward_that_has_them() -> None:
    rewards = [{"model": "head"}, {"model": "density_ratio"}]
    recipe = parse_recipe({**LEAST, "reward": rewards, "improve": {"method": "rloo"}}, "test")
    asked = RlooConfig(level="token")
    assert reward_of(recipe, asked).title == "density-ratio"
    with pytest.raises(RecipeError, match=r"improve\.level: token needs .* found init-sft"):
        reward_of(recipe, asked.model_copy(update={"reward": "init-sft"}))
    assert reward_of(recipe, RlooConfig(reward="init-sft")).title == "init-sft"


def test_every_method_that_trains_names_its_policy() -> None:
    for method in TRAINED:
        section = improve(method=method)
        assert policies_of(section) == (method,)
        assert trained_policy(section) == method
    assert {*METHODS} == {"best_of_n", "extrapolate", *TRAINED}
    assert {*policies_of(improve(method="extrapolate", distil={}))} | {*TRAINED} == {*IMPROVED}
    assert policies_of(improve(method="best_of_n")) == ()


def test_the_one_shot_method_is_no_rounds() -> None:
    discriminator = {"positives": "sft", "negatives": ["initial"]}
    assert improve(method="adversarial", rounds=0, discriminator=discriminator).rounds == 0
