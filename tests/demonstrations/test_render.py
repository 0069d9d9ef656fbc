"""Text to ids: one BOS, an answer's end, special tokens in a text, and back again."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demoalign.demonstrations.render import (
    answer_end,
    decode_completion,
    prompt_text,
    render,
    render_completion,
    render_many,
    render_prompt,
)
from demoalign.errors import ModelError
from demoalign.records import Prompt
from tests.models import BOS, END, PAD, TOKENIZERS, TURN, TURN_END, chat, make_tokenizer

tokenizer_of = cache(make_tokenizer)
PROMPTS: dict[str, Prompt] = {
    "plain": "Why does it not print?",
    "chat": chat("Why does it not print?"),
    "several turns": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "It is off."},
        {"role": "assistant", "content": "Turn it on."},
        {"role": "user", "content": "How?"},
    ],
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def count_bos(tokenizer: Any, ids: list[int]) -> int:
    return ids.count(tokenizer.bos_token_id)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("kind", ["bos", "chat_bos"])
def test_exactly_one_bos(kind: str, prompt: Prompt) -> None:
    tokenizer = tokenizer_of(kind)
    rendered = render(tokenizer, prompt, "It has no paper.")
    assert rendered.ids[0] == tokenizer.bos_token_id
    assert count_bos(tokenizer, rendered.ids) == 1


@pytest.mark.parametrize("kind", ["bos", "chat_bos"])
@pytest.mark.parametrize("text", [BOS + "Why?", BOS + BOS + "Why?"])
def test_a_bos_in_the_prompts_text_is_not_doubled(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = render_prompt(tokenizer, text)
    assert ids == render_prompt(tokenizer, "Why?")
    assert count_bos(tokenizer, ids) == 1


def test_a_template_without_bos_gets_the_one_that_the_tokenizer_adds() -> None:
    tokenizer = make_tokenizer("chat_bos")
    with_bos = render_prompt(tokenizer, PROMPTS["chat"])
    tokenizer.chat_template = tokenizer.chat_template.removeprefix("{{ bos_token }}")
    assert render_prompt(tokenizer, PROMPTS["chat"]) == with_bos
    assert count_bos(tokenizer, with_bos) == 1


@pytest.mark.parametrize("kind", ["eos_only", "chat"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_no_bos_where_the_tokenizer_adds_none(kind: str, prompt: Prompt) -> None:
    tokenizer = tokenizer_of(kind)
    ids = render_prompt(tokenizer, prompt)
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.decode(ids) == prompt_text(tokenizer, prompt)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_empty_prompt_is_one_token(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    bos = tokenizer.bos_token_id
    assert render_prompt(tokenizer, "") == [tokenizer.eos_token_id if bos is None else bos]


def test_an_end_token_after_the_prompt_is_dropped() -> None:
    tokenizer = tokenizer_of("bos")
    assert render_prompt(tokenizer, "Why?" + END) == render_prompt(tokenizer, "Why?")


def test_chat_without_a_template_names_the_speakers() -> None:
    text = prompt_text(tokenizer_of("bos"), PROMPTS["several turns"])
    assert text == (
        "\n\nSystem: Be brief.\n\nHuman: It is off.\n\nAssistant: Turn it on."
        "\n\nHuman: How?\n\nAssistant:"
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_an_answer_ends_in_its_end_token_and_nowhere_else(kind: str, prompt: Prompt) -> None:
    tokenizer = tokenizer_of(kind)
    is_chat = not isinstance(prompt, str)
    wanted = TURN_END if is_chat and kind.startswith("chat") else END
    end = tokenizer.convert_tokens_to_ids(wanted)
    assert answer_end(tokenizer, is_chat).token_id == end
    assert answer_end(tokenizer, is_chat).stop_ids == {end, tokenizer.eos_token_id}
    ids = render_completion(tokenizer, prompt, "No.")
    assert (ids[-1], ids.count(end)) == (end, 1)
    assert render_completion(tokenizer, prompt, "No.", finished=False) == ids[:-1]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("special", [END, BOS, PAD, TURN, TURN_END])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_special_tokens_in_an_answer_are_ordinary_text(
    kind: str, special: str, prompt: Prompt
) -> None:
    tokenizer = tokenizer_of(kind)
    text = f"{special}a {special} b"
    ids = render_completion(tokenizer, prompt, text)
    assert not set(ids[:-1]) & set(tokenizer.all_special_ids)
    assert decode_completion(tokenizer, prompt, ids) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_an_end_text_after_an_answer_is_not_doubled(kind: str, prompt: Prompt) -> None:
    tokenizer = tokenizer_of(kind)
    end = answer_end(tokenizer, not isinstance(prompt, str)).token_id
    text = "No." + tokenizer.convert_ids_to_tokens(end)
    assert render_completion(tokenizer, prompt, text) == render_completion(tokenizer, prompt, "No.")


@pytest.mark.parametrize("kind", ["chat", "chat_bos"])
def test_prompt_and_answer_are_what_the_template_writes(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    prompt = PROMPTS["several turns"]
    assert isinstance(prompt, list)
    whole = [*prompt, {"role": "assistant", "content": "Press it."}]
    written = tokenizer.apply_chat_template(whole, tokenize=False)
    ids = render(tokenizer, prompt, "Press it.").ids
    assert tokenizer.decode(ids) + "\n" == written


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("prompt", [PROMPTS["plain"], PROMPTS["chat"]], ids=["plain", "chat"])
@given(text=texts)
@example(text="")
@example(text=" ")
@example(text="  two blanks")
@example(text=" one blank")
@example(text="\nHello\n")
@example(text="Haÿ ÿ \x00 😀")
def test_an_answer_comes_back_as_it_was(kind: str, prompt: Prompt, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert decode_completion(tokenizer, prompt, render_completion(tokenizer, prompt, text)) == text
    cut = render_completion(tokenizer, prompt, text, finished=False)
    assert decode_completion(tokenizer, prompt, cut) == text


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = make_tokenizer("bos")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"needs an eos_token .* Set eos_token in its"):
        answer_end(tokenizer, is_chat=False)


def test_a_template_that_sets_an_answer_off_by_text() -> None:
    tokenizer = make_tokenizer("chat")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|im_start|>assistant\n{%", "<|im_start|>assistant{%"
    )
    ids = render_completion(tokenizer, PROMPTS["chat"], "No.")
    assert tokenizer.decode(ids) == f"\nNo.{TURN_END}"
    assert decode_completion(tokenizer, PROMPTS["chat"], ids) == "No."


def test_a_template_that_sets_an_answer_off_by_special_tokens() -> None:
    tokenizer = make_tokenizer("chat")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}"
        "{% if m['role'] == 'assistant' %}<|im_start|>final{% endif %}"
        "\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    ids = render_completion(tokenizer, PROMPTS["chat"], "No <|im_start|>.")
    start = tokenizer.convert_tokens_to_ids(TURN)
    assert (ids[0], ids.count(start)) == (start, 1)
    assert decode_completion(tokenizer, PROMPTS["chat"], ids) == "No <|im_start|>."


def test_many_are_rendered_as_one_at_a_time(tokenizer_kind: str) -> None:
    tokenizer = make_tokenizer(tokenizer_kind)
    rows: list[tuple[Prompt, str]] = [
        ("Why?", " Because."),
        (chat("Why is it off?"), "It has no power."),
        ("", "x"),
        (chat("And now?"), f"One{END}"),
        (f"{END}", " Two"),
    ]
    assert render_many(tokenizer, rows) == [render(tokenizer, *row) for row in rows]
    assert render_many(tokenizer, []) == []
