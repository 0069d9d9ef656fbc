"""Our rewards as TRL's reward callables, for its own trainers on a cluster.

TRL's GRPO and RLOO trainers call ``f(prompts=, completions=, completion_ids=, **columns)`` and
want one number for each completion. A None is NaN to them: with one reward function the
completion is left out of its group's mean and has advantage 0, with several it counts as 0 in
their sum. Infinities go through and turn the advantages of the whole group into 0 or into the
largest float. So what has no finite score stops the training, unless the user asks for None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demoalign.demonstrations.render import answer_end
from demoalign.errors import DataError, EvaluationError
from demoalign.improve.selector import Selector
from demoalign.records import Prompt

RewardFunction = Callable[..., list[float | None]]
"""What TRL's trainers take as ``reward_funcs``."""


def trl_reward(
    selector: Selector, *, tokenizer: Any = None, unscored: Literal["raise", "none"] = "raise"
) -> RewardFunction:
    """A reward as a callable for TRL's GRPOTrainer and RLOOTrainer.

    A completion's text is scored, so the reward is what ``selector.score`` gives for it. Whether
    an answer ended by itself is read off its token ids, of which TRL keeps the end token: an
    answer without one was cut at the length limit. The share of cut answers is logged as
    ``NAME/cut`` and equals TRL's ``completions/clipped_ratio``.

    Args:
        selector: a `RewardModel`, `DensityRatio`, `EnsembleSelector`, or anything with a name and
            ``score(prompts, completions, finished)``. TRL logs under its name.
        tokenizer: the trainer's; needed if the selector has no tokenizer or another one.
        unscored: what to do with a completion whose score is not finite: ``raise``, or ``none``
            to have TRL leave it out, which is right only for a trainer's one reward function.
            Their share is then logged as ``NAME/unscored``.

    Returns:
        ``f(prompts, completions, completion_ids, log_metric=None, **columns)``, for plain and
        conversational data. It raises DataError for completions that are no single answer (tool
        calls, several messages, images), and EvaluationError for scores that are not finite, and
        where the tokenizer is not the trainer's.

    Raises:
        EvaluationError: the selector has no name or no score, or there is no tokenizer.
        ModelError: the tokenizer has no end token.
    """
    name = _checked_name(selector)
    if unscored not in ("raise", "none"):
        raise EvaluationError(f"reward {name}: unscored must be raise or none, found {unscored!r}")
    reads = _tokenizer_of(selector) if tokenizer is None else tokenizer
    if reads is None:
        raise EvaluationError(
            f"reward {name}: needs the trainer's tokenizer to see which answers were cut, found "
            f"none in {type(selector).__name__}. Pass tokenizer=..."
        )
    end = answer_end(reads, is_chat=True)
    lead = reads.decode(list(end.lead_ids), skip_special_tokens=True) + end.lead

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        **_columns: Any,
    ) -> list[float | None]:
        """Rewards of completions, in order."""
        asked = [_prompt(each, name) for each in prompts]
        texts = [_text(each, name, lead) for each in completions]
        _check_tokenizer(reads, texts, completion_ids, name)
        finished = [len(ids) > 0 and int(ids[-1]) in end.stop_ids for ids in completion_ids]
        scores = np.asarray(selector.score(asked, texts, finished), dtype=np.float64)
        found = _numbers(scores, texts, name, unscored)
        if log_metric is not None and found:
            log_metric(f"{name}/cut", 1 - sum(finished) / len(finished))
            if unscored == "none":
                log_metric(f"{name}/unscored", found.count(None) / len(found))
        return found

    reward.__name__ = reward.__qualname__ = name
    return reward


def _checked_name(selector: object) -> str:
    name = getattr(selector, "name", None)
    if not isinstance(name, str) or not name or not callable(getattr(selector, "score", None)):
        kind = selector.__name__ if isinstance(selector, type) else type(selector).__name__
        raise EvaluationError(
            f"trl_reward: needs a reward with a name and a score method, found {kind}. "
            "Load a folder with RewardModel.load first."
        )
    return name


def _tokenizer_of(selector: object) -> Any:
    """The tokenizer that a selector renders with; None if it shows none."""
    members = getattr(selector, "members", None)
    return _tokenizer_of(members[0]) if members else getattr(selector, "tokenizer", None)


def _prompt(prompt: Any, name: str) -> Prompt:
    """A prompt as we know it."""
    if isinstance(prompt, str):
        return prompt
    return [_turn(turn, "prompt", name) for turn in _messages(prompt, "prompt", name)]


def _text(completion: Any, name: str, lead: str) -> str:
    """A completion's text, without what the chat template itself puts before an answer."""
    if isinstance(completion, str):
        return completion
    turns = _messages(completion, "completion", name)
    if len(turns) != 1:
        raise DataError(
            f"reward {name}: a completion must be one message, found {len(turns)}. "
            "Tools and environments are not scored."
        )
    turn = _turn(turns[0], "completion", name)
    if turn["role"] != "assistant":
        raise DataError(
            f"reward {name}: a completion must be the assistant's, found role {turn['role']!r}"
        )
    return turn["content"].removeprefix(lead)


def _messages(found: Any, what: str, name: str) -> Sequence[Any]:
    if isinstance(found, Sequence) and not isinstance(found, bytes) and len(found):
        return found
    raise DataError(f"reward {name}: a {what} must be text or a list of messages, found {found!r}")


def _turn(turn: Any, what: str, name: str) -> dict[str, str]:
    """Role and content of a message that has nothing else."""
    given = {} if not isinstance(turn, Mapping) else {k: v for k, v in turn.items() if v}
    extra = sorted(given.keys() - {"role", "content"})
    if extra:
        raise DataError(
            f"reward {name}: a {what}'s message must be role and content, found {', '.join(extra)} "
            "too, which would not be scored"
        )
    role, content = given.get("role"), given.get("content", "")
    if not isinstance(role, str) or not isinstance(content, str):
        raise DataError(
            f"reward {name}: a {what}'s message must have a role and text as content, "
            f"found {turn!r}"
        )
    return {"role": role, "content": content}


def _check_tokenizer(
    tokenizer: Any, texts: Sequence[str], completion_ids: Sequence[Sequence[int]], name: str
) -> None:
    """Token ids say nothing about ends if they are another tokenizer's.

    Single answers may differ, as where a stray special token was sampled; half of them do not.
    """
    read = [
        tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)
        for ids in completion_ids
    ]
    agree = [text.strip() in own for text, own in zip(texts, read, strict=True) if text.strip()]
    if sum(agree) * 2 < len(agree):
        raise EvaluationError(
            f"reward {name}: token ids must be of the reward's tokenizer, found {len(agree)} "
            f"completions of which {len(agree) - sum(agree)} decode to another text. Pass "
            "tokenizer=trainer's own to trl_reward."
        )


def _numbers(
    scores: NDArray[np.float64], texts: Sequence[str], name: str, unscored: str
) -> list[float | None]:
    """Scores as TRL takes them, which computes in float32."""
    if scores.shape != (len(texts),):
        raise EvaluationError(
            f"reward {name}: score must give one number for each of {len(texts)} completions, "
            f"found shape {scores.shape}"
        )
    with np.errstate(over="ignore"):
        known = np.isfinite(scores.astype(np.float32))
    if unscored == "raise" and not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise EvaluationError(
            f"reward {name}: every score must be finite, found {int((~known).sum())} of "
            f"{len(scores)} that are not, {scores[first]} for {texts[first][:60]!r}. "
            "unscored='none' has TRL leave such completions out."
        )
    return [float(score) if ok else None for score, ok in zip(scores, known, strict=True)]
