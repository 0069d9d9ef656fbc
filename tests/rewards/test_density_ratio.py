"""The reward in closed form, against hand computations and an enumerable pair of policies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig, RatioConfig
from demoalign.demonstrations.render import render
from demoalign.errors import EvaluationError
from demoalign.policies import Policy, within
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.token_reward import (
    inside_support,
    next_rewards,
    token_rewards,
    tokens_since_outside,
)
from tests.architectures import REFUSED
from tests.conftest import ModelFolder
from tests.models import CONTEXT, load_backbone

PLAIN = RatioConfig(clip=None, support=None)
LOG_P = np.log([0.5, 0.9, 0.01, 0.2])
LOG_Q = np.log([0.25, 0.001, 0.5, 0.2])
LOG_TOP = np.log([0.25, 0.8, 0.5, 0.9])


def rewards(**settings: object) -> list[float]:
    config = RatioConfig.model_validate({"clip": None, "support": None, "memory": 0, **settings})
    up, down, top = map(torch.from_numpy, (LOG_P, LOG_Q, LOG_TOP))
    return [float(each) for each in token_rewards(up, down, top, config)]


def test_by_hand() -> None:
    ratios = [math.log(2), math.log(900), math.log(0.02), 0.0]
    assert rewards() == pytest.approx(ratios)
    assert rewards(clip=1.0) == pytest.approx([math.log(2), 1, -1, 0])
    assert rewards(support=-6.0) == pytest.approx([ratios[0], 0, ratios[2], 0])
    assert rewards(min_p=0.3) == pytest.approx([ratios[0], 0, ratios[2], 0])
    assert rewards(min_p=0.2) == pytest.approx([ratios[0], 0, ratios[2], 0.0])
    shannon = [2 * p / (p + q) for p, q in zip(np.exp(LOG_P), np.exp(LOG_Q), strict=True)]
    assert rewards(form="jensen_shannon") == pytest.approx([math.log(each) for each in shannon])
    assert max(rewards(form="jensen_shannon")) < math.log(2)


def test_a_token_outside_silences_those_behind_it() -> None:
    up = torch.tensor([[-1.0] * 6, [-0.5] * 6])
    down = torch.tensor([[-2.0, -9, -2, -2, -2, -9], [-9.0, -1, -9, -1, -1, -1]])
    config = RatioConfig(clip=None, support=-6.0, memory=2)
    found = token_rewards(up, down, down, config)
    assert found.tolist() == [[1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0.5]]
    always = config.model_copy(update={"memory": 100})
    assert token_rewards(up, down, down, always).tolist() == [[1, 0, 0, 0, 0, 0], [0] * 6]
    nothing = token_rewards(up[:, :0], down[:, :0], down[:, :0], config)
    assert nothing.shape == (2, 0)


@pytest.fixture(scope="module")
def pair(model_folder: ModelFolder) -> tuple[Policy, Policy]:
    backbone = load_backbone(model_folder("llama", "bos"))
    backbone.add_adapter("sft", AdapterConfig(r=4, alpha=8), 0)
    with torch.no_grad():
        for name, weight in backbone.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return Policy("sft", backbone, "sft"), Policy("initial", backbone)


def ratio(pair: tuple[Policy, Policy], config: RatioConfig = PLAIN) -> DensityRatio:
    return DensityRatio("density-ratio", lambda: pair[0], lambda: pair[1], config)


def log_probability(policy: Policy, prompt: str, text: str, finished: bool) -> float:
    rendered = render(policy.backbone.tokenizer, prompt, text, finished)
    with torch.inference_mode(), policy.active():
        logits = policy.backbone.causal(torch.tensor([rendered.ids])).logits[0].double()
    start = len(rendered.prompt_ids) - 1
    whole = logits.log_softmax(-1)
    return sum(float(whole[start + t, i]) for t, i in enumerate(rendered.completion_ids))


def test_the_unmasked_reward_is_the_log_ratio(pair: tuple[Policy, Policy]) -> None:
    """All completions of two letters, ended or not."""
    texts = ["".join(letters) for letters in itertools.product("abc ", repeat=2)] + [""]
    for finished in (True, False):
        flags = [finished] * len(texts)
        found = ratio(pair).score(["Why?"] * len(texts), texts, flags)
        wanted = [
            log_probability(pair[0], "Why?", text, finished)
            - log_probability(pair[1], "Why?", text, finished)
            for text in texts
        ]
        np.testing.assert_allclose(found, wanted, atol=5e-5)  # rounding of float32, logits of 9


def test_it_is_the_logit_of_the_best_discriminator(pair: tuple[Policy, Policy]) -> None:
    """Eq. 9: among completions of one token and the end, p / (p + q) = sigmoid(r)."""
    texts = list("abcdefgh")
    found = ratio(pair).score(["Is it?"] * len(texts), texts)
    ups = np.exp([log_probability(pair[0], "Is it?", text, True) for text in texts])
    downs = np.exp([log_probability(pair[1], "Is it?", text, True) for text in texts])
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), ups / (ups + downs), atol=1e-4)


def test_tokens_sum_to_the_score_and_mean_divides(pair: tuple[Policy, Policy]) -> None:
    prompts, texts = ["Why?", "Lamp", "Why?"], ["ab", "abcd", "b"]
    config = RatioConfig()
    tokens = ratio(pair, config).token_rewards(prompts, texts)
    np.testing.assert_allclose(
        ratio(pair, config).score(prompts, texts), [each.sum() for each in tokens]
    )
    mean = ratio(pair, RatioConfig(per="mean")).score(prompts, texts)
    np.testing.assert_allclose(mean, [each.mean() for each in tokens])
    assert all((np.abs(each) <= 1).all() for each in tokens)


@pytest.mark.parametrize("conditional", [False, True])
def test_what_lies_outside_is_told_token_by_token(
    pair: tuple[Policy, Policy], conditional: bool
) -> None:
    """The log-ratios are of all tokens, neither clipped nor masked."""
    config = RatioConfig(support=-4.0, conditional=conditional)
    reward = ratio(pair, config)
    read = reward.read(ASKED, SAID)
    everything = ratio(pair, PLAIN).token_rewards(ASKED, SAID)
    for each, log_ratios in zip(read, everything, strict=True):
        np.testing.assert_allclose(each.log_ratios, log_ratios, atol=1e-4)
        assert each.inside.shape == each.rewards.shape == log_ratios.shape
        assert (each.rewards[~each.inside] == 0).all()
    inside = np.concatenate([each.inside for each in read])
    assert inside.any()
    assert not inside.all()
    np.testing.assert_array_equal(reward.totals(SAID, read), reward.score(ASKED, SAID))


def test_known_log_probabilities_are_used_where_the_ids_are_the_same(
    pair: tuple[Policy, Policy],
) -> None:
    ids = render(pair[0].backbone.tokenizer, "Why?", "ab").completion_ids
    plain = ratio(pair).score(["Why?", "Why?"], ["ab", "cd"])
    raised = [-0.5] * len(ids)
    found = ratio(pair).score(["Why?", "Why?"], ["ab", "cd"], known=[(ids, raised), (ids, raised)])
    own = log_probability(pair[1], "Why?", "ab", True)
    np.testing.assert_allclose(found, [sum(raised) - own, plain[1]], atol=2e-4)


def test_equal_answers_have_equal_scores(pair: tuple[Policy, Policy]) -> None:
    found = ratio(pair).score(["Why?", "Lamp", "Why?"], ["ab", "ab", "ab"])
    assert found[0] == found[2] != found[1]


def test_no_room_for_a_completion(pair: tuple[Policy, Policy]) -> None:
    with pytest.raises(EvaluationError, match="found 1 of 2 that do not"):
        ratio(pair).score(["x" * 4 * CONTEXT, "Why?"], ["a", "a"])


ASKED = ["Why?", "The lamp is off. What now?", "Why?", "Why?", "Lamp"]
SAID = ["abc de", "Turn it on, please.", "abd", "", "x"]


def along(pair: tuple[Policy, Policy], prompt: str, text: str, config: RatioConfig) -> list[float]:
    """What decoding would have given to each token, from one plain forward pass of each policy."""
    rendered = render(pair[0].backbone.tokenizer, prompt, text)
    first, second = (
        next_logprobs(each, rendered.ids)[len(rendered.prompt_ids) - 1 : -1] for each in pair
    )
    said = torch.tensor(rendered.completion_ids)[:, None]
    inside = inside_support(second.gather(-1, said)[:, 0], second.amax(-1), config)
    given = next_rewards(first, second, tokens_since_outside(inside), config)
    assert (given.gather(-1, said)[:, 0][~inside] == 0).all()
    found: list[float] = given.gather(-1, said)[:, 0].tolist()
    return found


def next_logprobs(policy: Policy, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode(), policy.active():
        logits: torch.Tensor = policy.backbone.causal(torch.tensor([ids])).logits[0]
    return logits.float().log_softmax(-1)


def check(pair: tuple[Policy, Policy], config: RatioConfig) -> None:
    found = ratio(pair, config).token_rewards(ASKED, SAID)
    for prompt, text, values in zip(ASKED, SAID, found, strict=True):
        np.testing.assert_allclose(values, along(pair, prompt, text, config), atol=1e-4)


@pytest.mark.parametrize("conditional", [True, False], ids=["conditional", "unconditional"])
@pytest.mark.parametrize("form", ["log_ratio", "jensen_shannon"])
@pytest.mark.parametrize("memory", [0, 2])
@pytest.mark.parametrize("limits", [{"support": -4.0}, {"support": None, "min_p": 0.05}])
def test_a_token_gets_what_decoding_gives_it(
    pair: tuple[Policy, Policy],
    conditional: bool,
    form: str,
    memory: int,
    limits: dict[str, float | None],
) -> None:
    settings = {"clip": None, "conditional": conditional, "form": form, "memory": memory}
    check(pair, RatioConfig.model_validate(settings | limits))


def test_staying_inside_changes_rewards(pair: tuple[Policy, Policy]) -> None:
    """Else the test above would show nothing."""
    config = RatioConfig(clip=None, support=-4.0, memory=0)
    plain = ratio(pair, config).score(ASKED, SAID)
    within_support = config.model_copy(update={"conditional": True})
    assert np.abs(ratio(pair, within_support).score(ASKED, SAID) - plain).max() > 0.1


def test_nothing_inside(pair: tuple[Policy, Policy]) -> None:
    """No token of the place is in the support: the reward is 0, without a warning."""
    config = RatioConfig(clip=None, support=-1e-6, memory=0, conditional=True)
    assert ratio(pair, config).score(ASKED, SAID).tolist() == [0.0] * len(ASKED)


def test_blocks_of_any_size(pair: tuple[Policy, Policy], monkeypatch: pytest.MonkeyPatch) -> None:
    config = RatioConfig(clip=None, support=-4.0, memory=1, conditional=True)
    monkeypatch.setattr(within, "SET_BYTES", 1)
    check(pair, config)


def test_policies_are_asked_for_once(pair: tuple[Policy, Policy]) -> None:
    """Each may be a whole model that has to be loaded."""
    asked = []

    def give(number: int) -> Policy:
        asked.append(number)
        return pair[number]

    config = RatioConfig(support=-4.0, conditional=True)
    reward = DensityRatio("density-ratio", lambda: give(0), lambda: give(1), config)
    reward.score(ASKED, SAID)
    assert asked == [0, 1]


@pytest.mark.parametrize("name", [each for each in REFUSED if not each.endswith("_far")])
def test_architectures_that_cannot_share_prompts(model_folder: ModelFolder, name: str) -> None:
    shares = Policy("one", load_backbone(model_folder("llama", "bos")))
    other = Policy("other", load_backbone(model_folder(name, "bos")))
    config = RatioConfig(clip=None, support=-4.0, memory=1, conditional=True)
    check((shares, other), config)
    check((other, shares), config)


def test_the_pure_maths_asks_for_the_masses() -> None:
    ones = torch.zeros(2)
    with pytest.raises(ValueError, match=r"ratio\.conditional: needs what both policies give"):
        token_rewards(ones, ones, ones, RatioConfig(conditional=True))
