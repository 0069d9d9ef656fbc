"""Writing an answer as a Gymnasium environment: a token at a time, paid when it ends.

    env = PromptEnvironment(policy, prompts, da.RewardModel.load("runs/my-run/reward/init-sft"))
    seen, info = env.reset(seed=0)                       # a prompt
    seen, reward, terminated, truncated, info = env.step(17)   # the token with id 17

`PromptEnvironment` is the token MDP of section 2.1 over a real tokenizer; `TextEnvironment` the one
that is small enough to enumerate (`lab.mdp`), for agents whose optimum is to be known. Transitions
are deterministic: a token is appended. Needs the extra ``gym`` (``pip install 'demoalign[gym]'``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsInt

import numpy as np
from numpy.typing import NDArray

from demoalign.demonstrations.render import answer_end, decode_completion, render_prompt
from demoalign.errors import ModelError
from demoalign.improve.selector import Selector
from demoalign.lab.mdp import TextMDP
from demoalign.policies.policy import Policy
from demoalign.records import Prompt

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.error import InvalidAction, ResetNeeded
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "demoalign.lab.environments: needs gymnasium, which is not installed; "
        "pip install 'demoalign[gym]'"
    ) from error

Array = NDArray[np.float64]
Tokens = NDArray[np.int64]
Seen = dict[str, Any]
Info = dict[str, Any]


class TextEnvironment(gymnasium.Env[np.int64, np.int64]):
    """The tree of texts of a `TextMDP`.

    Observations are states 0..S-1 in the order of `TextMDP.prefixes`, and S once the text is
    closed; actions are tokens 0..V-1. ``info["text"]`` has the tokens so far.

    Args:
        mdp: the texts.
        rewards: (S, V) of each token, or (C,) of each text, paid with the token that closes it.

    Raises:
        ValueError: rewards of another shape.
    """

    def __init__(self, mdp: TextMDP, rewards: Array) -> None:
        closes = mdp.closes
        table = np.array(rewards, dtype=np.float64)
        if table.shape == (int(closes.sum()),):
            table = np.zeros(closes.shape)
            table[closes] = rewards
        if table.shape != closes.shape:
            raise ValueError(
                f"rewards: must be of tokens {closes.shape} or of texts ({int(closes.sum())},), "
                f"found {np.shape(rewards)}"
            )
        self.mdp = mdp
        self.rewards = table
        self.observation_space = spaces.Discrete(mdp.states + 1)
        self.action_space = spaces.Discrete(mdp.tokens)
        self._state: int | None = None
        self._text: tuple[int, ...] = ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, Info]:
        """Begin an empty text; there is nothing to draw."""
        super().reset(seed=seed)
        self._state, self._text = 0, ()
        return np.int64(0), {"text": ()}

    def step(self, action: SupportsInt) -> tuple[np.int64, float, bool, bool, Info]:
        """Say a token; raises ResetNeeded after the end, and InvalidAction for no token."""
        token = _token(action, self.mdp.tokens)
        if self._state is None:
            raise ResetNeeded("step: the text is closed; call reset first")
        reward = float(self.rewards[self._state, token])
        is_closed = bool(self.mdp.closes[self._state, token])
        self._text = (*self._text, token)
        following = self._state * (self.mdp.tokens - 1) + 1 + token
        self._state = None if is_closed else following
        seen = self.mdp.states if is_closed else following
        return np.int64(seen), reward, is_closed, False, {"text": self._text}


class PromptEnvironment(gymnasium.Env[Seen, np.int64]):
    """Answering prompts in the tokens of a policy's model.

    ``reset`` draws a prompt, or takes number ``options={"prompt": i}``. Observations hold
    ``tokens`` (L,), prompt and answer so far with padding behind, and ``length``, how many of
    them count. The episode terminates with an end token, and is truncated after
    ``max_new_tokens``; either pays the scorer's value of the answer, all other steps pay 0.
    ``info`` has ``prompt`` and, at the end, ``completion``.

    Args:
        policy: whose tokenizer, vocabulary and context are used; it is not sampled.
        prompts: at least one.
        scorer: of answers, such as a reward model; a score that is not finite is refused.
        max_new_tokens: of an answer, its end token included.

    Raises:
        ModelError: there is no prompt, or one leaves no room for an answer in the context.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        scorer: Selector,
        max_new_tokens: int = 128,
    ) -> None:
        self._tokenizer = policy.backbone.tokenizer
        self._prompts = list(prompts)
        self._ids = [render_prompt(self._tokenizer, prompt) for prompt in self._prompts]
        self._scorer = scorer
        self._most = max_new_tokens
        self._room = longest = max(map(len, self._ids), default=0) + max_new_tokens
        if not self._ids or max_new_tokens < 1 or longest > (policy.context or longest):
            raise ModelError(
                "environment: needs prompts, and room for at least one new token behind each; "
                f"found {len(self._ids)} prompts and max_new_tokens {max_new_tokens}, together up "
                f"to {longest} tokens in a context of {policy.context}"
            )
        self._vocabulary = policy.backbone.causal.get_output_embeddings().weight.shape[0]
        self.observation_space = spaces.Dict(
            {
                "tokens": spaces.Box(0, self._vocabulary - 1, (longest,), np.int64),
                "length": spaces.Discrete(longest + 1),
            }
        )
        self.action_space = spaces.Discrete(self._vocabulary)
        self._number = 0
        self._said: list[int] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, Info]:
        """Begin the answer to a prompt."""
        super().reset(seed=seed)
        chosen = (options or {}).get("prompt")
        count = len(self._prompts)
        if chosen is not None and not 0 <= chosen < count:
            raise ValueError(f"options.prompt: must be from 0 to {count - 1}, found {chosen}")
        self._number = int(self.np_random.integers(count)) if chosen is None else int(chosen)
        self._said = []
        return self._seen([]), {"prompt": self._prompts[self._number]}

    def step(self, action: SupportsInt) -> tuple[Seen, float, bool, bool, Info]:
        """Say a token; raises ResetNeeded after the end, and InvalidAction for no token."""
        token = _token(action, self._vocabulary)
        if self._said is None:
            raise ResetNeeded("step: the answer has ended; call reset first")
        said, prompt = [*self._said, token], self._prompts[self._number]
        end = answer_end(self._tokenizer, is_chat=not isinstance(prompt, str))
        terminated = token in end.stop_ids
        truncated = not terminated and len(said) == self._most
        info: Info = {"prompt": prompt}
        if not (terminated or truncated):
            self._said = said
            return self._seen(said), 0.0, False, False, info
        self._said = None
        info["completion"] = decode_completion(self._tokenizer, prompt, said)
        reward = self._scorer.score([prompt], [info["completion"]], [terminated])[0]
        if not np.isfinite(reward):
            raise ValueError(f"reward: must be finite, found {reward} for {info['completion']!r}")
        return self._seen(said), float(reward), terminated, truncated, info

    def _seen(self, said: Sequence[int]) -> Seen:
        ids = [*self._ids[self._number], *said]
        tokens: Tokens = np.full(self._room, self._tokenizer.pad_token_id, dtype=np.int64)
        tokens[: len(ids)] = ids
        return {"tokens": tokens, "length": np.int64(len(ids))}


def _token(action: SupportsInt, vocabulary: int) -> int:
    token = int(action)
    if not 0 <= token < vocabulary:
        raise InvalidAction(f"step: must be a token from 0 to {vocabulary - 1}, found {token}")
    return token
