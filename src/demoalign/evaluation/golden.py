"""The golden reward: the yardstick, never trained on.

It is ``lab`` (the embedded world's), a Python callable ``module:function``, or the folder or hub
id of a sequence classifier with one label.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demoalign.config import LAB
from demoalign.demonstrations.transcripts import as_messages
from demoalign.errors import EvaluationError
from demoalign.progress import meter
from demoalign.records import Prompt
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.scoring import pad_right

GoldenFunction = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float | None]]
LAB_FUNCTION = "demoalign.lab:golden_reward"


@dataclass(frozen=True, slots=True)
class GoldenReward:
    """A golden reward with the name under which it was asked for."""

    name: str
    function: GoldenFunction

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """Golden rewards (B,), None where the answer could not be scored.

        Raises:
            EvaluationError: the callable failed, or gave another number of values than asked,
                or something that is no number.
        """
        if not completions:
            return []
        try:
            values = list(self.function(list(prompts), list(completions)))
        except Exception as error:
            raise EvaluationError(f"golden reward {self.name}: failed: {error!r}") from error
        if len(values) != len(completions):
            raise EvaluationError(
                f"golden reward {self.name}: must give one value for each of "
                f"{len(completions)} completions, found {len(values)}"
            )
        return [self._checked(value) for value in values]

    def _checked(self, value: object) -> float | None:
        if value is None:
            return None
        try:
            if isinstance(value, str | bytes):
                raise TypeError("text is no number, whatever it says")
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise EvaluationError(
                f"golden reward {self.name}: must give numbers or None, found {value!r}"
            ) from error
        return number if math.isfinite(number) else None


def load_golden(spec: str, device: str = "auto", chat: bool = False) -> GoldenReward:
    """Load the golden reward that a recipe names.

    Args:
        spec: ``lab``, ``module:function``, or a reward model's folder or id.
        device: of a reward model.
        chat: give a reward model whole conversations in its chat template.

    Raises:
        EvaluationError: no such module or function, or a chat one without a chat template.
        ModelError: no such reward model.
    """
    target = LAB_FUNCTION if spec == LAB else spec
    module_name, separator, function_name = target.partition(":")
    if separator and "/" not in target and "\\" not in target:
        return GoldenReward(spec, _load_function(module_name, function_name, spec))
    model = RewardModel.load(spec, name="golden", device=device)
    if chat and not model.tokenizer.chat_template:
        raise EvaluationError(
            f"evaluation.golden: chat: true needs a reward model with a chat template, found none "
            f"in {spec}"
        )

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        if chat:
            return score_rows(model, chat_rows(model.tokenizer, prompts, completions))
        return [float(value) for value in model.score(prompts, completions)]

    return GoldenReward(spec, score)


def chat_rows(
    tokenizer: Any, prompts: Sequence[Prompt], completions: Sequence[str]
) -> list[list[int]]:
    """Token ids of whole conversations in a chat template, as its author feeds a reward model.

    The template writes the beginning of a sequence and the end of a turn; nothing is added.
    """
    texts = [
        tokenizer.apply_chat_template(
            [*as_messages(prompt), {"role": "assistant", "content": completion.strip()}],
            tokenize=False,
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return rows


def score_rows(
    model: RewardModel, rows: Sequence[Sequence[int]], batch_size: int = 32
) -> list[float]:
    """Rewards of token rows, each read at its last token; long ones lose their beginning."""
    room = model.scorer.context or max(map(len, rows), default=1)
    cut = [list(row[-room:]) for row in rows]
    order = sorted(range(len(cut)), key=lambda i: len(cut[i]))
    values = [0.0] * len(cut)
    model.scorer.eval()
    with meter(f"scores of {model.name}", len(cut)) as shown, torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            ids, mask = pad_right([cut[i] for i in chunk], model.tokenizer.pad_token_id)
            rewards, _ = model.scorer(ids.to(model.scorer.device), mask.to(model.scorer.device))
            for i, value in zip(chunk, rewards.double().cpu().tolist(), strict=True):
                values[i] = value
            shown.advance(len(chunk))
    return values


def _load_function(module_name: str, function_name: str, spec: str) -> GoldenFunction:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function: GoldenFunction = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise EvaluationError(
            f"evaluation.golden: {spec!r} must be lab, module:function or a model folder; "
            f"{error}. The module is looked for beside the working directory {here}."
        ) from error
    except Exception as error:
        raise EvaluationError(
            f"evaluation.golden: {spec!r}: importing {module_name!r} failed: {error!r}"
        ) from error
    if not callable(function):
        raise EvaluationError(f"evaluation.golden: {spec!r} must be callable, found {function!r}")
    return function
