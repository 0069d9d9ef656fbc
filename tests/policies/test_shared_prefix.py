"""Every architecture decodes with shared prefixes as its own forward pass does, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from demoalign.policies import shared_prefix
from demoalign.policies.expanded_prefix import ExpandedDecoder
from demoalign.policies.shared_prefix import SharedDecoder, why_not_shared
from tests.architectures import FAR, REFUSED, SHARED, WINDOW
from tests.models import ARCHITECTURES, make_model, make_tokenizer
from tests.policies.decoding import (
    PROMPT_LENGTHS,
    check_plain,
    decode,
    model_of,
    plain,
    random_prompts,
)

EVERY_SHARED = (*ARCHITECTURES, *SHARED)
REASONS = {
    "bloom": "AttributeError",
    "falcon_alibi": "TypeError",
    "gpt_neo": "its logits differ by",
    "gpt_oss": "s_aux",
    "lfm2": "get_conv_state",
    "phimoe": "its logits differ by",
    "phimoe_far": f"its layers look {FAR} tokens back by their mask alone",
}


@pytest.mark.parametrize("name", EVERY_SHARED)
def test_shared_prefixes_are_exact(name: str) -> None:
    """Prompts longer than the windows; steps beyond them; drops in between."""
    assert max(PROMPT_LENGTHS) > WINDOW
    model = model_of(name)
    assert why_not_shared(model) is None
    check_plain(model, decode(SharedDecoder(model), random_prompts(model)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_share_is_refused_with_a_reason(name: str) -> None:
    reason = why_not_shared(model_of(name))
    assert reason is not None
    assert REASONS[name] in reason


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", *REFUSED])
def test_copied_prompts_are_exact(name: str) -> None:
    model = model_of(name)
    check_plain(model, decode(ExpandedDecoder(model), random_prompts(model)))


@pytest.mark.parametrize("name", ["mistral_far", "phimoe_far"])
def test_windows_that_the_probe_does_not_cross(name: str) -> None:
    """The mask alone would be wrong behind the window; the attention interface is not."""
    model = model_of(name)
    prompts = random_prompts(model, (FAR + 8, FAR - 4))
    seen = decode(SharedDecoder(model), prompts, (0, 1, 1), 6, {})
    wrong = [
        float((each.logits - plain(model)(tuple(each.ids))[0]).abs().max()) > 1e-2
        for each in seen
        if len(each.ids) > FAR
    ]
    assert any(wrong) == (why_not_shared(model) is not None)


def test_the_probe_finds_one_wrong_layer() -> None:
    """As a model would be that scales its scores otherwise than it says."""
    model = make_model("llama", make_tokenizer("bos"))
    assert why_not_shared(model) is None
    other = make_model("llama", make_tokenizer("bos"))
    attention = other.base_model.layers[1].self_attn
    forward = attention.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        attention.scaling = 0.2 if other.config._attn_implementation == "sdpa" else 0.21
        return forward(*args, **kwargs)

    attention.forward = scaled
    reason = why_not_shared(other)
    assert reason is not None
    assert "its logits differ by" in reason


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "gpt_oss"])
def test_the_probe_leaves_the_model_as_it_was(name: str) -> None:
    model = make_model(name, make_tokenizer("bos"))
    ids = torch.tensor(random_prompts(model, (7,)))
    before = model.config._attn_implementation
    with torch.inference_mode():
        wanted = model(input_ids=ids).logits
        why_not_shared(model)
        assert torch.equal(model(input_ids=ids).logits, wanted)
    assert model.config._attn_implementation == before
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model(input_ids=ids, labels=ids).loss.backward()  # and it can still be trained


def test_an_error_while_decoding_leaves_the_model_as_it_was() -> None:
    model = make_model("llama", make_tokenizer("bos"))
    before = model.config._attn_implementation
    with pytest.raises(KeyError), SharedDecoder(model).active():
        raise KeyError
    assert model.config._attn_implementation == before
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mistral"])
@pytest.mark.parametrize("tokens", [1, 14, 30])
def test_prompts_read_in_parts_are_the_same(
    name: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1, 1 and 2 of them at a time."""
    model = model_of(name)
    monkeypatch.setattr(shared_prefix, "READ_TOKENS", tokens)
    check_plain(model, decode(SharedDecoder(model), random_prompts(model)))


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom"])
def test_groups_of_different_age_in_one_step(name: str) -> None:
    """And only the logits that are wanted, but all hidden states."""
    model = model_of(name)
    decoder: Any = SharedDecoder(model) if name in EVERY_SHARED else ExpandedDecoder(model)
    prompts = random_prompts(model)
    old, young = [prompts[0], prompts[0], prompts[1]], [prompts[2], prompts[2]]
    with decoder.active():
        first = decoder.branch(decoder.open(prompts[:2])[0], torch.tensor([0, 0, 1]))
        decoder.step([first], torch.tensor([11, 12, 13]))
        second = decoder.branch(decoder.open(prompts[2:])[0], torch.tensor([0, 0]))
        both = decoder.step([first, second], torch.tensor([21, 22, 23, 24, 25]))
        some = decoder.step(
            [first, second], torch.tensor([31, 32, 33, 34, 35]), torch.tensor([1, 4])
        )
        none = decoder.step([second, first], torch.tensor([1, 2, 3, 4, 5]), torch.tensor([]).long())
    rows = [[*row, 11 + i, 21 + i] for i, row in enumerate(old)]
    rows += [[*row, 24 + i] for i, row in enumerate(young)]
    for i, row in enumerate(rows):
        logits, hidden = plain(model)(tuple(row))
        torch.testing.assert_close(both.logits[i], logits, atol=2e-4, rtol=0)
        torch.testing.assert_close(both.hidden[i], hidden, atol=2e-4, rtol=0)
    assert len(some.logits) == 2
    for i, row in enumerate(rows):
        logits, hidden = plain(model)((*row, 31 + i))
        torch.testing.assert_close(some.hidden[i], hidden, atol=2e-4, rtol=0)
        if i in (1, 4):
            torch.testing.assert_close(some.logits[[1, 4].index(i)], logits, atol=2e-4, rtol=0)
    assert (len(none.logits), len(none.hidden)) == (0, 5)
    last = plain(model)((*rows[3], 34, 1))[1]
    torch.testing.assert_close(none.hidden[0], last, atol=2e-4, rtol=0)
