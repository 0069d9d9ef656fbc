"""Architectures that cannot share prefixes: said so, and sampled rightly all the same."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.errors import ModelError
from demoalign.policies.expanded_prefix import ExpandedDecoder
from demoalign.policies.shared_prefix import SharedDecoder
from demoalign.rollouts import TransformersEngine
from demoalign.rollouts.transformers_engine import make_decoder
from tests.architectures import REFUSED
from tests.conftest import ModelFolder
from tests.models import make_model, make_tokenizer
from tests.rollouts.local import SPECS, TEXTS, agree, greedy, initial, log_probs, sample

COPIED = [name for name in REFUSED if not name.endswith("_far")]


@pytest.mark.parametrize("name", COPIED)
def test_rollouts_are_right(
    model_folder: ModelFolder, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = initial(model_folder(name, "bos"))
    with caplog.at_level(logging.WARNING, "demoalign"):
        found = sample(policy, n=5, batch_size=4)
    kind = type(policy.backbone.causal).__name__
    said = f"{kind}: prompts are copied for each of their completions, since "
    assert [record for record in caplog.messages if record.startswith(said)]
    agree(policy, SPECS, sample(policy, n=5, batch_size=64), found)
    for rollout in found:
        prompt = render_prompt(policy.backbone.tokenizer, TEXTS[int(rollout.prompt_id[1:])])
        each = log_probs(policy, prompt + rollout.token_ids)[len(prompt) - 1 : -1]
        picked = each.gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
        assert rollout.token_logprobs == pytest.approx(picked.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", COPIED)
def test_greedy_is_what_generate_gives(model_folder: ModelFolder, name: str) -> None:
    policy = initial(model_folder(name, "bos"))
    for rollout in greedy(policy, SPECS, 9):
        prompt = render_prompt(policy.backbone.tokenizer, TEXTS[int(rollout.prompt_id[1:])])
        ids = torch.tensor([prompt], device=policy.backbone.device)
        whole = policy.backbone.causal.generate(ids, do_sample=False, max_new_tokens=9)
        assert whole[0, len(prompt) :].tolist() == rollout.token_ids


def test_who_shares_says_nothing(
    model_folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    policy = initial(model_folder("llama", "bos"))
    with caplog.at_level(logging.WARNING, "demoalign"):
        sample(policy, n=1)
    assert caplog.messages == []


def test_which_decoder_and_what_the_report_says(model_folder: ModelFolder) -> None:
    tokenizer = make_tokenizer("bos")
    assert isinstance(make_decoder(make_model("llama", tokenizer)), SharedDecoder)
    assert isinstance(make_decoder(make_model("bloom", tokenizer)), ExpandedDecoder)
    said = {}
    for name in ("llama", "bloom"):
        engine = TransformersEngine(RolloutsConfig(max_new_tokens=2))
        list(engine.sample(initial(model_folder(name, "bos")), SPECS[:1], 1, 0))
        said[name] = engine.describe()
    assert said["llama"]["prompts"] == "read once, shared by their completions"
    assert said["bloom"]["prompts"] == "copied"
    assert said["bloom"]["weights"] == "float32"


def test_no_cache_that_rows_could_continue() -> None:
    """Recurrent models have states of another kind."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    decoder = make_decoder(AutoModelForCausalLM.from_config(config).eval())
    with decoder.active(), pytest.raises(ModelError, match="MambaForCausalLM: sampling needs"):
        decoder.open([[1, 2, 3]])
