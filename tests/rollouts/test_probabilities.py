"""Log-probabilities of what was sampled, under the policy and under what was sampled from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import TransformersEngine
from demoalign.rollouts.sampling import Draw, Truncation, draw, greedy, truncate
from tests.conftest import ModelFolder
from tests.models import load_backbone
from tests.rollouts.local import (
    SPECS,
    TEXTS,
    chi_square,
    initial,
    log_probs,
    sample,
    with_adapter,
)

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"top_p": 0.8},
    {"min_new_tokens": 3},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "min_new_tokens": 3},
]


def of_each_token(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """(T, V) log-probabilities before each token of a rollout, by one plain forward."""
    text = TEXTS[int(rollout.prompt_id[1:])]
    prompt = render_prompt(policy.backbone.tokenizer, text)
    return log_probs(policy, prompt + rollout.token_ids)[len(prompt) - 1 : -1]


def processed(
    logits: torch.Tensor, step: int, end: int, settings: dict[str, Any]
) -> NDArray[np.float64]:
    """(V,) log-probabilities after transformers' own processors."""
    processors = LogitsProcessorList()
    least = settings.get("min_new_tokens", 0)
    if least:
        processors.append(MinNewTokensLengthLogitsProcessor(0, least, end, device="cpu"))
    processors.append(TemperatureLogitsWarper(settings.get("temperature", 1.0)))
    if settings.get("top_k"):
        processors.append(TopKLogitsWarper(settings["top_k"]))
    processors.append(TopPLogitsWarper(settings.get("top_p", 1.0)))
    found = processors(torch.zeros(1, step, dtype=torch.long), logits[None])
    result: NDArray[np.float64] = torch.log_softmax(found[0], -1).numpy()
    return result


@pytest.mark.parametrize("settings", [{}, *SETTINGS], ids=str)
def test_each_token_has_its_log_probabilities(
    model_folder: ModelFolder, settings: dict[str, Any]
) -> None:
    policy = initial(model_folder("llama", "bos"))
    end = policy.backbone.tokenizer.eos_token_id
    for rollout in sample(policy, n=4, batch_size=6, **settings):
        assert rollout.token_logprobs is not None
        assert rollout.logprob == pytest.approx(sum(rollout.token_logprobs), abs=1e-4)
        own = of_each_token(policy, rollout)
        picked = own.gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
        assert rollout.token_logprobs == pytest.approx(picked.tolist(), abs=1e-4)
        if not settings:
            assert rollout.sampling_logprobs is None
            continue
        wanted = [
            processed(own[step], step, end, settings)[token]
            for step, token in enumerate(rollout.token_ids)
        ]
        assert rollout.sampling_logprobs == pytest.approx(wanted, abs=1e-4)


def test_greedy_decoding_has_no_other_distribution(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    config = RolloutsConfig(max_new_tokens=9, temperature=0.5, top_k=3, min_new_tokens=4)
    for rollout in TransformersEngine(config).sample(policy, SPECS, 1, 0, greedy=True):
        assert rollout.sampling_logprobs is None
        own = of_each_token(policy, rollout)
        picked = own.gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
        assert rollout.token_logprobs == pytest.approx(picked.tolist(), abs=1e-4)


def test_an_adapter_is_on_or_off(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned, bare = with_adapter(backbone), Policy("initial", backbone)
    found = {policy.name: sample(policy, n=3) for policy in (tuned, bare, tuned)}
    for policy, other in ((tuned, bare), (bare, tuned)):
        for rollout in found[policy.name]:
            ids = torch.tensor(rollout.token_ids)[:, None]
            own = of_each_token(policy, rollout).gather(-1, ids)[:, 0]
            assert rollout.token_logprobs == pytest.approx(own.tolist(), abs=1e-4)
            theirs = of_each_token(other, rollout).gather(-1, ids)[:, 0]
            assert (own - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [SETTINGS[1], SETTINGS[3], SETTINGS[4]], ids=str)
def test_the_first_token_is_distributed_exactly(
    model_folder: ModelFolder, settings: dict[str, Any]
) -> None:
    policy = initial(model_folder("llama", "bos"))
    end = policy.backbone.tokenizer.eos_token_id
    few = {**settings, "max_new_tokens": 3}
    found = sample(policy, SPECS[:1], n=4000, batch_size=1500, **few)
    own = log_probs(policy, render_prompt(policy.backbone.tokenizer, TEXTS[0]))[-1]
    exact = np.exp(processed(own, 0, end, settings))
    counts = np.bincount([r.token_ids[0] for r in found], minlength=len(exact))
    assert (counts[exact == 0] == 0).all()
    assert chi_square(counts, exact) > 1e-3
    plain = own.exp().numpy()
    assert chi_square(counts, (plain + 1e-6) / (plain + 1e-6).sum()) < 1e-9


# The draw by hand


def drawn(logits: list[float], uniform: float, truncation: Truncation, banned: list[int]) -> Draw:
    mask = torch.zeros(1, len(logits), dtype=torch.bool)
    mask[0, banned] = True
    u = torch.tensor([uniform], dtype=torch.float64)
    return draw(torch.tensor([logits]), u, truncation, mask if banned else None)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_a_banned_token_may_have_all_the_mass(temperature: float) -> None:
    """What is left is drawn from as if the banned token had never been likely."""
    found = drawn([400.0, 0.0, -0.05, -2000.0], 0.6, Truncation(temperature), [0])
    weights = np.exp(np.array([0.0, -0.05]) / temperature)
    token = int(weights[0] / weights.sum() <= 0.6)
    assert found.tokens.tolist() == [1 + token]
    assert float(found.sampling_logprobs) == pytest.approx(
        np.log(weights[token] / weights.sum()), abs=1e-5
    )
    assert float(found.logprobs) == pytest.approx(-400.05 if token else -400.0, abs=1e-3)


def test_greedy_takes_the_likeliest_that_is_allowed() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    found = greedy(logits, torch.tensor([[False, True, False], [False, False, False]]))
    assert found.tokens.tolist() == [2, 1]
    wanted = torch.log_softmax(logits.double(), -1)[[0, 1], [2, 1]].tolist()
    assert found.logprobs.tolist() == pytest.approx(wanted, abs=1e-6)
    assert found.sampling_logprobs.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("top_k", "top_p", "wanted"),
    [
        (1, 1.0, [0, 4, 0, 0]),
        (2, 1.0, [0, 4, 0, 2]),
        (3, 1.0, [1, 4, 1, 2]),  # a tie for the last place
        (9, 1.0, [1, 4, 1, 2]),
        (2, 0.7, [0, 4, 0, 2]),  # 4/6 of what top-k left do not reach it
        (2, 0.6, [0, 4, 0, 0]),
        (None, 0.6, [0, 4, 0, 2]),
    ],
)
def test_top_k_comes_before_top_p(top_k: int | None, top_p: float, wanted: list[float]) -> None:
    found = truncate(torch.tensor([[1.0, 4.0, 1.0, 2.0]]), top_k, top_p)
    assert found.tolist() == [wanted]
