"""Extrapolated decoding: by hand, and against plain forward passes of both policies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from demoalign.config import DecodingRatioConfig, ExtrapolateConfig, RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.errors import ModelError, RolloutError
from demoalign.improve.extrapolate import Extrapolation, extrapolate
from demoalign.policies import Policy, sampling_copy
from demoalign.policies.combined import FAR, CombinedPolicy
from demoalign.records import Rollout
from demoalign.rewards.token_reward import inside_support, tokens_since_outside
from demoalign.rollouts import PromptSpec, TransformersEngine
from demoalign.rollouts.engine import plain_policy
from tests.architectures import REFUSED
from tests.conftest import ModelFolder
from tests.models import CONTEXT, load_backbone
from tests.rollouts.local import SPECS, TEXTS, chi_square, initial, log_probs, sample, with_adapter

NOTHING: dict[str, float] = {}
UNMASKED = DecodingRatioConfig(clip=None, support=None, conditional=False)
PLAIN = ExtrapolateConfig(strength=1.0, ratio=UNMASKED, plausibility=None)
CUT = ExtrapolateConfig(strength=2.0, ratio=DecodingRatioConfig(clip=0.5), plausibility=0.05)

REMEMBERS = ExtrapolateConfig(
    strength=3.0, ratio=DecodingRatioConfig(clip=2.0, support=-3.0, memory=2), plausibility=None
)


def extrapolated_logits(
    first: torch.Tensor, second: torch.Tensor, config: ExtrapolateConfig
) -> torch.Tensor:
    return Extrapolation(config).combine(first, second, torch.full((len(first),), FAR))


def along(
    first: torch.Tensor, second: torch.Tensor, said: list[int], config: ExtrapolateConfig
) -> list[float]:
    """log pi of each token that was said, from both policies' (T, V) log-probabilities."""
    tokens = torch.tensor(said)[:, None]
    inside = inside_support(second.gather(-1, tokens)[:, 0], second.amax(-1), config.ratio)
    whole = Extrapolation(config).combine(first, second, tokens_since_outside(inside))
    found: list[float] = whole.log_softmax(-1).gather(-1, tokens)[:, 0].tolist()
    return found


def rollouts(policy: CombinedPolicy, **settings: object) -> list[Rollout]:
    config = RolloutsConfig.model_validate({"max_new_tokens": 12, **settings})
    return list(TransformersEngine(config).sample(policy, SPECS, 4, 0))


def wanted_logprobs(
    policy: CombinedPolicy, config: ExtrapolateConfig, rollout: Rollout
) -> list[float]:
    """log pi of each token, from one plain forward pass of each policy."""
    text = TEXTS[int(rollout.prompt_id[1:])]
    prompt = render_prompt(policy.backbone.tokenizer, text)
    ids = prompt + rollout.token_ids
    first, second = (
        log_probs(each, ids)[len(prompt) - 1 : -1] for each in (policy.first, policy.second)
    )
    return along(first, second, rollout.token_ids, config)


def check(policy: CombinedPolicy, config: ExtrapolateConfig, found: Sequence[Rollout]) -> None:
    for rollout in found:
        assert rollout.token_logprobs == pytest.approx(
            wanted_logprobs(policy, config, rollout), abs=2e-3
        )


def test_by_hand() -> None:
    """The ratios are log 2, log 0.5, log 1.275 and log 10."""
    p, q = [0.5, 0.3, 0.19, 0.01], [0.25, 0.6, 0.149, 0.001]
    first, second = torch.tensor([p]).log() + 3, torch.tensor([q]).log()

    def found(changes: dict[str, float] = NOTHING, **settings: object) -> list[float]:
        ratio = {"clip": None, "support": None, "conditional": False, **changes}
        config = ExtrapolateConfig.model_validate(
            {"strength": 1, "plausibility": None, **settings, "ratio": ratio}
        )
        return extrapolated_logits(first, second, config)[0].exp().tolist()

    assert found() == pytest.approx([a * a / b for a, b in zip(p, q, strict=True)])
    assert found(strength=0) == pytest.approx(p)
    assert found(strength=2) == pytest.approx([a**3 / b**2 for a, b in zip(p, q, strict=True)])
    assert found(plausibility=0.1) == pytest.approx([1, 0.15, 0.19**2 / 0.149, 0])
    assert found({"support": -6.0}) == pytest.approx([1, 0.15, 0.19**2 / 0.149, 0.01])
    clipped = [0.5 * math.exp(0.5), 0.3 * math.exp(-0.5), 0.19**2 / 0.149, 0.01 * math.exp(0.5)]
    assert found({"clip": 0.5}) == pytest.approx(clipped)


@pytest.fixture
def pair(model_folder: ModelFolder) -> tuple[Policy, Policy]:
    backbone = load_backbone(model_folder("llama", "bos"))
    return with_adapter(backbone), Policy("initial", backbone)


@pytest.mark.parametrize("config", [PLAIN, CUT, REMEMBERS], ids=["plain", "cut", "remembers"])
@pytest.mark.parametrize("copies", [True, False], ids=["copies", "switched"])
def test_probabilities_are_those_of_the_formula(
    pair: tuple[Policy, Policy],
    config: ExtrapolateConfig,
    copies: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With merged copies of small models, and with one adapter switched on and off."""
    if not copies:
        monkeypatch.setattr(sampling_copy, "SMALL_BYTES", 0)
    policy = extrapolate(*pair, config)
    switches = TransformersEngine(RolloutsConfig())._decoder(policy).switches
    assert switches is not copies
    found = rollouts(policy)
    assert {each.policy for each in found} == {"extrapolated"}
    check(policy, config, found)
    assert [each.token_ids for each in rollouts(policy, batch_size=3)] == [
        each.token_ids for each in found
    ]
    plain = [each.token_ids for each in sample(pair[0], n=4)]
    assert [each.token_ids for each in found] != plain


def test_what_follows_a_token_outside_is_not_tilted(pair: tuple[Policy, Policy]) -> None:
    """And memory matters in this pair: without it other tokens are drawn."""
    policy = extrapolate(*pair, REMEMBERS)
    found = rollouts(policy)
    forgets = REMEMBERS.model_copy(
        update={"ratio": REMEMBERS.ratio.model_copy(update={"memory": 0})}
    )
    other = rollouts(extrapolate(*pair, forgets))
    assert [each.token_ids for each in found] != [each.token_ids for each in other]
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12, batch_size=3))
    kept = [each.rollout for each in engine.sample_hidden(policy, SPECS, 4, 0)]
    assert [each.token_ids for each in kept] == [each.token_ids for each in found]
    check(policy, REMEMBERS, kept)


def test_strength_zero_is_the_policy_itself(pair: tuple[Policy, Policy]) -> None:
    nothing = ExtrapolateConfig(strength=0.0, plausibility=None)
    found, plain = rollouts(extrapolate(*pair, nothing)), sample(pair[0], n=4)
    assert [each.token_ids for each in found] == [each.token_ids for each in plain]
    assert [each.logprob for each in found] == pytest.approx([r.logprob for r in plain], abs=1e-4)


def test_whole_models(model_folder: ModelFolder) -> None:
    first = initial(model_folder("llama", "bos"))
    second = Policy("other", load_backbone(model_folder("gpt2", "bos")))
    policy = extrapolate(first, second, CUT)
    check(policy, CUT, rollouts(policy))
    back = extrapolate(second, first, PLAIN)
    check(back, PLAIN, rollouts(back))


def test_architectures_that_cannot_share_prompts(model_folder: ModelFolder) -> None:
    """One that cannot makes both copy."""
    name = next(each for each in REFUSED if not each.endswith("_far"))
    first = initial(model_folder("llama", "bos"))
    second = Policy("other", load_backbone(model_folder(name, "bos")))
    policy = extrapolate(first, second, CUT)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12))
    found = list(engine.sample(policy, SPECS, 4, 0))
    assert engine.describe()["prompts"] == "copied"
    check(policy, CUT, found)


def test_first_tokens_are_drawn_with_these_probabilities(pair: tuple[Policy, Policy]) -> None:
    policy = extrapolate(*pair, CUT)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=1))
    found = list(engine.sample(policy, SPECS[:1], 2000, 0))
    ids = render_prompt(policy.backbone.tokenizer, TEXTS[0])
    first, second = (log_probs(each, ids)[-1:] for each in pair)
    wanted = extrapolated_logits(first, second, CUT).softmax(-1)[0].double().numpy()
    counts = np.bincount([each.token_ids[0] for each in found], minlength=len(wanted))
    assert chi_square(counts, wanted) > 1e-3
    assert counts[wanted == 0].sum() == 0


def test_greedy_and_truncation_apply_to_the_tilted_distribution(
    pair: tuple[Policy, Policy],
) -> None:
    policy = extrapolate(*pair, PLAIN)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=6))
    for rollout in engine.sample(policy, SPECS, 1, 0, greedy=True):
        prompt = render_prompt(policy.backbone.tokenizer, TEXTS[int(rollout.prompt_id[1:])])
        for step, token in enumerate(rollout.token_ids):
            ids = prompt + rollout.token_ids[:step]
            first, second = (log_probs(each, ids)[-1:] for each in pair)
            assert int(extrapolated_logits(first, second, PLAIN).argmax()) == token
    one = rollouts(policy, top_k=1)
    assert all(each.sampling_logprobs is not None for each in one)
    assert sum(map(sum, (each.sampling_logprobs or [] for each in one))) == pytest.approx(
        0, abs=1e-3
    )


def test_hidden_states_are_the_first_policys(pair: tuple[Policy, Policy]) -> None:
    """So that a head on the SFT policy's states scores what was said."""
    policy = extrapolate(*pair, CUT)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=3))
    found = [each for each in engine.sample_hidden(policy, SPECS, 32, 0) if each.hidden is not None]
    assert found
    for each in found:
        text = TEXTS[int(each.rollout.prompt_id[1:])]
        ids = render_prompt(policy.backbone.tokenizer, text) + each.rollout.token_ids
        with torch.inference_mode(), pair[0].active():
            states = policy.backbone.trunk(torch.tensor([ids])).last_hidden_state
        wanted = states[0, -1].tolist()
        assert each.hidden is not None
        assert each.hidden.tolist() == pytest.approx(wanted, abs=1e-4)


def test_the_caller_may_use_another_policy_in_between(
    pair: tuple[Policy, Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_copy, "SMALL_BYTES", 0)
    policy = extrapolate(*pair, CUT)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12, batch_size=2))
    found = []
    for rollout in engine.sample(policy, SPECS, 4, 0):
        found.append(rollout)
        log_probs(pair[1], [1, 2])
    check(policy, CUT, found)


def test_what_is_refused(pair: tuple[Policy, Policy], model_folder: ModelFolder) -> None:
    other = initial(model_folder("llama", "chat"))
    with pytest.raises(ModelError, match=r"extrapolated: both policies must have the same vocab"):
        extrapolate(pair[0], other)
    policy = extrapolate(*pair)
    assert policy.context == CONTEXT
    with pytest.raises(ModelError, match="must fit the model's context"):
        rollouts(policy, max_new_tokens=CONTEXT)
    assert plain_policy(pair[0], "vllm") is pair[0]
    with pytest.raises(RolloutError, match="needs engine: transformers, found vllm"):
        plain_policy(policy, "vllm")


def test_settings_are_checked() -> None:
    for settings, said in (
        ({"positives": "demonstrations"}, "compares two policies"),
        ({"positives": "initial"}, "needs two different policies"),
        ({"ratio": {"per": "mean"}}, "ratio.per"),
        ({"strength": -1}, "greater than or equal to 0"),
        ({"plausibility": 1.5}, "less than 1"),
    ):
        with pytest.raises(ValueError, match=said):
            ExtrapolateConfig.model_validate(settings)


def test_specs_of_one_prompt_share_it(pair: tuple[Policy, Policy]) -> None:
    """Rows end and are dropped at different times in both sets of caches alike."""
    policy = extrapolate(*pair, PLAIN)
    spec = [PromptSpec("one", TEXTS[1])]
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=24, batch_size=16))
    found = list(engine.sample(policy, spec, 64, 0))
    assert len({len(each.token_ids) for each in found}) > 3
    prompt = render_prompt(policy.backbone.tokenizer, TEXTS[1])
    for rollout in found:
        first, second = (
            log_probs(each, prompt + rollout.token_ids)[len(prompt) - 1 : -1] for each in pair
        )
        picked = along(first, second, rollout.token_ids, PLAIN)
        assert rollout.token_logprobs == pytest.approx(picked, abs=2e-3)
