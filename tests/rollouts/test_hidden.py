"""Hidden states that sampling leaves behind: those of a plain forward pass, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render, render_prompt
from demoalign.policies import Policy
from demoalign.records import Prompt, Rollout
from demoalign.rollouts import PromptSpec, TransformersEngine, transformers_engine
from demoalign.rollouts.transformers_engine import Sampled
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone
from tests.rollouts.local import SPECS, TEXTS, agree, initial, sample, with_adapter

TURNS = [PromptSpec(f"turn {i}", chat(text)) for i, text in enumerate(TEXTS[:3])]


def sample_hidden(
    policy: Policy, specs: Sequence[PromptSpec] = SPECS, n: int = 6, **settings: Any
) -> list[Sampled]:
    config = RolloutsConfig(**{"max_new_tokens": 6, **settings})
    return list(TransformersEngine(config).sample_hidden(policy, specs, n, 0))


def last_state(policy: Policy, ids: Sequence[int]) -> NDArray[np.float32]:
    row = torch.tensor([list(ids)], device=policy.backbone.device)
    with torch.inference_mode(), policy.active():
        states = policy.backbone.trunk(input_ids=row).last_hidden_state
    result: NDArray[np.float32] = states[0, -1].float().cpu().numpy()
    return result


def check(policy: Policy, specs: Sequence[PromptSpec], found: Sequence[Sampled]) -> list[bool]:
    """Each state is right, and there where the text is read as just what was sampled."""
    prompts: dict[str, Prompt] = {spec.id: spec.prompt for spec in specs}
    tokenizer, known = policy.backbone.tokenizer, []
    for rollout, hidden in ((each.rollout, each.hidden) for each in found):
        prompt = prompts[rollout.prompt_id]
        ids = render_prompt(tokenizer, prompt) + rollout.token_ids
        finished = rollout.finish_reason == "stop"
        is_exact = render(tokenizer, prompt, rollout.completion, finished).ids == ids
        assert (hidden is not None) == is_exact
        if hidden is not None:
            np.testing.assert_allclose(hidden, last_state(policy, ids), atol=2e-4)
        known.append(is_exact)
    return known


def plain(found: Sequence[Sampled]) -> list[Rollout]:
    return [each.rollout for each in found]


@pytest.mark.parametrize("kind", ["eos_only", "bos", "chat"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_states_are_those_of_a_plain_forward(
    model_folder: ModelFolder, kind: str, batch_size: int
) -> None:
    policy = initial(model_folder("llama", kind))
    specs = [*SPECS, *TURNS]
    found = sample_hidden(policy, specs, 12, batch_size=batch_size, max_new_tokens=3)
    known = check(policy, specs, found)
    assert 10 < sum(known) < len(known) - 10
    reasons = {(r.finish_reason, k) for r, k in zip(plain(found), known, strict=True)}
    assert reasons >= {("stop", True), ("length", True), ("length", False)}
    agree(policy, specs, plain(found), sample(policy, specs, n=12, max_new_tokens=3))


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma", "qwen2", "gemma2", "opt", "bloom"])
def test_over_architectures(model_folder: ModelFolder, name: str) -> None:
    policy = initial(model_folder(name, "bos"))
    found = sample_hidden(policy, n=4, batch_size=7, max_new_tokens=3)
    assert any(check(policy, SPECS, found))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_adapters_own_states(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned, bare = with_adapter(backbone), Policy("initial", backbone)
    monkeypatch.setattr(transformers_engine, "_workers", lambda _device: workers)
    for policy, other in ((tuned, bare), (bare, tuned)):
        found = sample_hidden(policy, batch_size=5)
        assert any(check(policy, SPECS, found))
        one = next(each for each in found if each.hidden is not None)
        prompt = TEXTS[int(one.rollout.prompt_id[1:])]
        ids = render_prompt(backbone.tokenizer, prompt) + one.rollout.token_ids
        assert one.hidden is not None
        assert np.abs(last_state(other, ids) - one.hidden).max() > 1e-2


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 1},
        {"min_new_tokens": 4, "temperature": 0.8, "top_k": 20},
        {"stop": ("e", "o")},
    ],
    ids=str,
)
def test_whatever_the_settings(model_folder: ModelFolder, settings: dict[str, Any]) -> None:
    policy = initial(model_folder("llama", "bos"))
    found = sample_hidden(policy, n=20, batch_size=7, **settings)
    assert any(check(policy, SPECS, found))
    wanted = sample(policy, n=20, **{"max_new_tokens": 6, **settings})
    assert [r.token_ids for r in plain(found)] == [r.token_ids for r in wanted]


def test_a_text_that_was_cut_has_no_state(model_folder: ModelFolder) -> None:
    """The last token was sampled, but is not part of the answer."""
    policy = initial(model_folder("llama", "bos"))
    found = sample_hidden(policy, n=40, stop=("e", "o", "a", " "))
    end = policy.backbone.tokenizer.eos_token_id
    cut = [
        each
        for each in found
        if each.rollout.finish_reason == "stop" and each.rollout.token_ids[-1] != end
    ]
    assert len(cut) > 3
    assert all(each.hidden is None for each in cut)
