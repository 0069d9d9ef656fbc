"""Texts that end an answer: found where the last token completes them, and cut off."""

from __future__ import annotations

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec
from demoalign.rollouts.stop_strings import StopStrings
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone, make_tokenizer
from tests.rollouts.local import SPECS, initial, sample

N = 30


TOKENIZER = make_tokenizer("bos")


def by_hand(
    policy: Policy, whole: Rollout, texts: tuple[str, ...], least: int
) -> tuple[list[int], str, str]:
    """Tokens, text and reason of a rollout with stop strings, from the one without.

    The text is decoded again after each token; what was complete before is passed over.
    """
    tokenizer = policy.backbone.tokenizer
    known = ""
    for size in range(1, len(whole.token_ids) + 1):
        ids = whole.token_ids[:size]
        if ids[-1] == tokenizer.eos_token_id:
            return ids, whole.completion, "stop"
        text = tokenizer.decode(ids, skip_special_tokens=True)
        ends = [
            at
            for stop in texts
            for at in range(len(text))
            if text.startswith(stop, at) and at + len(stop) > len(known)
        ]
        if ends and size > least:
            return ids, text[: min(ends)], "stop"
        known = text.rstrip("\N{REPLACEMENT CHARACTER}")
    return whole.token_ids, whole.completion, whole.finish_reason


@pytest.mark.parametrize("least", [0, 5])
@pytest.mark.parametrize(
    "texts", [("e",), ("i", "o", "u"), (" ",), ("er", "the", "in", "no", "re")], ids="-".join
)
def test_text_ends_before_the_stop_string(
    model_folder: ModelFolder, texts: tuple[str, ...], least: int
) -> None:
    policy = initial(model_folder("llama", "bos"))
    whole = sample(policy, n=N, min_new_tokens=least, max_new_tokens=16)
    found = sample(policy, n=N, min_new_tokens=least, max_new_tokens=16, stop=texts, batch_size=200)
    stopped = 0
    for one, other in zip(found, whole, strict=True):
        ids, text, reason = by_hand(policy, other, texts, least)
        assert (one.token_ids, one.completion, one.finish_reason) == (ids, text, reason)
        stopped += ids != other.token_ids
    assert stopped >= 5
    for one in found:
        if one.finish_reason == "stop":
            assert len(one.token_ids) > least
    if least:
        assert any(stop in one.completion for one in found for stop in texts)
    else:
        assert not any(stop in one.completion for one in found for stop in texts)


def test_a_stop_string_of_several_tokens(model_folder: ModelFolder) -> None:
    """Two sampled tokens that are one text together, wherever they come from."""
    policy = initial(model_folder("llama", "bos"))
    tokenizer = policy.backbone.tokenizer
    whole = sample(policy, n=N)
    tried = 0
    for target in whole:
        parts = [tokenizer.decode([token]) for token in target.token_ids]
        text = tokenizer.decode(target.token_ids, skip_special_tokens=True)
        at = next(
            (
                i
                for i in range(3, len(parts) - 3)
                if all(part.isprintable() and part.isascii() for part in parts[i : i + 2])
                and text.count(parts[i] + parts[i + 1]) == 1
            ),
            None,
        )
        if at is None:
            continue
        tried += 1
        spec = PromptSpec(target.prompt_id, SPECS[int(target.prompt_id[1:])].prompt, target.index)
        stop = parts[at] + parts[at + 1]
        (found,) = sample(policy, [spec], n=target.index + 1, stop=("never seen", stop))
        assert found.token_ids == target.token_ids[: at + 2]
        assert found.completion == text[: text.index(stop)]
        assert found.finish_reason == "stop"
        if tried == 5:
            break
    assert tried == 5


def test_chat_answers_have_stop_strings_too(model_folder: ModelFolder) -> None:
    policy = Policy("initial", load_backbone(model_folder("llama", "chat")))
    specs = [PromptSpec("a", chat("Why?")), PromptSpec("b", "Why?")]
    whole = sample(policy, specs, n=N)
    found = sample(policy, specs, n=N, stop=("e", "o"))
    assert [r.token_ids for r in found] != [r.token_ids for r in whole]
    for one, other in zip(found, whole, strict=True):
        assert other.completion.startswith(one.completion)
        assert not set("eo") & set(one.completion)
        assert one.token_ids == other.token_ids[: len(one.token_ids)]
        if len(one.token_ids) < len(other.token_ids):
            assert other.completion[len(one.completion)] in "eo"


# By hand


def ids_of(text: str) -> list[int]:
    """One token a byte, so that stop strings and letters take several."""
    vocabulary = TOKENIZER.get_vocab()
    return [
        vocabulary[letter]
        for piece, _ in ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
        for letter in piece
    ]


@pytest.mark.parametrize(
    ("text", "stop", "before"),
    [
        ("Yes.\nQ: no", "\nQ:", "Yes."),
        ("Stop", "Stop", ""),
        ("a cafe\u0301 and", "fe\u0301", "a ca"),
        ("你好。再见", "。", "你好"),
        ("ab😀cd", "b😀", "a"),
        ("x" * 30 + "end of the answer.", "end of the answer", "x" * 30),
    ],
)
def test_found_at_its_last_byte_and_never_again(text: str, stop: str, before: str) -> None:
    strings = StopStrings(TOKENIZER, (stop, "never seen"))
    ids = ids_of(text)
    size = len((before + stop).encode())
    rows = [ids[:end] for end in range(1, len(ids) + 1)]
    assert [end for end, found in enumerate(strings.ends(rows), 1) if found] == [size]
    whole, known = TOKENIZER.decode(ids[:size]), TOKENIZER.decode(ids[: size - 1])
    assert strings.cut(whole, known) == before


def test_the_first_of_several_counts() -> None:
    strings = StopStrings(TOKENIZER, ("cd", "bcd", "d"))
    assert strings.cut("abcd", "abc") == "a"
    assert strings.cut("abcd d", "abcd ") == "abcd "
    assert strings.cut("abc", "ab") == "abc"


def test_a_token_may_hold_more_than_the_stop_string() -> None:
    word = TOKENIZER.get_vocab()["rint"]
    strings = StopStrings(TOKENIZER, ("in",))
    assert strings.ends([[*ids_of("a"), word]]) == [True]
    assert strings.cut("arint", "a") == "ar"
