"""What an OpenAI-compatible server answers, and the rollouts that it stands for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demoalign.demonstrations.render import answer_end, render_completion
from demoalign.endpoints.endpoint import UnusableError
from demoalign.policies.policy import Policy
from demoalign.records import FinishReason, Rollout
from demoalign.rollouts.engine import PromptSpec, rollout_id

FILTERED = "content_filter"
_ENDED = frozenset({"stop", "eos", "eos_token", "end_turn"})
_STOP_STRING = "stop_sequence"
_CUT = frozenset({"length", "max_tokens", FILTERED})


@dataclass(frozen=True, slots=True)
class Choice:
    """One completion as the server sent it.

    Attributes:
        text: of the completion; may be empty.
        reason: the server's finish_reason; None if it gave none.
        at_stop_string: whether the server says that a stop string ended it, and not the policy.
        tokens: the text of each sampled token, if asked for and told.
        logprobs: its log-probability (nats).
    """

    text: str
    reason: str | None
    at_stop_string: bool = False
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Choice:
        """Undo ``dataclasses.asdict`` after a way through JSON."""
        lists = {key: plain[key] and tuple(plain[key]) for key in ("tokens", "logprobs")}
        return cls(**{**plain, **lists})

    def as_plain(self) -> dict[str, Any]:
        """Plain objects for JSON."""
        return dataclasses.asdict(self)


def read_choices(payload: Any, wanted: int) -> list[Choice]:
    """The completions of an answer by /completions or /chat/completions, at most ``wanted``.

    A completion without a finish_reason is kept; one with a reason that is none of an ended or
    cut text (``abort``, ``error``, ``tool_calls``) is not the policy's and is left out.

    Raises:
        UnusableError: there is none that can be used.
    """
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list):
        said = payload.get("error", payload) if isinstance(payload, dict) else payload
        raise UnusableError(f"an answer without a list of choices: {said}")
    if all(isinstance(each, dict) and isinstance(each.get("index"), int) for each in choices):
        choices = sorted(choices, key=lambda each: each["index"])
    found = [choice for choice in map(_read_choice, choices) if choice is not None]
    if not found:
        raise UnusableError(f"{wanted} completion(s) asked for, none that can be used: {choices}")
    return found[:wanted]


def _read_choice(raw: Any) -> Choice | None:
    if not isinstance(raw, dict):
        return None
    reason, message = raw.get("finish_reason"), raw.get("message")
    if reason not in {None, _STOP_STRING, *_ENDED, *_CUT}:
        return None
    text = raw.get("text")
    if isinstance(message, dict):
        text = "" if message.get("content") is None else message["content"]
    if not isinstance(text, str):
        return None
    whole = text.encode(errors="replace").decode()  # half a surrogate pair cannot be stored
    tokens, logprobs = _read_logprobs(raw.get("logprobs"))
    at_stop_string = reason == _STOP_STRING or isinstance(raw.get("stop_reason"), str)
    return Choice(whole, reason, at_stop_string, tokens, logprobs)


def _read_logprobs(raw: Any) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Tokens and log-probabilities in the form of either API; neither if any is missing."""
    if not isinstance(raw, dict):
        return None, None
    tokens, logprobs = raw.get("tokens"), raw.get("token_logprobs")
    if isinstance(content := raw.get("content"), list):
        entries = [each if isinstance(each, dict) else {} for each in content]
        tokens = [each.get("token") for each in entries]
        logprobs = [each.get("logprob") for each in entries]
    if not isinstance(tokens, list) or not isinstance(logprobs, list):
        return None, None
    is_whole = (
        len(tokens) == len(logprobs)
        and all(isinstance(each, str) for each in tokens)
        and all(isinstance(each, int | float) and math.isfinite(each) for each in logprobs)
    )
    return (tuple(tokens), tuple(float(each) for each in logprobs)) if is_whole else (None, None)


def rollout_of(
    choice: Choice, policy: Policy, spec: PromptSpec, index: int, seed: int, max_new_tokens: int
) -> Rollout:
    """The rollout that a choice stands for.

    Its ids are those of the text encoded again, with the end token if the policy ended. A
    content filter's cut counts as ``length``: the text did not end by itself. Where the server
    gave no finish_reason, a text shorter than ``max_new_tokens`` counts as ended.

    ``logprob`` is what the server's tokens add up to if they are all that was sampled (the end
    token with the rest), ``token_logprobs`` its terms if they stand one for one beside the ids;
    otherwise they are None.
    """
    tokenizer, reason = policy.backbone.tokenizer, choice.reason
    text = _text(tokenizer, spec, choice.text)
    if reason is None:
        length = len(render_completion(tokenizer, spec.prompt, text, finished=False))
        reason = "length" if length >= max_new_tokens else "stop"
    finish: FinishReason = "length" if reason in _CUT else "stop"
    ended = finish == "stop" and not choice.at_stop_string
    ids = render_completion(tokenizer, spec.prompt, text, finished=ended)
    terms = choice.logprobs if reason != FILTERED else None
    logprob, token_logprobs = None, None
    if terms is not None and choice.tokens is not None:
        if ended:
            ids[-1] = _told_end(tokenizer, spec, choice.tokens, ids[-1])
        if _stand_beside(tokenizer, choice.tokens, ids, ended):
            logprob, token_logprobs = math.fsum(terms), list(terms)
        elif _are_all(tokenizer, choice.tokens, choice.text, ended):
            logprob = math.fsum(terms)
    return Rollout(
        id=rollout_id(spec, policy.name, index),
        prompt_id=spec.id,
        index=index,
        completion=text,
        token_ids=ids,
        logprob=logprob,
        finish_reason=finish,
        policy=policy.name,
        seed=seed,
        token_logprobs=token_logprobs,
    )


def _text(tokenizer: Any, spec: PromptSpec, said: str) -> str:
    """The answer alone, as `render.decode_completion` gives it."""
    is_chat = not isinstance(spec.prompt, str)
    end = answer_end(tokenizer, is_chat)
    text = said.removesuffix(str(tokenizer.convert_ids_to_tokens(end.token_id)))
    text = text.removeprefix(end.lead)
    return text.removeprefix(" ") if is_chat and not tokenizer.chat_template else text


def _told_end(tokenizer: Any, spec: PromptSpec, tokens: Sequence[str], usual: int) -> int:
    """The token that ended an answer, if the server names it: chat may end in either of two."""
    ends = answer_end(tokenizer, not isinstance(spec.prompt, str)).stop_ids
    named = {str(tokenizer.convert_ids_to_tokens(end)): end for end in ends}
    return named.get(tokens[-1], usual) if tokens else usual


def _stand_beside(tokenizer: Any, tokens: Sequence[str], ids: Sequence[int], ended: bool) -> bool:
    """Whether the server's tokens are ours, one for one.

    Servers write tokens in several ways: blanks at the edges are not compared, nor parts of a
    character, nor the end token.
    """
    if len(tokens) != len(ids):
        return False
    ours = [str(tokenizer.decode([token])) for token in (ids[:-1] if ended else ids)]
    return all(
        own.strip() == theirs.strip() or "\ufffd" in own or theirs.startswith("bytes:")
        for own, theirs in zip(ours, tokens, strict=False)
    )


def _are_all(tokenizer: Any, tokens: Sequence[str], text: str, ended: bool) -> bool:
    """Whether the tokens are the whole text, and the end token too if the policy ended.

    Neither bytes that are no letter nor special tokens can be compared: servers leave them out of
    the text, or write a mark for the former.
    """
    special = set(tokenizer.all_special_tokens)
    if ended and tokens[-1:] not in [(end,) for end in ("", *special)]:
        return False
    body = tokens[:-1] if ended else tokens
    said = "".join(token for token in body if token not in special)
    return _readable(said) == _readable(text)


def _readable(text: str) -> str:
    return text.replace("\ufffd", "").strip()
