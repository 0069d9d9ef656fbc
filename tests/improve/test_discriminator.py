"""The discriminator that learns along: what it reads, how it learns, what holds it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig, AdversarialConfig, DiscriminatorConfig
from demoalign.divergences import equal_offset, policy_reward
from demoalign.errors import TrainingError
from demoalign.improve.adversarial import AdversarialReward, Sides
from demoalign.improve.discriminator import Discriminator
from demoalign.policies import Backbone
from demoalign.policies.last_hidden import Row
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scorers import SharedScorer, linear_head
from tests.conftest import ModelFolder
from tests.improve.trainings import said_of
from tests.models import load_backbone

PROMPTS = ((5, 6, 7), (8, 9))
UPS = [Row(PROMPTS[0], (10, 11)), Row(PROMPTS[1], (12, 13, 14))]
DOWNS = [Row(PROMPTS[0], (20, 21, 22, 23)), Row(PROMPTS[1], (24,))]
PLAIN: dict[str, Any] = {"label_smoothing": 0.0, "target_accuracy": None, "learning_rate": 1e-2}


def network(folder: Path, by_token: bool = False, **changes: Any) -> Discriminator:
    backbone = load_backbone(folder)
    return on(backbone, by_token, **changes)


def on(backbone: Backbone, by_token: bool = False, **changes: Any) -> Discriminator:
    backbone.add_adapter("d", AdapterConfig(r=4), seed=0)
    scorer = SharedScorer(backbone, "d", linear_head(backbone.hidden_size, 0, backbone.device))
    with torch.no_grad():
        scorer.head.weight *= 10
    config = DiscriminatorConfig.model_validate({**PLAIN, **changes})
    return Discriminator(backbone, scorer, config, by_token)


@pytest.fixture
def folder(model_folder: ModelFolder) -> Path:
    return model_folder("llama", "eos_only")


def test_the_last_tokens_logit_is_the_whole_answers(folder: Path) -> None:
    whole, by_token = network(folder), network(folder, by_token=True)
    rows = [*UPS, *DOWNS]
    for one, every, row in zip(whole.logits(rows), by_token.logits(rows), rows, strict=True):
        assert one.shape == (1,)
        assert every.shape == (len(row.completion),)
        assert every[-1] == pytest.approx(one[0], abs=1e-5)
    for row, every in zip(rows, by_token.logits(rows), strict=True):
        before = by_token.logits([Row(row.prompt, row.completion[:1])])[0]
        assert before[0] == pytest.approx(every[0], abs=1e-5)  # a token's logit knows no later one


def test_a_stored_discriminator_is_a_reward_model(folder: Path, tmp_path: Path) -> None:
    made = network(folder)
    tokenizer = made.backbone.tokenizer
    RewardModel("d", made.scorer, tokenizer).save(tmp_path / "d")
    loaded = RewardModel.load(tmp_path / "d")
    ids = tokenizer("Is key 1 on?")["input_ids"]
    said = tokenizer(" Yes")["input_ids"] + [tokenizer.eos_token_id]
    wanted = made.logits([Row(tuple(ids), tuple(said))])[0][0]
    assert loaded.score(["Is key 1 on?"], [" Yes"])[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_it_learns_to_tell_the_sides_apart(folder: Path, by_token: bool, penalty: float) -> None:
    made = network(folder, by_token, gradient_penalty=penalty)
    facts = [made.step(UPS, DOWNS) for _ in range(30)]
    losses = [each["discriminator_loss"] or 0.0 for each in facts]
    assert losses[-1] < 0.2 < losses[0]
    assert facts[-1]["discriminator_accuracy"] == 1.0
    ups, downs = made.logits(UPS), made.logits(DOWNS)
    assert min(each.min() for each in ups) > max(each.max() for each in downs)


def test_smoothed_labels_bound_the_logit(folder: Path) -> None:
    """The best logit for labels 0.9 and 0.1 is log 9."""
    made = network(folder, label_smoothing=0.1)
    for _ in range(150):
        made.step(UPS, DOWNS)
    found = np.concatenate([*made.logits(UPS), *(-each for each in made.logits(DOWNS))])
    np.testing.assert_allclose(found, np.log(9), atol=0.3)


def test_the_gradient_penalty_is_the_squared_norm(folder: Path) -> None:
    made = network(folder, gradient_penalty=1.0)
    with made.backbone.using("d"):
        embedded = made._embedded(UPS)
        judged = made._judge(UPS, embedded)
        found = float(made._penalty(judged, embedded).detach())

        def logit(place: int, values: torch.Tensor) -> float:
            with torch.no_grad():
                return float(made._judge(UPS, values).logits[place, 0])

        total, step = 0.0, 1e-2
        base = embedded.detach()
        for place, row in enumerate(UPS):
            for column in range(len(row.prompt) + len(row.completion)):
                for channel in range(base.shape[-1]):
                    moved = base.clone(), base.clone()
                    moved[0][place, column, channel] += step
                    moved[1][place, column, channel] -= step
                    slope = (logit(place, moved[0]) - logit(place, moved[1])) / (2 * step)
                    total += slope**2
    assert found == pytest.approx(total, rel=0.05)


def test_the_heads_norm_is_held(folder: Path) -> None:
    made = network(folder, spectral_norm=True)
    for _ in range(3):
        assert float(made.head.weight.detach().norm()) == pytest.approx(1, abs=1e-5)
        made.step(UPS, DOWNS)


def test_it_waits_when_it_is_good_enough(folder: Path) -> None:
    made = network(folder, target_accuracy=0.9)
    facts = [made.step(UPS, DOWNS) for _ in range(40)]
    assert facts[0]["discriminator_learned"] == 1
    assert facts[-1]["discriminator_learned"] == 0
    before = made.logits(UPS)
    made.step(UPS, DOWNS)
    np.testing.assert_array_equal(np.concatenate(made.logits(UPS)), np.concatenate(before))


def test_restored_it_goes_on_as_before(folder: Path) -> None:
    one, other = network(folder), network(folder)
    one.step(UPS, DOWNS)
    other.restore(one.state())
    for made in (one, other):
        made.step(UPS, DOWNS)
    np.testing.assert_array_equal(
        np.concatenate(one.logits(UPS)), np.concatenate(other.logits(UPS))
    )


@pytest.fixture
def rewarded(folder: Path) -> Callable[..., AdversarialReward]:
    def make(**changes: Any) -> AdversarialReward:
        settings = {"level": "token", "whiten": False, "unfinished": 0.0, "logit_clip": 0.5}
        config = AdversarialConfig.model_validate({**settings, **changes})
        made = on(load_backbone(folder), by_token=True)
        sides = {row.prompt: [row.completion] for row in UPS}
        start = {row.prompt: [row.completion] for row in DOWNS}
        return AdversarialReward(made, config, Sides(sides, {}, start), seed=0)

    return make


@pytest.mark.parametrize(
    ("name", "alpha"), [("airl", None), ("gail", None), ("fairl", None), ("alpha", 0.5)]
)
def test_rewards_are_the_divergences(
    rewarded: Callable[..., AdversarialReward], name: Any, alpha: float | None
) -> None:
    made = rewarded(divergence=name, alpha=alpha)
    said = said_of([*UPS, *DOWNS])
    logits = made.discriminator.logits(said.rows)
    for found, each in zip(made.judge(said), logits, strict=True):
        cut = torch.from_numpy(each.clip(-0.5, 0.5))
        wanted = policy_reward(name, cut, alpha).numpy() + equal_offset(name, alpha)
        np.testing.assert_allclose(found, wanted)


def test_whitened_over_all_tokens_and_less_for_what_does_not_end(
    rewarded: Callable[..., AdversarialReward],
) -> None:
    made = rewarded(whiten=True)
    every = np.concatenate(made.judge(said_of([*UPS, *DOWNS])))
    assert every.mean() == pytest.approx(0, abs=1e-5)
    assert every.std() == pytest.approx(1, abs=1e-3)
    punished = rewarded(whiten=True, unfinished=3.0)
    ended, cut = (punished.judge(said_of(UPS, finished)) for finished in (True, False))
    for one, other in zip(ended, cut, strict=True):
        np.testing.assert_allclose(one[:-1], other[:-1])
        assert one[-1] - other[-1] == pytest.approx(3)


def test_tokens_said_again_are_held_to_be_the_policys(
    rewarded: Callable[..., AdversarialReward],
) -> None:
    said = said_of([Row((5, 6), (*range(7, 12), *range(7, 12), 3)), DOWNS[0]])
    made, paying = (rewarded(repeats=each, logit_clip=50.0) for each in (3, None))
    for each in (made, paying):
        for _ in range(5):
            each.discriminator.step(said.rows[:1], said.rows[1:])
    logits = made.discriminator.logits(said.rows)
    again = np.array([False] * 5 + [True] * 5 + [False])
    found, other = made.judge(said)
    assert (logits[0][again] > 0).any(), "the test needs a repetition that would be paid"
    np.testing.assert_allclose(found, np.where(again, -np.abs(logits[0]), logits[0]))
    np.testing.assert_allclose(other, logits[1])
    np.testing.assert_allclose(made.view(said), [found.mean(), other.mean()])
    np.testing.assert_allclose(paying.judge(said)[0], logits[0])


def test_what_is_replayed_survives(rewarded: Callable[..., AdversarialReward]) -> None:
    one, other = rewarded(), rewarded()
    one.begin()
    one.learn(said_of(DOWNS), 0)
    other.restore(one.state())
    assert list(other.replay) == [DOWNS]
    assert other.steps == one.steps
    for made in (one, other):
        made.learn(said_of([DOWNS[1], DOWNS[0]]), 1)
    np.testing.assert_array_equal(
        np.concatenate(one.discriminator.logits(UPS)),
        np.concatenate(other.discriminator.logits(UPS)),
    )


def test_sides_without_common_prompts(rewarded: Callable[..., AdversarialReward]) -> None:
    made = rewarded()
    strange = AdversarialReward(
        made.discriminator, made.config, Sides({(1, 2): [(3,)]}, {}, {(4,): [(5,)]}), 0
    )
    with pytest.raises(TrainingError, match="must answer common prompts, found none"):
        strange.begin()
