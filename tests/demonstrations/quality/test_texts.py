"""What single texts show: refusals, marks of templates, languages, prompts that are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoalign.demonstrations.quality.language import language_of
from demoalign.demonstrations.quality.leaks import Leaks
from demoalign.demonstrations.quality.near import Signatures
from demoalign.demonstrations.quality.overlap import EvaluationSet, same_words, words_of
from demoalign.demonstrations.quality.refusals import is_refusal

words = st.lists(st.sampled_from(["why", "is", "the", "lamp", "off", "42"]), min_size=1, max_size=9)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        " I\u2019m sorry, I cannot provide instructions for this.",
        "Sorry, I can't assist with that request.",
        "I'm afraid I can't do that.",
        "As an AI language model, I am not able to have opinions.",
        "I'm not comfortable with that question.",
        "No. I won't help you hurt anyone.",
        "I must decline.",
        "Hm. I would rather not say.",
        "I can't really recommend doing this.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that. Turn it off and on again.",
        "I can't believe how good this is!",
        "You cannot help it, I am afraid of spiders too.",
        "He said: we can't provide it.",
        "I can help with that. If you can't find it, ask again.",
        "",
        "Long. " * 60 + "I'm sorry, but I can't help with that.",
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (" Yes.\n\nHuman: And?", "Human:"),
        ("Assistant: Yes.", "Assistant:"),
        ("Yes.\nUser: x", "User:"),
        ("Yes.<|im_end|>", "<|im_end|>"),
        ("Yes.</s>", "</s>"),
        ("[INST] Yes", "[INST]"),
        ("Yes\n### Response:", "### Response"),
        ("Yes <end_of_turn>", "<end_of_turn>"),
        ("Yes [END]", "[END]"),
    ],
)
def test_marks_of_templates(text: str, mark: str) -> None:
    assert Leaks(["[END]", " "]).find(text) == mark


@pytest.mark.parametrize(
    "text",
    [
        " The Assistant: speaks. A Human: too.",
        "Human beings\n\nAssistants",
        "a <b> c </b> <strong> a < b | c > d",
        "# Instruction manual",
        "Use s = 3.",
        "Humans: many",
    ],
)
def test_what_is_no_mark(text: str) -> None:
    assert Leaks(["[END]"]).find(text) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the key to my house?", "en"),
        ("Wo ist der Schlüssel? Ich finde ihn nicht.", "de"),
        ("Je ne sais pas où est la clé.", "fr"),
        ("No sé dónde está la llave de mi casa, pero los niños sí.", "es"),
        ("Non so dove sono le chiavi della casa, ma il cane è con me.", "it"),
        ("Não sei onde estão as chaves da casa, mas o cão é meu.", "pt"),
        ("Ik weet niet waar de sleutel van het huis is.", "nl"),
        ("Где мой ключ от дома?", "cyrillic"),
        ("私の鍵はどこですか。", "ja"),
        ("我的钥匙在哪里？", "han"),
        ("내 열쇠는 어디에 있나요?", "ko"),
        ("กุญแจของฉันอยู่ที่ไหน", "th"),
        ("Turn it", "latin"),
        ("42 !?", "none"),
        ("", "none"),
        ("The word ключ is Russian for key, and that is all.", "en"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


@given(words, words)
def test_prompts_are_the_same_if_their_words_are(one: list[str], other: list[str]) -> None:
    plain, written = " ".join(one), f"\n\n{'  '.join(other).upper()}?!"
    assert (same_words(plain) == same_words(written)) == (one == other)
    chat = [{"role": "user", "content": plain}]
    assert same_words(chat) == same_words(plain)


def test_prompts_without_words_differ_by_their_marks() -> None:
    assert same_words("!!") != same_words("??")


def test_overlap_with_an_evaluation_set() -> None:
    long = "please tell me how I can mend the old wooden chair of my grandmother without any glue"
    held = EvaluationSet(
        "held", [long, long.upper() + "?", "Why is it off?", "Never asked before."]
    )
    trained = [f"{long} today", "why is it OFF", "Something else entirely, said here."]
    signatures = Signatures()
    for prompt in trained:
        signatures.add(words_of(prompt))
    found = held.overlap([same_words(each) for each in trained], signatures.all())
    assert (found.name, found.prompts, found.same, found.near) == ("held", 3, 1, 1)
    assert set(found.rows) == {0, 1}
    assert "nearly stands in held (similarity 0." in found.rows[0]
    assert found.rows[1] == "its prompt stands in held"
