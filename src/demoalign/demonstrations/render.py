"""Text to token ids, the one place where it happens.

Training, sampling, scoring and judging all render through these functions, so a prompt has the
same ids everywhere: exactly one beginning-of-sequence token if the tokenizer uses one, the chat
template if the prompt is chat and the tokenizer has one, plain text otherwise. A completion is
encoded on its own and ends in the token that ends an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from demoalign.demonstrations.messages import transcript
from demoalign.errors import ModelError
from demoalign.records import Prompt

_PROBE = "demoalign"


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a prompt and its completion; the model sees them joined."""

    prompt_ids: list[int]
    completion_ids: list[int]

    @property
    def ids(self) -> list[int]:
        """Prompt and completion as one sequence."""
        return self.prompt_ids + self.completion_ids


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How an answer is set: text that the template puts before it, token that ends it.

    Of the text before it, ``lead_ids`` are what goes up to its last special token and ``lead`` is
    the rest, which is encoded together with the answer.
    """

    lead_ids: tuple[int, ...]
    lead: str
    token_id: int
    stop_ids: frozenset[int]


def prompt_text(tokenizer: Any, prompt: Prompt) -> str:
    """The prompt as the text that is encoded (BOS aside)."""
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template:
        return str(
            tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        )
    return transcript(prompt)


def render_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: at most one BOS, never an EOS at its end."""
    return render_prompts(tokenizer, [prompt])[0]


def render_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """As `render_prompt` for many, in at most two calls of the tokenizer."""
    templated = [not isinstance(each, str) and bool(tokenizer.chat_template) for each in prompts]
    found: list[list[int]] = [[]] * len(prompts)
    for kind in sorted(set(templated)):
        places = [place for place, is_it in enumerate(templated) if is_it == kind]
        texts = [prompt_text(tokenizer, prompts[place]) for place in places]
        encoded = tokenizer(texts, add_special_tokens=not kind)["input_ids"]
        for place, ids in zip(places, encoded, strict=True):
            found[place] = _prompt_ids(tokenizer, list(ids), kind)
    return found


def _prompt_ids(tokenizer: Any, ids: list[int], templated: bool) -> list[int]:
    """The ids of an encoded prompt with one BOS, if it wants one, and no EOS at its end."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if not templated and len(ids) > 1 and ids[-1] == eos:
        ids.pop()
    while len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
        ids.pop(0)
    if templated and bos is not None and ids[:1] != [bos] and _starts_with_bos(tokenizer):
        ids.insert(0, bos)
    return ids or [bos if bos is not None else eos]


def render_completion(
    tokenizer: Any, prompt: Prompt, completion: str, finished: bool = True
) -> list[int]:
    """Token ids of a completion.

    Special tokens that stand in the text are encoded as ordinary characters, so that a
    completion cannot end early; a trailing end-of-sequence text is dropped first.

    Args:
        tokenizer: of the model.
        prompt: what is answered (a chat answer may end in another token than a plain one).
        completion: the answer's text.
        finished: whether the answer ended by itself; a cut answer gets no end token.
    """
    return render_completions(tokenizer, [prompt], [completion], [finished])[0]


def render_completions(
    tokenizer: Any, prompts: Sequence[Prompt], completions: Sequence[str], finished: Sequence[bool]
) -> list[list[int]]:
    """As `render_completion` for many, in one call of the tokenizer."""
    if not completions:
        return []
    ends = [answer_end(tokenizer, is_chat=not isinstance(prompt, str)) for prompt in prompts]
    texts = [
        end.lead + _body(tokenizer, prompt, completion, end)
        for prompt, completion, end in zip(prompts, completions, ends, strict=True)
    ]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [
        [*end.lead_ids, *ids, *([end.token_id] if done else [])]
        for end, ids, done in zip(ends, encoded, finished, strict=True)
    ]


def _body(tokenizer: Any, prompt: Prompt, completion: str, end: AnswerEnd) -> str:
    """The completion's text as it is encoded."""
    text = completion.removesuffix(_text_of(end.token_id, tokenizer))
    is_plain_chat = not isinstance(prompt, str) and not tokenizer.chat_template
    if is_plain_chat and (text[:1].strip() or text[:1] == " "):
        text = " " + text
    return text


def render(tokenizer: Any, prompt: Prompt, completion: str, finished: bool = True) -> Rendered:
    """Token ids of a prompt with its completion."""
    return Rendered(
        render_prompt(tokenizer, prompt),
        render_completion(tokenizer, prompt, completion, finished),
    )


def render_many(tokenizer: Any, rows: Sequence[tuple[Prompt, str]]) -> list[Rendered]:
    """As `render` for many finished answers, in a few calls of the tokenizer."""
    prompts, completions = [prompt for prompt, _ in rows], [answer for _, answer in rows]
    heads = render_prompts(tokenizer, prompts)
    tails = render_completions(tokenizer, prompts, completions, [True] * len(rows))
    return [Rendered(head, tail) for head, tail in zip(heads, tails, strict=True)]


def decode_completion(tokenizer: Any, prompt: Prompt, token_ids: list[int]) -> str:
    """The text of sampled ids, without end token and without the template's lead."""
    end = answer_end(tokenizer, is_chat=not isinstance(prompt, str))
    ids = token_ids[:-1] if token_ids and token_ids[-1] in end.stop_ids else token_ids
    if end.lead_ids and tuple(ids[: len(end.lead_ids)]) == end.lead_ids:
        ids = ids[len(end.lead_ids) :]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    text = str(text).removeprefix(end.lead)
    is_plain_chat = not isinstance(prompt, str) and not tokenizer.chat_template
    return text.removeprefix(" ") if is_plain_chat else text


def answer_end(tokenizer: Any, is_chat: bool) -> AnswerEnd:
    """What ends an answer: the chat template's end of turn for chat, else EOS.

    Raises:
        ModelError: the tokenizer has no end-of-sequence token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError(
            "tokenizer: needs an eos_token so that answers can end, found none. "
            "Set eos_token in its tokenizer_config.json."
        )
    if not (is_chat and tokenizer.chat_template):
        return AnswerEnd((), "", eos, frozenset({eos}))
    lead_ids, lead, token_id = _template_end(tokenizer, tokenizer.chat_template)
    return AnswerEnd(lead_ids, lead, token_id, frozenset({eos, token_id}))


@lru_cache(maxsize=8)
def _template_end(tokenizer: Any, _template: str) -> tuple[tuple[int, ...], str, int]:
    """Render a probe answer and read off what the template puts around it."""
    question = [{"role": "user", "content": "Hello"}]
    answer = [*question, {"role": "assistant", "content": _PROBE}]
    head = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(answer, tokenize=False)
    if not whole.startswith(head) or _PROBE not in whole[len(head) :]:
        return (), "", tokenizer.eos_token_id
    lead, _, tail = whole[len(head) :].partition(_PROBE)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    ends = [token for token in ids if token in special and token != tokenizer.bos_token_id]
    texts = [str(text) for text in tokenizer.all_special_tokens]
    cut = max((lead.rfind(text) + len(text) for text in texts if text in lead), default=0)
    lead_ids = tuple(tokenizer(lead[:cut], add_special_tokens=False)["input_ids"]) if cut else ()
    return lead_ids, lead[cut:], (ends[0] if ends else tokenizer.eos_token_id)


def _starts_with_bos(tokenizer: Any) -> bool:
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def _text_of(token_id: int, tokenizer: Any) -> str:
    return str(tokenizer.convert_ids_to_tokens(token_id))
