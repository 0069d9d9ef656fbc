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
from demoalign.policies import Policy
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.token_reward import token_rewards
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
