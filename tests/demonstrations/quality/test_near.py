"""Near-duplicates: the estimate against the exact similarity, what is found and what is not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoalign.demonstrations.quality.near import (
    LEAST,
    PLACES,
    Signatures,
    matches,
    repeats,
)

WORDS = [f"w{i}" for i in range(500)]
SIMPLE = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9).map(" ".join)


def signed(texts: list[str]) -> np.ndarray:
    signatures = Signatures()
    for text in texts:
        signatures.add(text)
    return signatures.all()


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the sets of three words, counted."""
    sets = [set(zip(t, t[1:], t[2:], strict=False)) for t in (one.split(), other.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def changed(draw: random.Random, words: list[str], times: int) -> str:
    found = list(words)
    for place in draw.sample(range(len(found)), times):
        found[place] = "other"
    return " ".join(found)


def test_the_estimate_is_the_similarity_on_average() -> None:
    draw = random.Random(0)
    errors = []
    for _ in range(300):
        words = draw.choices(WORDS, k=draw.randint(20, 120))
        one, other = " ".join(words), changed(draw, words, draw.randint(0, 6))
        both = signed([one, other])
        errors.append(float((both[0] == both[1]).mean()) - similarity(one, other))
    assert abs(np.mean(errors)) < 3 * 0.0625 / np.sqrt(300)
    assert np.std(errors) < 0.0625


def test_what_is_found_is_what_a_count_of_all_pairs_finds() -> None:
    draw = random.Random(1)
    texts: list[str] = []
    for _ in range(150):
        words = draw.choices(WORDS, k=80)
        texts += [" ".join(words), changed(draw, words, draw.choice([0, 1, 2, 8, 20]))]
    signatures = signed(texts)
    found = {match.index: match for match in repeats(signatures)}
    for index in range(len(texts)):
        similar = [(signatures[index] == signatures[other]).mean() for other in range(index)]
        best = max(similar, default=0.0)
        assert (index in found) == (best >= LEAST)
        if index in found:
            assert found[index].similarity == pytest.approx(best)
            assert found[index].other < index
    across = {match.index for match in matches(signatures[::2], signatures[1::2])}
    pairs = zip(signatures[::2], signatures[1::2], strict=True)
    assert across == {i for i, (a, b) in enumerate(pairs) if (a == b).mean() >= LEAST}


def test_many_copies_of_one_text_are_each_found() -> None:
    texts = ["the lamp is off again today"] * 1000 + ["no lamp here at all my friend"]
    found = repeats(signed(texts))
    assert [match.index for match in found] == list(range(1, 1000))
    assert all(match.similarity == 1 for match in found)
    assert len(matches(signed(texts), signed(texts))) == 1001


@given(st.lists(SIMPLE, max_size=6), st.lists(SIMPLE, max_size=6))
def test_signatures_do_not_depend_on_batches_case_or_blanks(one: list[str], two: list[str]) -> None:
    apart = [signed([text])[0] for text in [*one, *two]]
    together = signed([text.upper().replace(" ", "  \n") for text in [*one, *two]])
    assert together.shape == (len(apart), PLACES)
    assert all((a == b).all() for a, b in zip(apart, together, strict=True))


def test_texts_without_blanks_between_words() -> None:
    one = "我们今天去公园散步，然后回家吃饭，晚上一起看电影，明天还要早起上班工作。"
    found = repeats(signed([one, one.replace("电影", "电视"), "天气很好，" * 8]))
    assert [(match.index, match.other) for match in found] == []
    near = repeats(signed([one * 3, one * 3 + "好"]))
    assert [(match.index, match.other) for match in near] == [(1, 0)]


def test_nothing_and_texts_without_words() -> None:
    assert repeats(signed([])) == []
    assert matches(signed([]), signed(["a"])) == []
    assert len(repeats(signed(["", " ", "\n"]))) == 2, "they say the same"
