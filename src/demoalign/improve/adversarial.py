"""Divergence minimisation as a reward that learns along with the policy (appendix D).

The discriminator's logit h = log(d_demo / d_pi) gives the policy the reward f*(f'(e^h)) of its
divergence (`demoalign.divergences`), of whole completions or of every token (Eq. 23 to 25, 30, 31).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoalign.config import AdversarialConfig
from demoalign.divergences import equal_offset, policy_reward
from demoalign.errors import TrainingError
from demoalign.improve.discriminator import Discriminator
from demoalign.improve.experience import Said
from demoalign.policies.last_hidden import Row
from demoalign.rewards.scoring import Answer, render_rows

Array = NDArray[np.float64]
Noted = dict[str, float | None]

ByPrompt = Mapping[tuple[int, ...], Sequence[tuple[int, ...]]]
"""Completions of prompts, both as token ids."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is known before the policy has said anything.

    Attributes:
        positives: the demonstrator's completions, or another declared source's.
        negatives: name of a declared source -> its completions.
        start: of the SFT policy, which the training begins with: what ``policy`` stands for until
            it has answered.
    """

    positives: ByPrompt
    negatives: Mapping[str, ByPrompt]
    start: ByPrompt


class AdversarialReward:
    """A reward that `optimise` can use, learning in every round.

    Args:
        discriminator: learns.
        config: of the method.
        sides: of the comparison.
        seed: of what is drawn.
    """

    def __init__(
        self, discriminator: Discriminator, config: AdversarialConfig, sides: Sides, seed: int
    ) -> None:
        self.discriminator, self.config, self.sides = discriminator, config, sides
        self.seed, self.steps = seed, 0
        self.replay: deque[list[Row]] = deque(maxlen=config.discriminator.memory)
        self._prompts = sorted(sides.positives)
        if not self._prompts:
            raise TrainingError(
                f"improve.discriminator.positives: {config.discriminator.positives} has answers to "
                "no training prompt, found 0"
            )

    @property
    def is_fixed(self) -> bool:
        """No."""
        return False

    def begin(self) -> None:
        """The steps before the first round, from what is known by then."""
        for _ in range(self.config.discriminator.warmup):
            self._step(())

    def view(self, said: Said) -> Array:
        """(B,) logits: how surely a completion is the demonstrator's; means over its tokens."""
        return np.array([each.mean() for each in self._judged(said)])

    def learn(self, said: Said, number: int) -> Noted:
        """Steps on the round's completions and on replayed ones; means over the steps."""
        rows = self._rows(said)
        noted = [self._step(rows) for _ in range(self.config.discriminator.steps)]
        self.replay.append(rows)
        if not noted:
            return {}
        return {key: float(np.mean([each[key] or 0.0 for each in noted])) for key in noted[0]}

    def judge(self, said: Said) -> list[Array]:
        """Rewards of whole completions (1,), or of their tokens (T,)."""
        config = self.config
        found = [self._rewards(each) for each in self._judged(said)]
        if config.whiten and len(found) > 1:
            every = np.concatenate(found)
            mean, deviation = every.mean(), every.std() + 1e-6
            found = [(each - mean) / deviation for each in found]
        return said.shaped(found, config.reward_clip, config.unfinished)

    def _rows(self, said: Said) -> list[Row]:
        """What the discriminator reads: the very tokens, or else the text as others' is encoded.

        A policy may say a text in other tokens than the tokenizer would, which the positives never
        do.
        """
        if self.discriminator.by_token:
            return list(said.rows)
        texts = [each.completion for each in said.rollouts]
        answers = [Answer(*each) for each in zip(said.prompts, texts, said.finished, strict=True)]
        backbone = self.discriminator.backbone
        return render_rows(backbone.tokenizer, answers, backbone.context)

    def _judged(self, said: Said) -> list[Array]:
        """Logits, of tokens below 0 where they are said again."""
        logits = self.discriminator.logits(self._rows(said))
        return said.once(logits, self.config.repeats) if self.discriminator.by_token else logits

    def _rewards(self, logits: Array) -> Array:
        config = self.config
        cut = torch.from_numpy(logits.clip(-config.logit_clip, config.logit_clip))
        rewards = policy_reward(config.divergence, cut, config.alpha).numpy()
        if self.discriminator.by_token:  # a constant pays for every token
            rewards = rewards + equal_offset(config.divergence, config.alpha)
        found: Array = rewards
        return found

    def _step(self, rows: Sequence[Row]) -> Noted:
        """One step; the sides of a pair answer the same prompt."""
        config = self.config.discriminator
        generator = np.random.default_rng([self.seed, 1, self.steps])
        self.steps += 1
        negatives, positives = [], []
        for place in range(config.batch_size):
            kind = config.negatives[place % len(config.negatives)]
            drawn = self._negative(kind, rows, generator)
            if drawn is not None:
                ups = self.sides.positives[drawn.prompt]
                negatives.append(drawn)
                positives.append(Row(drawn.prompt, ups[int(generator.integers(len(ups)))]))
        if not negatives:
            raise TrainingError(
                f"improve.discriminator: positives {config.positives} and negatives "
                f"{', '.join(config.negatives)} must answer common prompts, found none"
            )
        return self.discriminator.step(positives, negatives)

    def _negative(
        self, kind: str, rows: Sequence[Row], generator: np.random.Generator
    ) -> Row | None:
        """A completion of a prompt that the positives answer, too; None if none was found."""
        config = self.config.discriminator
        if kind == "policy" and rows and generator.random() >= config.replay:
            return self._of(rows, generator)
        if kind == "policy" and self.replay and (rows or generator.random() < 0.5):
            earlier = self.replay[int(generator.integers(len(self.replay)))]
            return self._of(earlier, generator)
        source = self.sides.start if kind == "policy" else self.sides.negatives[kind]
        for _ in range(20):
            prompt = self._prompts[int(generator.integers(len(self._prompts)))]
            if downs := source.get(prompt, ()):
                return Row(prompt, downs[int(generator.integers(len(downs)))])
        return None

    def _of(self, rows: Sequence[Row], generator: np.random.Generator) -> Row | None:
        for _ in range(20):
            row = rows[int(generator.integers(len(rows)))]
            if row.prompt in self.sides.positives:
                return row
        return None

    def state(self) -> dict[str, Tensor]:
        """The discriminator, how many steps it has taken, and what is replayed."""
        found = {f"network.{key}": each for key, each in self.discriminator.state().items()}
        found["steps"] = torch.tensor(self.steps)
        for number, rows in enumerate(self.replay):
            found |= {f"replay.{number}.{k}": each for k, each in _packed(rows).items()}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        network = {
            k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")
        }
        self.discriminator.restore(network)
        self.steps = int(state["steps"])
        count = sum(key.startswith("replay.") and key.endswith(".ids") for key in state)
        self.replay.clear()
        for number in range(count):
            self.replay.append(
                _unpacked(
                    {k: state[f"replay.{number}.{k}"] for k in ("ids", "prompts", "completions")}
                )
            )


def _packed(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as flat ids, with lengths of prompts and completions."""
    flat = [token for row in rows for token in row.prompt + row.completion]
    return {
        "ids": torch.tensor(flat),
        "prompts": torch.tensor([len(row.prompt) for row in rows]),
        "completions": torch.tensor([len(row.completion) for row in rows]),
    }


def _unpacked(packed: Mapping[str, Tensor]) -> list[Row]:
    ids, rows, place = packed["ids"].tolist(), [], 0
    lengths = zip(packed["prompts"].tolist(), packed["completions"].tolist(), strict=True)
    for prompt, completion in lengths:
        end = place + prompt
        rows.append(Row(tuple(ids[place:end]), tuple(ids[end : end + completion])))
        place = end + completion
    return rows
