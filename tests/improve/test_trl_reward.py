"""Rewards in TRL's own trainers: what they log is what `score` gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import demoalign as da
from demoalign.config import EnsembleConfig
from demoalign.errors import DataError, EvaluationError, ModelError
from demoalign.improve import trl_reward
from demoalign.improve.selector import Selector
from demoalign.records import Prompt
from demoalign.rewards.ensemble import EnsembleSelector
from tests.conftest import ModelFolder
from tests.models import END, TURN_END, chat, load_backbone, make_tokenizer
from tests.rewards.models import effective_adapter, fresh_reward

LONGEST = 12
GROUP = 4
TRAINERS = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}
QUESTIONS = ["Why?", "The router is off. What now?", "Is it?", "Lamp"]


def ratio(base: Path) -> da.DensityRatio:
    backbone = load_backbone(base)
    effective_adapter(backbone, "sft", 0)
    sft = da.Policy("sft", backbone, "sft")
    return da.DensityRatio.between(
        sft, sft.base(), da.RatioConfig(clip=2.0, support=None, repeats=2)
    )


def ensemble(base: Path) -> EnsembleSelector:
    members = tuple(fresh_reward(base, "head", seed=seed) for seed in (0, 1))
    return EnsembleSelector("both", members, EnsembleConfig(size=2))


REWARDS: dict[str, Callable[[Path], Selector]] = {
    "ratio": ratio,
    "adapter": lambda base: fresh_reward(base, "adapter", name="init-sft"),
    "head": lambda base: fresh_reward(base, "head"),
    "ensemble": ensemble,
}


class Fixed:
    """A user's own: gives the scores it was made with, and keeps what it was asked."""

    name = "mine"

    def __init__(self, *scores: Any) -> None:
        self.scores = scores
        self.asked: Any = None

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> Any:
        self.asked = (prompts, completions, finished)
        return self.scores or [float(len(each)) for each in completions]


def train(
    kind: str, base: Path, folder: Path, reward: Any, chatty: bool = False, **settings: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the trainer logged at each of two steps, and what it asked the reward."""
    calls: list[dict[str, Any]] = []

    @functools.wraps(reward)
    def recorded(**given: Any) -> list[float | None]:
        found: list[float | None] = reward(**given)
        calls.append({**given, "found": found})
        return found

    make_trainer, make_config = TRAINERS[kind]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.generation_config.eos_token_id = [
        i for text, i in tokenizer.get_vocab().items() if text in {END, TURN_END}
    ]
    plain = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": GROUP * len(QUESTIONS),
        "num_generations": GROUP,
        "max_completion_length": LONGEST,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    rows = [{"prompt": chat(text) if chatty else text, "topic": text[:2]} for text in QUESTIONS]
    trainer = make_trainer(
        model=model,
        args=make_config(**{**plain, **settings}),
        reward_funcs=recorded,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    logged = [each for each in trainer.state.log_history if "reward" in each]
    assert len(logged) == len(calls) == 2
    return logged, calls


def ended(call: dict[str, Any], ends: set[int]) -> list[bool]:
    """Told by the lengths, where they tell it."""
    ids = call["completion_ids"]
    found = [len(each) < LONGEST or each[-1] in ends for each in ids]
    assert 0 < sum(found) < len(found)
    assert any(len(each) < LONGEST for each in ids)
    return found


@pytest.mark.parametrize(
    ("kind", "reward"),
    [("grpo", "ratio"), ("rloo", "ratio"), ("grpo", "adapter"), ("rloo", "head")],
)
def test_trainers_log_what_score_gives(
    kind: str, reward: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    base = model_folder("llama", "bos")
    selector = REWARDS[reward](base)
    logged, calls = train(kind, base, tmp_path, trl_reward(selector))
    end = make_tokenizer("bos").eos_token_id
    for said, call in zip(logged, calls, strict=True):
        finished = ended(call, {end})
        wanted = selector.score(call["prompts"], call["completions"], finished)
        other = selector.score(call["prompts"], call["completions"])
        assert np.std(wanted) > 0.01
        assert abs(wanted.mean() - other.mean()) > 1e-4
        np.testing.assert_allclose(call["found"], wanted, atol=1e-5)
        assert said[f"rewards/{selector.name}/mean"] == pytest.approx(wanted.mean(), abs=1e-5)
        assert said[f"rewards/{selector.name}/std"] == pytest.approx(wanted.std(ddof=1), abs=1e-5)
        assert said[f"{selector.name}/cut"] == pytest.approx(1 - np.mean(finished))
        assert said[f"{selector.name}/cut"] == pytest.approx(said["completions/clipped_ratio"])
        assert said["grad_norm"] > 0


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
@pytest.mark.parametrize("reward", ["ratio", "ensemble"])
def test_conversations(kind: str, reward: str, model_folder: ModelFolder, tmp_path: Path) -> None:
    base = model_folder("llama", "chat")
    selector = REWARDS[reward](base)
    logged, calls = train(kind, base, tmp_path, trl_reward(selector), chatty=True)
    vocabulary = make_tokenizer("chat").get_vocab()
    ends = {vocabulary[END], vocabulary[TURN_END]}
    last = {each[-1] for call in calls for each in call["completion_ids"]}
    assert ends <= last
    for said, call in zip(logged, calls, strict=True):
        finished = ended(call, ends)
        texts = [turns[0]["content"] for turns in call["completions"]]
        wanted = selector.score(call["prompts"], texts, finished)
        assert said[f"rewards/{selector.name}/mean"] == pytest.approx(wanted.mean(), abs=1e-5)
        assert said[f"{selector.name}/cut"] == pytest.approx(said["completions/clipped_ratio"])


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_none_leaves_a_completion_out(kind: str, model_folder: ModelFolder, tmp_path: Path) -> None:
    """Of each group of four one has no score: the mean is that of the others."""
    scores = [1.0, 2.0, 6.0, float("nan")] * len(QUESTIONS)
    base = model_folder("llama", "bos")
    mine = trl_reward(Fixed(*scores), tokenizer=make_tokenizer("bos"), unscored="none")
    logged, calls = train(kind, base, tmp_path, mine)
    assert calls[0]["found"] == [1.0, 2.0, 6.0, None] * len(QUESTIONS)
    for said in logged:
        assert said["reward"] == said["rewards/mine/mean"] == pytest.approx(3.0)
        assert said["mine/unscored"] == pytest.approx(0.25)
    strict = trl_reward(Fixed(*scores), tokenizer=make_tokenizer("bos"))
    with pytest.raises(EvaluationError, match=r"reward mine: .* found 4 of 16 that are not, nan"):
        train(kind, base, tmp_path, strict)


TOKENIZER = make_tokenizer("chat")
VOCABULARY = TOKENIZER.get_vocab()


def ids_of(text: str, end: str | None = None) -> list[int]:
    ids: list[int] = TOKENIZER(text)["input_ids"]
    return [*ids, *([VOCABULARY[end]] if end else [])]


def called(reward: Any, texts: Sequence[str], prompts: Sequence[Any], **more: Any) -> Any:
    answers = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    given = {"completion_ids": [ids_of(text, END) for text in texts], **more}
    return reward(prompts=list(prompts), completions=answers, trainer_state=None, **given)


def test_what_is_asked() -> None:
    mine = Fixed()
    reward = trl_reward(mine, tokenizer=TOKENIZER)
    assert reward.__name__ == "mine"
    texts = ["on", "off", "it is on", "lamp"]
    ids = [ids_of("on", END), ids_of("off", TURN_END), ids_of("it is on"), []]
    found = called(reward, texts, ["Why?"] * 4, completion_ids=ids, topic=["a", "b", "c", "d"])
    assert found == [2.0, 3.0, 8.0, 4.0]
    assert mine.asked == (["Why?"] * 4, texts, [True, True, False, False])
    # as Arrow gives messages of which some rows had more keys
    asked = [{"role": "user", "content": "Why?", "tool_calls": None}]
    called(reward, ["on"], [asked])
    assert mine.asked[0] == [chat("Why?")]
    assert reward(prompts=[], completions=[], completion_ids=[]) == []


def test_what_the_template_puts_before_an_answer_is_not_scored_twice() -> None:
    tokenizer = make_tokenizer("chat")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}<think></think>{% endif %}"
        "{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    mine = Fixed()
    reward = trl_reward(mine, tokenizer=tokenizer)
    called(reward, ["<think></think>on", "on"], [chat("Why?")] * 2)
    assert mine.asked[1] == ["on", "on"]
    called(reward, ["<think></think>on"], ["Why?"])
    assert mine.asked[1] == ["<think></think>on"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ((1.0, float("nan")), r"reward mine: .* found 1 of 2 that are not, nan for 'off'"),
        ((float("inf"), 1.0), r"found 1 of 2 that are not, inf for 'on'"),
        ((1.0, -1e39), r"found 1 of 2 that are not, -1e\+39"),
        ((None, 1.0), r"found 1 of 2 that are not"),
        ((1.0,), r"one number for each of 2 completions, found shape \(1,\)"),
        (([1.0], [2.0]), r"found shape \(2, 1\)"),
    ],
)
def test_scores_that_are_none(scores: tuple[Any, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        called(trl_reward(Fixed(*scores), tokenizer=TOKENIZER), ["on", "off"], ["Why?"] * 2)


def test_infinities_are_none_too_if_asked_for() -> None:
    reward = trl_reward(Fixed(1.0, -1e39, float("inf")), tokenizer=TOKENIZER, unscored="none")
    assert called(reward, ["on", "off", "it"], ["Why?"] * 3) == [1.0, None, None]


TOOL = {"function": {"name": "add", "arguments": {}}}


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ([{"role": "assistant", "content": "", "tool_calls": [TOOL]}], "found tool_calls too"),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}], "found 2"),
        ([{"role": "user", "content": "on"}], "found role 'user'"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "on"}]}], "text as content"),
        ([{"content": "on"}], "must have a role"),
        (["on"], "must have a role"),
        ([], "text or a list of messages, found"),
        (3, "text or a list of messages, found 3"),
        (None, "text or a list of messages, found None"),
    ],
)
def test_completions_that_are_no_single_answer(completion: Any, message: str) -> None:
    reward = trl_reward(Fixed(), tokenizer=TOKENIZER)
    with pytest.raises(DataError, match=f"reward mine: a completion.*{message}"):
        reward(prompts=["Why?"], completions=[completion], completion_ids=[ids_of("on", END)])


def test_prompts_that_cannot_be_rendered() -> None:
    reward = trl_reward(Fixed(), tokenizer=TOKENIZER)
    image = [{"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(DataError, match="reward mine: a prompt's message must have a role and"):
        called(reward, ["on"], [image])


@pytest.mark.parametrize("wrong", ["runs/x", da.RewardModel, None, len])
def test_what_is_no_reward(wrong: Any) -> None:
    with pytest.raises(EvaluationError, match="needs a reward with a name and a score"):
        trl_reward(wrong, tokenizer=TOKENIZER)


def test_a_tokenizer_is_needed() -> None:
    with pytest.raises(EvaluationError, match="reward mine: needs the trainer's tokenizer"):
        trl_reward(Fixed())
    endless = make_tokenizer("chat")
    endless.eos_token = None
    with pytest.raises(ModelError, match="needs an eos_token"):
        trl_reward(Fixed(), tokenizer=endless)
    wrong: Any = "drop"
    with pytest.raises(EvaluationError, match="must be raise or none, found 'drop'"):
        trl_reward(Fixed(), tokenizer=TOKENIZER, unscored=wrong)


def test_a_mixtures_tokenizer_is_its_first_members(model_folder: ModelFolder) -> None:
    made = ratio(model_folder("llama", "bos"))
    ids = made.tokenizer("on")["input_ids"]
    mixed: Any = Fixed()
    mixed.members = (ensemble(model_folder("llama", "bos")), made)
    reward = trl_reward(mixed)
    given = [[*ids, made.tokenizer.eos_token_id], ids]
    assert reward(["Why?"] * 2, ["on", "on"], given) == [2.0, 2.0]
    assert mixed.asked[2] == [True, False]


def test_another_tokenizers_ids_are_noticed(model_folder: ModelFolder) -> None:
    """Its end token would be an ordinary one here, and every answer would count as cut."""
    selector = fresh_reward(model_folder("llama", "bos"), "head")
    texts, prompts = ["The router is off.", "Hold the key.", "on"], ["Why?"] * 3
    with pytest.raises(EvaluationError, match="reward reward: token ids must be of the reward's"):
        called(trl_reward(selector), texts, prompts)
    found = called(trl_reward(selector, tokenizer=TOKENIZER), texts, prompts)
    np.testing.assert_allclose(found, selector.score(prompts, texts))


def test_a_stray_special_token_is_no_other_tokenizer() -> None:
    ids = [[*ids_of("on"), VOCABULARY[TURN_END], *ids_of(" it", END)], ids_of("off", END)]
    reward = trl_reward(Fixed(), tokenizer=TOKENIZER)
    assert called(reward, ["on� it", "off"], ["Why?"] * 2, completion_ids=ids) == [6.0, 3.0]


def test_a_ratio_between_policies(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    effective_adapter(backbone, "sft", 0)
    sft = da.Policy("sft", backbone, "sft")
    initial = sft.base()
    assert (initial.name, initial.backbone, initial.adapter) == ("initial", backbone, None)
    made = da.DensityRatio.between(sft, initial)
    assert made == da.DensityRatio("density-ratio", made.positive, made.negative, da.RatioConfig())
    assert made.positive() is sft
    assert made.negative() is initial
    assert made.tokenizer is backbone.tokenizer
    with pytest.raises(ModelError, match="needs two policies, found sft twice"):
        da.DensityRatio.between(sft, da.Policy("sft", backbone, "sft"))
    with pytest.raises(ModelError, match="policy initial: must have an adapter"):
        initial.base()


def test_broken_weights_are_no_reward_of_zero(model_folder: ModelFolder) -> None:
    """NaN lies outside any support, where tokens count nothing."""
    made = ratio(model_folder("llama", "bos"))
    policy = made.negative()
    reward = trl_reward(da.DensityRatio.between(made.positive(), policy))
    tokenizer = policy.backbone.tokenizer
    ids = [[*tokenizer("on")["input_ids"], tokenizer.eos_token_id]]
    (before,) = reward(prompts=["Why?"], completions=["on"], completion_ids=ids)
    assert before is not None
    with torch.no_grad():
        policy.backbone.causal.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(EvaluationError, match="reward density-ratio: log-probabilities must be"):
        reward(prompts=["Why?"], completions=["on"], completion_ids=ids)
