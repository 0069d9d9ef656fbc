"""Scores: the same whatever is computed together, shared, or known already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render, render_prompt
from demoalign.errors import EvaluationError
from demoalign.policies import Policy
from demoalign.records import Prompt
from demoalign.rewards import RewardModel
from demoalign.rewards.scorers import SharedScorer, linear_head
from demoalign.rewards.scoring import score_together
from demoalign.rollouts import PromptSpec, TransformersEngine
from tests.conftest import ModelFolder
from tests.models import CONTEXT, chat, load_backbone, make_tokenizer
from tests.rewards.models import ANSWERS, KINDS, PROMPTS, effective_adapter, fresh_reward

MANY_PROMPTS: list[Prompt] = [p for p in [*PROMPTS, chat("Why?")] for _ in ANSWERS] + ["Once?"]
MANY_ANSWERS = ANSWERS * 6 + [" It has no paper."]
FLAGS = [i % 3 != 0 for i in range(len(MANY_ANSWERS))]


def row_of(model: RewardModel, ids: list[int]) -> torch.Tensor:
    return torch.tensor([ids], device=model.scorer.device)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "bloom"])
@pytest.mark.parametrize("kind", ["head", "full"])
def test_neither_batches_nor_company_change_a_score(
    model_folder: ModelFolder, name: str, kind: str
) -> None:
    model = fresh_reward(model_folder(name, "bos"), kind)
    alone = np.array(
        [
            model.score([prompt], [answer], [flag])[0]
            for prompt, answer, flag in zip(MANY_PROMPTS, MANY_ANSWERS, FLAGS, strict=True)
        ]
    )
    assert np.ptp(alone) > 0.1
    for size in (1, 7, 64):
        found = model.score(MANY_PROMPTS, MANY_ANSWERS, FLAGS, batch_size=size)
        np.testing.assert_allclose(found, alone, atol=2e-5)
    backwards = model.score(MANY_PROMPTS[::-1], MANY_ANSWERS[::-1], FLAGS[::-1])
    np.testing.assert_allclose(backwards[::-1], alone, atol=2e-5)


def test_a_score_is_that_of_the_whole_sequence(model_folder: ModelFolder) -> None:
    """By a plain forward pass without padding."""
    model = fresh_reward(model_folder("llama", "chat"))
    found = model.score(MANY_PROMPTS, MANY_ANSWERS, FLAGS)
    for value, prompt, answer, flag in zip(found, MANY_PROMPTS, MANY_ANSWERS, FLAGS, strict=True):
        ids = row_of(model, render(model.tokenizer, prompt, answer, flag).ids)
        with torch.inference_mode():
            reward, _ = model.scorer(ids, torch.ones_like(ids))
        assert value == pytest.approx(float(reward), abs=2e-5)


def test_a_text_is_no_chat_that_is_written_alike(model_folder: ModelFolder) -> None:
    model = fresh_reward(model_folder("llama", "chat"))
    prompts: list[Prompt] = [chat("Why?"), '[{"role": "user", "content": "Why?"}]']
    alone = [model.score([prompt], [" No."])[0] for prompt in prompts]
    assert abs(alone[0] - alone[1]) > 1e-3
    assert model.score(prompts, [" No."] * 2) == pytest.approx(alone, abs=2e-5)


# What sampling computed already


def test_known_states_give_the_same_scores(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    effective_adapter(backbone, "sft", 0)
    policy = Policy("sft", backbone, "sft")
    models = [own_head(policy, seed) for seed in range(3)]
    assert all(model.reads(policy) for model in models)
    specs = [PromptSpec(f"p{i}", text) for i, text in enumerate(PROMPTS) if isinstance(text, str)]
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=3))
    sampled = list(engine.sample_hidden(policy, specs, 12, 0))
    unknown = np.full(backbone.hidden_size, np.nan, np.float32)
    hidden = np.stack([unknown if each.hidden is None else each.hidden for each in sampled])
    assert 5 < int(np.isfinite(hidden).all(-1).sum()) < len(hidden) - 5
    said = (
        [PROMPTS[int(each.rollout.prompt_id[1:])] for each in sampled],
        [each.rollout.completion for each in sampled],
        [each.rollout.finish_reason == "stop" for each in sampled],
    )
    wanted = score_together(models, *said)
    for given in (hidden, np.full_like(hidden, np.nan)):
        found = score_together(models, *said, hidden=given)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one[0], other[0], atol=2e-5)
            np.testing.assert_allclose(one[1], other[1], atol=2e-5)
    assert np.ptp([scores[0] for scores in wanted], axis=0).max() > 0.05
    known = np.isfinite(hidden).all(-1)
    np.testing.assert_allclose(
        models[0].judge_states(hidden[known]), wanted[0][0][known], atol=2e-5
    )


def own_head(policy: Policy, seed: int) -> RewardModel:
    backbone = policy.backbone
    head, second = (linear_head(backbone.hidden_size, s, backbone.device) for s in (seed, 9))
    with torch.no_grad():
        head.weight *= 5
        second.weight *= 5
    scorer = SharedScorer(backbone, policy.adapter, head, second)
    return RewardModel(f"head {seed}", scorer, backbone.tokenizer)


def test_what_is_known_is_not_computed(model_folder: ModelFolder) -> None:
    """A known state is taken as it is; equal answers share it, also where it is not known."""
    backbone = load_backbone(model_folder("llama", "bos"))
    model = own_head(Policy("initial", backbone), 0)
    plain = model.score(["Why?"] * 4, [" No.", " No.", " Yes.", " It"])
    hidden = np.full((4, backbone.hidden_size), np.nan, np.float32)
    hidden[1] = 1.0
    found = model.score(["Why?"] * 4, [" No.", " No.", " Yes.", " It"], hidden=hidden)
    assert found[:2].tolist() == [float(model.judge_states(hidden[1:2])[0])] * 2
    np.testing.assert_allclose(found[2:], plain[2:], atol=2e-5)
    assert abs(found[0] - plain[0]) > 1e-3


def test_states_of_one_model_are_not_given_to_another(model_folder: ModelFolder) -> None:
    base = model_folder("llama", "bos")
    adapter = fresh_reward(base)
    backbone = load_backbone(base)
    hidden = np.zeros((1, 32), np.float32)
    models = [own_head(Policy("initial", backbone), 0), adapter]
    with pytest.raises(EvaluationError, match="hidden: needs models that all read the same"):
        score_together(models, ["Why?"], [" No."], hidden=hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_a_policys_states(model_folder: ModelFolder, kind: str) -> None:
    model = fresh_reward(model_folder("llama", "bos"), kind)
    other = load_backbone(model_folder("llama", "bos"))
    assert not model.reads(Policy("initial", other))
    if isinstance(model.scorer, SharedScorer):
        backbone = model.scorer.backbone
        assert model.reads(Policy("same", backbone, model.scorer.adapter))
        assert model.reads(Policy("initial", backbone)) == (kind == "head")
        model.ends_answers = False
        assert not model.reads(Policy("same", backbone, model.scorer.adapter))


# Others' models, and long prompts


def test_an_encoder_of_someone_else(tmp_path: Path) -> None:
    """It reads another token than the last, so nothing is shared."""
    tokenizer = make_tokenizer("bos")
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_config(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=CONTEXT,
            num_labels=1,
            pad_token_id=0,
            initializer_range=0.3,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = RewardModel.load(tmp_path, device="cpu")
    assert not model.scorer.reads_last_token
    wanted = []
    for prompt, answer in zip(MANY_PROMPTS, MANY_ANSWERS, strict=True):
        ids = torch.tensor([render(tokenizer, prompt, answer, False).ids])
        with torch.inference_mode():
            wanted.append(theirs(input_ids=ids).logits.item())
    assert np.ptp(wanted) > 0.05
    for size in (1, 64):
        found = model.score(MANY_PROMPTS, MANY_ANSWERS, batch_size=size)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    with pytest.raises(EvaluationError, match="hidden: needs models"):
        model.score(["Why?"], [" No."], hidden=np.zeros((1, 32), np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_of_long_sequences_the_beginning_is_scored(
    model_folder: ModelFolder, name: str, kind: str
) -> None:
    model = fresh_reward(model_folder(name, "bos"), kind)
    long, longer = "Why? " * 30, "Why? " * 90
    assert CONTEXT - 10 < len(render_prompt(model.tokenizer, long)) < CONTEXT
    assert len(render_prompt(model.tokenizer, longer)) > CONTEXT
    answers = [" It has no paper in it.", " Your warranty covers the repair.", " No"]
    prompts = [long] * 3 + [longer] * 3 + ["Why?"] * 3
    found = model.score(prompts, answers * 3)
    for value, prompt, answer in zip(found, prompts, answers * 3, strict=True):
        ids = row_of(model, render(model.tokenizer, prompt, answer).ids[:CONTEXT])
        with torch.inference_mode():
            reward, _ = model.scorer(ids, torch.ones_like(ids))
        assert value == pytest.approx(float(reward), abs=2e-5)
    assert len(set(found[3:6])) == 1
    assert np.ptp(found[6:]) > 1e-3
