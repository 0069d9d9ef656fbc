"""The token MDP behind Gymnasium's interface: its own checks, and returns against enumeration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from demoalign.demonstrations.render import render_completion
from demoalign.errors import ModelError
from demoalign.lab.environments import PromptEnvironment, TextEnvironment
from demoalign.lab.mdp import TextMDP, sequence_sums
from demoalign.policies import Policy
from demoalign.policies.policy import INITIAL
from demoalign.records import Prompt
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone
from tests.rewards.models import fresh_reward

MDP = TextMDP(3, 3)
PROMPTS: list[Prompt] = ["Why?", "The router is off. What now?"]


class Letters:
    """Pays an answer's letters, and one more if it ended; keeps what it was asked."""

    name = "letters"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> NDArray[np.float64]:
        assert finished is not None
        self.asked += zip(prompts, completions, finished, strict=True)
        return np.array([len(c) + float(f) for c, f in zip(completions, finished, strict=True)])


def policy_of(folder: Any) -> Policy:
    return Policy(INITIAL, load_backbone(folder))


# Texts that can be enumerated


@pytest.mark.filterwarnings("error")
def test_texts_pass_gymnasiums_checks() -> None:
    check_env(TextEnvironment(MDP, np.ones((MDP.states, MDP.tokens))), skip_render_check=True)


@pytest.mark.parametrize("kind", ["tokens", "texts"])
def test_every_text_returns_what_the_mdp_says(kind: str) -> None:
    generator = np.random.default_rng(0)
    texts, prefixes = MDP.completions(), MDP.prefixes()
    if kind == "tokens":
        rewards = generator.normal(size=(MDP.states, MDP.tokens))
        wanted = sequence_sums(MDP, rewards)
    else:
        rewards = wanted = generator.normal(size=len(texts))
    env = TextEnvironment(MDP, rewards)
    for text, value in zip(texts, wanted, strict=True):
        seen, info = env.reset()
        earned, ended = 0.0, False
        for place, token in enumerate(text):
            assert prefixes[int(seen)] == text[:place] == info["text"]
            assert not ended
            seen, reward, ended, truncated, info = env.step(np.int64(token))
            assert env.observation_space.contains(seen)
            assert not truncated
            earned += reward
        assert ended
        assert (int(seen), info["text"]) == (MDP.states, text)
        assert earned == pytest.approx(value)


def test_what_texts_refuse() -> None:
    with pytest.raises(ValueError, match=r"of tokens \(7, 3\) or of texts \(15,\), found \(3,\)"):
        TextEnvironment(MDP, np.ones(3))
    env = TextEnvironment(MDP, np.zeros((MDP.states, MDP.tokens)))
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(InvalidAction, match="from 0 to 2, found 3"):
        env.step(3)
    env.step(MDP.end)
    with pytest.raises(ResetNeeded):
        env.step(0)


# Prompts in a model's tokens


@pytest.mark.filterwarnings("error")
def test_prompts_pass_gymnasiums_checks(model_folder: ModelFolder) -> None:
    env = PromptEnvironment(policy_of(model_folder("llama", "bos")), PROMPTS, Letters(), 8)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("kind", ["bos", "chat_bos"])
def test_an_answer_is_scored_as_its_text_when_it_ends(model_folder: ModelFolder, kind: str) -> None:
    policy, scorer = policy_of(model_folder("llama", kind)), Letters()
    prompts = [chat(str(text)) for text in PROMPTS] if kind == "chat_bos" else PROMPTS
    env = PromptEnvironment(policy, prompts, scorer, max_new_tokens=40)
    tokenizer = policy.backbone.tokenizer
    said = render_completion(tokenizer, prompts[1], " Turn it on.")
    seen, info = env.reset(options={"prompt": 1})
    start = int(seen["length"])
    assert info["prompt"] == prompts[1]
    paid = []
    for count, token in enumerate(said, start=1):
        seen, reward, terminated, truncated, info = env.step(np.int64(token))
        assert env.observation_space.contains(seen)
        assert seen["length"] == start + count
        assert list(seen["tokens"][start : start + count]) == said[:count]
        assert set(seen["tokens"][start + count :]) <= {tokenizer.pad_token_id}
        paid.append(reward)
    assert (terminated, truncated) == (True, False)
    assert info["completion"] == " Turn it on."
    assert paid == [0.0] * (len(said) - 1) + [len(" Turn it on.") + 1]
    assert scorer.asked == [(prompts[1], " Turn it on.", True)]
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_an_answer_is_cut_at_its_longest(model_folder: ModelFolder) -> None:
    policy, scorer = policy_of(model_folder("llama", "bos")), Letters()
    env = PromptEnvironment(policy, PROMPTS, scorer, max_new_tokens=3)
    said = render_completion(policy.backbone.tokenizer, PROMPTS[0], " Turn it on, please.")
    env.reset(options={"prompt": 0})
    found = [env.step(np.int64(token)) for token in said[:3]]
    assert [each[2:4] for each in found] == [(False, False), (False, False), (False, True)]
    assert scorer.asked == [(PROMPTS[0], found[-1][4]["completion"], False)]


def test_a_reward_model_pays_what_it_scores(model_folder: ModelFolder) -> None:
    folder = model_folder("llama", "bos")
    reward, policy = fresh_reward(folder, "adapter"), policy_of(folder)
    env = PromptEnvironment(policy, PROMPTS, reward, max_new_tokens=20)
    env.reset(options={"prompt": 0})
    for token in render_completion(policy.backbone.tokenizer, PROMPTS[0], " It is."):
        *_, paid, _, _, _ = env.step(np.int64(token))
    assert paid == pytest.approx(reward.score([PROMPTS[0]], [" It is."])[0])
    assert paid != 0


def test_a_score_that_is_no_number_is_refused(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, scorer = policy_of(model_folder("llama", "bos")), Letters()
    monkeypatch.setattr(scorer, "score", lambda *_: np.array([np.nan]))
    env = PromptEnvironment(policy, PROMPTS, scorer, 4)
    env.reset()
    with pytest.raises(ValueError, match="reward: must be finite, found nan for ''"):
        env.step(np.int64(policy.backbone.tokenizer.eos_token_id))


def test_prompts_are_drawn_by_seed(model_folder: ModelFolder) -> None:
    env = PromptEnvironment(policy_of(model_folder("llama", "bos")), PROMPTS, Letters(), 4)
    drawn = []
    for _ in range(2):
        first = env.reset(seed=3)[1]["prompt"]
        drawn.append([first, *(env.reset()[1]["prompt"] for _ in range(10))])
    assert drawn[0] == drawn[1]
    assert set(map(str, drawn[0])) == set(map(str, PROMPTS))


def test_what_prompts_refuse(model_folder: ModelFolder) -> None:
    policy = policy_of(model_folder("llama", "bos"))
    with pytest.raises(ModelError, match="found 0 prompts"):
        PromptEnvironment(policy, [], Letters())
    with pytest.raises(ModelError, match=r"max_new_tokens 128, together .* a context of 128"):
        PromptEnvironment(policy, PROMPTS, Letters())
    env = PromptEnvironment(policy, PROMPTS, Letters(), 4)
    with pytest.raises(ValueError, match=r"options\.prompt: must be from 0 to 1, found 2"):
        env.reset(options={"prompt": 2})
    env.reset()
    with pytest.raises(InvalidAction):
        env.step(-1)


def test_without_gymnasium_the_message_says_what_to_install() -> None:
    code = "import sys; sys.modules['gymnasium'] = None; import demoalign.lab.environments"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "needs gymnasium, which is not installed; pip install 'demoalign[gym]'" in ran.stderr
