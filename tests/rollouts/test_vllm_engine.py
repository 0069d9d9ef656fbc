"""The vLLM engine where vLLM is not needed; `scripts/check_vllm.py` checks it where it is."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demoalign.config import AdapterConfig, ModelConfig, RolloutsConfig, VllmConfig
from demoalign.errors import ModelError, RolloutError
from demoalign.policies import Backbone, Policy
from demoalign.rollouts import PromptSpec, make_engine
from demoalign.rollouts.engine import GREEDY
from demoalign.rollouts.vllm_requests import (
    RANKS,
    Row,
    cut_at_stop,
    engine_settings,
    lora_rank,
    request_seed,
    sampling_settings,
    to_rollout,
    to_rows,
    to_serve,
)
from tests.conftest import ModelFolder
from tests.models import BOS, chat, load_backbone

ROW = Row(PromptSpec("p", "Why?"), 2, (1, 5, 6))


def row(index: int) -> Row:
    return Row(ROW.spec, index, ROW.prompt_ids)


def settings(index: int = 2, **given: Any) -> dict[str, Any]:
    return sampling_settings(RolloutsConfig(**given), row(index), frozenset({7, 2}), 0)


def answer(
    ids: Sequence[int], logprobs: Sequence[float], reason: str = "stop", stop: object = None
) -> SimpleNamespace:
    """As vLLM's CompletionOutput."""
    steps = [
        {token: SimpleNamespace(logprob=logprob)}
        for token, logprob in zip(ids, logprobs, strict=True)
    ]
    return SimpleNamespace(token_ids=ids, logprobs=steps, finish_reason=reason, stop_reason=stop)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_error_says_how_to_get_it_and_what_else_there_is() -> None:
    with pytest.raises(RolloutError, match=r"rollouts\.engine: vllm .* not installed") as caught:
        make_engine(RolloutsConfig(engine="vllm"))
    for part in ("demoalign[vllm]", "engine: transformers", "engine: openai"):
        assert part in str(caught.value)


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_temperatures_that_vllm_would_change_or_refuse(temperature: float) -> None:
    with pytest.raises(RolloutError, match=f"rollouts.temperature: .* found {temperature}"):
        make_engine(RolloutsConfig(engine="vllm", temperature=temperature))


def test_a_request_says_everything_and_leaves_nothing_to_vllm() -> None:
    assert settings(
        temperature=0.7,
        top_p=0.9,
        top_k=5,
        min_p=0.05,
        min_new_tokens=2,
        max_new_tokens=9,
        stop=("\n", "Q:"),
    ) == {
        "n": 1,
        "seed": request_seed(0, "p", 2),
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.05,
        "min_tokens": 2,
        "max_tokens": 9,
        "stop_token_ids": [2, 7],
        "ignore_eos": True,
        "stop": ["\n", "Q:"],
        "detokenize": True,
        "logprobs": 0,
    }
    plain = settings()
    assert (plain["top_k"], plain["stop"], plain["detokenize"]) == (0, [], False)


def test_greedy_is_temperature_zero_without_truncation_or_seed() -> None:
    greedy = settings(GREEDY, temperature=0.7, top_p=0.9, top_k=5, min_new_tokens=2)
    found = {key: greedy[key] for key in ("temperature", "top_p", "top_k", "seed", "min_tokens")}
    assert found == {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": None, "min_tokens": 2}


def test_seeds_differ_by_seed_prompt_and_index_and_fit_63_bits() -> None:
    asked = [(s, p, i) for s in range(4) for p in ("a", "b", "a0") for i in range(50)]
    seeds = [request_seed(*each) for each in asked]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    assert request_seed(0, "p", 2) == request_seed(0, "p", 2)


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (4, 8), (8, 8), (12, 16), (33, 64), (512, 512)])
def test_room_for_a_rank(rank: int, room: int) -> None:
    assert lora_rank(rank) == room


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(RolloutError, match=rf"model.adapter.r: .* {RANKS[-1]} at most, found 513"):
        lora_rank(513)


def test_rows_go_prompt_by_prompt_from_the_first_that_is_missing(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "chat_bos"))
    specs = [
        PromptSpec("a", "Why?", first=2),
        PromptSpec("b", chat("Why?")),
        PromptSpec("c", "", 3),
    ]
    rows = to_rows(RolloutsConfig(max_new_tokens=8), backbone, specs, 3, greedy=False)
    assert [(r.spec.id, r.index) for r in rows] == [("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    bos = backbone.tokenizer.convert_tokens_to_ids(BOS)
    assert all(r.prompt_ids[0] == bos and r.prompt_ids.count(bos) == 1 for r in rows)
    rows = to_rows(RolloutsConfig(max_new_tokens=8), backbone, specs, 3, greedy=True)
    assert [(r.spec.id, r.index) for r in rows] == [("a", -1), ("b", -1), ("c", -1)]


@pytest.mark.parametrize(("limit", "context"), [(None, 128), (60, 60), (500, 128)])
def test_what_does_not_fit_the_context(
    model_folder: ModelFolder, limit: int | None, context: int
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    config = RolloutsConfig(max_new_tokens=context, vllm=VllmConfig(max_length=limit))
    with pytest.raises(ModelError, match=f"context of {context} tokens, .* for prompt p"):
        to_rows(config, backbone, [ROW.spec], 1, greedy=False)


def test_one_vllm_serves_a_base_and_its_adapters(model_folder: ModelFolder) -> None:
    folder = model_folder("llama", "bos")
    small = Backbone.load(ModelConfig(base=str(folder), adapter=AdapterConfig(r=4)))
    before = to_serve(small, None)
    assert (before.base, before.dtype, before.rank) == (str(folder.resolve()), "float32", 8)
    small.add_adapter("sft", AdapterConfig(r=8), 0)
    assert before.covers(to_serve(small, None))
    small.add_adapter("reward", AdapterConfig(r=9), 0)
    larger = to_serve(small, None)
    assert larger.rank == 16
    assert not before.covers(larger)
    assert larger.covers(before)
    assert not before.covers(to_serve(small, 64))


def test_new_weights_in_the_same_folder_are_seen(model_folder: ModelFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder("llama", "bos"), tmp_path / "model")
    whole = Backbone.load(ModelConfig(base=str(folder), adapter=AdapterConfig(kind="none")))
    before = to_serve(whole, None)
    assert before.rank == 0
    whole.causal.save_pretrained(folder)
    assert not before.covers(to_serve(whole, None))


def test_how_vllm_is_started(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    config = RolloutsConfig(batch_size=5000, vllm=VllmConfig(memory_fraction=0.3, max_length=64))
    found = engine_settings(config, to_serve(backbone, 64))
    assert found["gpu_memory_utilization"] == 0.3
    assert found["max_model_len"] == 64
    assert found["max_num_seqs"] == 1024
    assert found["load_format"] == "safetensors"
    assert found["logprobs_mode"] == "raw_logprobs"
    assert found["enable_prefix_caching"] is True
    assert (found["enable_lora"], found["max_lora_rank"]) == (True, 32)
    bare = ModelConfig(base=backbone.base, adapter=AdapterConfig(kind="none"))
    assert "enable_lora" not in engine_settings(config, to_serve(Backbone.load(bare), None))


def test_from_an_answer_to_a_rollout(model_folder: ModelFolder) -> None:
    policy = Policy("sft", load_backbone(model_folder("llama", "bos")))
    tokenizer = policy.backbone.tokenizer
    ids = [*tokenizer("Turn it off.", add_special_tokens=False)["input_ids"]]
    said = [*ids, tokenizer.eos_token_id]
    logprobs = [-0.5 - i for i in range(len(said))]
    found = to_rollout(policy, ROW, answer(said, logprobs, stop=tokenizer.eos_token_id), 3)
    assert (found.id, found.prompt_id, found.index, found.seed) == ("p/sft/2", "p", 2, 3)
    assert (found.completion, found.finish_reason) == ("Turn it off.", "stop")
    assert (found.token_ids, found.token_logprobs) == (said, logprobs)
    assert found.logprob == pytest.approx(sum(logprobs))
    assert found.sampling_logprobs is None
    cut = to_rollout(policy, ROW, answer(ids, logprobs[:-1], "length"), 3)
    assert (cut.completion, cut.finish_reason) == ("Turn it off.", "length")
    stopped = to_rollout(policy, ROW, answer(ids, logprobs[:-1], stop="f."), 3)
    assert (stopped.completion, stopped.finish_reason) == ("Turn it of", "stop")
    assert stopped.token_ids == ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer([5], [-1.0], "abort"), r"rollout p/sft/2: vLLM broke it off \(abort\)"),
        (answer([5], [float("nan")], "length"), "rollout p/sft/2: .* no number"),
    ],
)
def test_answers_that_are_none(
    model_folder: ModelFolder, given: SimpleNamespace, message: str
) -> None:
    policy = Policy("sft", load_backbone(model_folder("llama", "bos")))
    with pytest.raises(RolloutError, match=message):
        to_rollout(policy, ROW, given, 0)


@pytest.mark.parametrize(
    ("text", "stop", "before", "expected"),
    [
        ("One. Two.", ".", "One. Two", "One. Two"),  # the first was passed over
        ("One. Two.", ". T", "One.", "One"),  # begun before the last token
        ("Yes!!!", "!", "Yes", "Yes"),  # the last token holds it thrice
        ("Yes\n\nQ", "\n", "Yes", "Yes"),  # and more after it
        ("a€", "€", "a\N{REPLACEMENT CHARACTER}", "a"),  # completes a character
        ("a€", "€", "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}", "a"),
        ("none", "x", "non", "none"),
    ],
)
def test_where_a_stop_string_cuts(text: str, stop: str, before: str, expected: str) -> None:
    assert cut_at_stop(text, stop, before) == expected
