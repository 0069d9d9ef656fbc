"""Rollouts: what is sampled, with which probability, and where it stops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from demoalign.config import AdapterConfig, RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.errors import ModelError, RolloutError
from demoalign.policies import Policy
from demoalign.rollouts import PromptSpec, TransformersEngine, transformers_engine
from tests.conftest import ModelFolder
from tests.models import CONTEXT, END, TURN_END, chat, load_backbone
from tests.rollouts.local import (
    SPECS,
    TEXTS,
    chi_square,
    greedy,
    initial,
    log_probs,
    logprobs,
    sample,
    tokens,
    with_adapter,
)

# What a rollout is


def test_order_names_and_ends(model_folder: ModelFolder, tokenizer_kind: str) -> None:
    policy = initial(model_folder("llama", tokenizer_kind))
    end = policy.backbone.tokenizer.convert_tokens_to_ids(END)
    found = sample(policy, n=8)
    assert [r.id for r in found] == [f"p{p}/initial/{i}" for p in range(5) for i in range(8)]
    assert [(r.prompt_id, r.index) for r in found[8:10]] == [("p1", 0), ("p1", 1)]
    for rollout in found:
        assert rollout.token_ids
        assert end not in rollout.token_ids[:-1]
        stopped = rollout.token_ids[-1] == end
        assert rollout.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(rollout.token_ids) == 12
        assert END not in rollout.completion
        assert (rollout.policy, rollout.seed) == ("initial", 0)
    assert {rollout.finish_reason for rollout in found} == {"stop", "length"}
    assert sum(bool(rollout.completion) for rollout in found) > len(found) / 2
    assert len({tuple(rollout.token_ids) for rollout in found}) > len(found) / 2


def test_chat_stops_at_the_end_of_turn(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "chat"))
    turn_end, end = policy.backbone.tokenizer.convert_tokens_to_ids([TURN_END, END])
    plain = [PromptSpec(f"plain {i}", text) for i, text in enumerate(TEXTS)]
    turns = [PromptSpec(f"chat {i}", chat(text)) for i, text in enumerate(TEXTS)]
    mixed = sample(policy, [*plain, *turns], n=16, max_new_tokens=24)
    assert tokens(mixed) == tokens(
        [r for part in (plain, turns) for r in sample(policy, part, n=16, max_new_tokens=24)]
    )
    last = Counter((r.prompt_id[:4], r.token_ids[-1]) for r in mixed if r.finish_reason == "stop")
    assert last["chat", turn_end] > 3
    assert last["chat", end] > 3
    assert last["plai", end] > 3
    assert last["plai", turn_end] == 0
    for rollout in mixed:
        assert end not in rollout.token_ids[:-1]
        passes = rollout.prompt_id.startswith("plain")
        assert passes or turn_end not in rollout.token_ids[:-1]


def test_a_prompt_must_leave_room(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    size = len(render_prompt(policy.backbone.tokenizer, TEXTS[0]))
    assert len(sample(policy, SPECS[:1], n=1, max_new_tokens=CONTEXT - size)) == 1
    with pytest.raises(ModelError) as caught:
        sample(policy, SPECS[:1], n=1, max_new_tokens=CONTEXT - size + 1)
    assert str(caught.value) == (
        f"rollouts.max_new_tokens: prompt and completion must fit the model's context of {CONTEXT} "
        f"tokens, found {size} + {CONTEXT - size + 1} for prompt p0. Lower max_new_tokens or "
        "demonstrations.max_prompt_tokens."
    )


def test_two_prompts_with_one_id_are_refused(model_folder: ModelFolder) -> None:
    """They would draw the same random numbers, and one could not be told from the other."""
    specs = [*SPECS, PromptSpec("p3", "Another")]
    with pytest.raises(RolloutError, match="each needs an id of its own, found 'p3' twice"):
        sample(initial(model_folder("llama", "bos")), specs)


# Equality whatever is around


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_nothing(
    model_folder: ModelFolder, architecture: str, batch_size: int
) -> None:
    policy = initial(model_folder(architecture, "bos"))
    wanted, found = sample(policy, batch_size=64), sample(policy, batch_size=batch_size)
    assert tokens(found) == tokens(wanted)
    assert [r.completion for r in found] == [r.completion for r in wanted]
    np.testing.assert_allclose(logprobs(found), logprobs(wanted), atol=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_batches_side_by_side_change_nothing(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    policy = initial(model_folder("llama", "bos"))
    policy.backbone.add_adapter("sft", AdapterConfig(), 0)
    tuned = Policy("sft", policy.backbone, "sft")
    alone = sample(tuned, batch_size=3)
    monkeypatch.setattr(transformers_engine, "_workers", lambda _device: workers)
    found = sample(tuned, batch_size=3)
    assert tokens(found) == tokens(alone)
    np.testing.assert_allclose(logprobs(found), logprobs(alone), atol=1e-4)
    assert sample(tuned, batch_size=3) == found


def test_order_and_number_change_nothing(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("gpt2", "eos_only"))
    wanted = tokens(sample(policy))
    assert tokens(sample(policy, SPECS[::-1], batch_size=3)) == wanted
    alone = tokens(sample(policy, SPECS[2:3], n=2))
    assert alone == {name: ids for name, ids in wanted.items() if name in alone}
    assert len(alone) == 2


def test_seed_and_prompt_id_change_the_draws(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    wanted = [r.token_ids for r in sample(policy)]
    assert [r.token_ids for r in sample(policy, seed=1)] != wanted
    renamed = [PromptSpec("other " + spec.id, spec.prompt) for spec in SPECS]
    assert [r.token_ids for r in sample(policy, renamed)] != wanted


def test_two_policies_may_be_sampled_in_turns(model_folder: ModelFolder) -> None:
    """Their weights are shared, so what one does between two rollouts must not reach the other."""
    backbone = load_backbone(model_folder("llama", "bos"))
    policies = [Policy("initial", backbone), with_adapter(backbone)]
    wanted = [sample(policy, batch_size=2) for policy in policies]
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12, batch_size=2))
    found = list(zip(*[engine.sample(policy, SPECS, 4, 0) for policy in policies], strict=True))
    for number in (0, 1):
        assert tokens([pair[number] for pair in found]) == tokens(wanted[number])
    assert [r.token_ids for r in wanted[0]] != [r.token_ids for r in wanted[1]]


# Probabilities


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_logprob_is_that_of_the_policy_itself(
    model_folder: ModelFolder, architecture: str, temperature: float, top_p: float
) -> None:
    policy = initial(model_folder(architecture, "bos"))
    for rollout in sample(policy, n=2, temperature=temperature, top_p=top_p):
        prompt = render_prompt(policy.backbone.tokenizer, TEXTS[int(rollout.prompt_id[1:])])
        each = log_probs(policy, prompt + rollout.token_ids)[len(prompt) - 1 : -1]
        picked = each.gather(-1, torch.tensor(rollout.token_ids)[:, None])
        assert rollout.logprob == pytest.approx(float(picked.sum()), abs=1e-3)


def test_greedy_is_what_generate_gives(model_folder: ModelFolder, architecture: str) -> None:
    policy = initial(model_folder(architecture, "bos"))
    model, tokenizer = policy.backbone.causal, policy.backbone.tokenizer
    texts = [*TEXTS, "Does it print?", "Key.", "It is", "No paper again", "On", "Repair", "Hold it"]
    found = greedy(policy, [PromptSpec(str(i), text) for i, text in enumerate(texts)])
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True).to(policy.backbone.device)
    tokenizer.padding_side = "right"
    assert batch["attention_mask"].min() == 0
    whole = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=False,
        max_new_tokens=20,
    )
    for rollout, row in zip(found, whole[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
        assert row[: len(rollout.token_ids)] == rollout.token_ids
        assert set(row[len(rollout.token_ids) :]) <= {tokenizer.pad_token_id}
        assert (rollout.index, rollout.id) == (-1, f"{rollout.prompt_id}/initial/greedy")


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 0.9)])
def test_the_first_two_tokens_are_distributed_exactly(
    model_folder: ModelFolder, temperature: float, top_p: float
) -> None:
    policy = initial(model_folder("llama", "bos"))
    tokenizer = policy.backbone.tokenizer
    found = sample(
        policy,
        SPECS[:1],
        n=4000,
        batch_size=1000,
        max_new_tokens=2,
        temperature=temperature,
        top_p=top_p,
    )
    prompt = render_prompt(tokenizer, TEXTS[0])

    def distribution(ids: list[int]) -> NDArray[np.float64]:
        scaled = log_probs(policy, ids)[-1].numpy() / temperature
        exact = np.exp(scaled - scaled.max())
        exact /= exact.sum()
        order = np.argsort(-exact)
        before = np.cumsum(exact[order]) - exact[order]
        exact[order[before >= top_p]] = 0 if top_p < 1 else exact[order[before >= top_p]]
        result: NDArray[np.float64] = exact / exact.sum()
        return result

    first = distribution(prompt)
    counts = np.bincount([r.token_ids[0] for r in found], minlength=len(first))
    assert (counts[first == 0] == 0).all()
    assert chi_square(counts, first) > 1e-3
    second = np.zeros_like(first)
    for token in np.flatnonzero(first):
        if token != tokenizer.eos_token_id:
            second += first[token] * distribution([*prompt, int(token)])
    going = [r.token_ids[1] for r in found if len(r.token_ids) == 2]
    assert chi_square(np.bincount(going, minlength=len(first)), second / second.sum()) > 1e-3
    wrong = np.roll(first, 1)
    assert chi_square(counts, (wrong + 1e-3) / (wrong + 1e-3).sum()) < 1e-9
