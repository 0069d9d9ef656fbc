"""Which demonstrations are held out, and the refusal to test on prompts that were trained on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demoalign.demonstrations import Demonstrations, Split, refuse_shared_prompts
from demoalign.errors import DataError
from demoalign.records import Demonstration


def made(prompts: list[int]) -> Demonstrations:
    return Demonstrations.from_rows(
        Demonstration(f"d{n}", f"Question {prompt}", f"Answer {n}")
        for n, prompt in enumerate(prompts)
    )


def prompts_of(rows: Demonstrations) -> set[object]:
    return {row.prompt for row in rows if isinstance(row.prompt, str)}


prompts = st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(
    lambda each: len(set(each)) > 1
)
fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)


@settings(deadline=None)
@given(prompts=prompts, fraction=fractions, seed=st.integers())
def test_sides_share_no_prompt_lose_nothing_and_have_the_right_size(
    prompts: list[int], fraction: float, seed: int
) -> None:
    rows = made(prompts)
    split = rows.split(fraction, seed)
    distinct = len(set(prompts))
    assert not prompts_of(split.train) & prompts_of(split.test)
    assert len(prompts_of(split.test)) == min(max(round(fraction * distinct), 1), distinct - 1)
    assert sorted([*split.train, *split.test], key=rows.rows.index) == list(rows)
    for side in (split.train, split.test):
        assert list(side) == sorted(side, key=rows.rows.index)
    assert rows.split(fraction, seed) == split
    refuse_shared_prompts(split.train, split.test)


@settings(deadline=None)
@given(prompts=prompts, fraction=fractions, data=st.data())
def test_the_order_of_the_rows_does_not_matter(
    prompts: list[int], fraction: float, data: st.DataObject
) -> None:
    rows = made(prompts)
    shuffled = Demonstrations.from_rows(data.draw(st.permutations(rows.rows)))
    assert ids(shuffled.split(fraction, 3)) == ids(rows.split(fraction, 3))


def ids(split: Split) -> tuple[set[str], set[str]]:
    return {row.id for row in split.train}, {row.id for row in split.test}


def test_the_seed_matters_and_added_rows_move_few() -> None:
    rows = made(list(range(200)))
    one = ids(rows.split(0.2, 1))[1]
    assert one != ids(rows.split(0.2, 2))[1]
    more = ids(made(list(range(220))).split(0.2, 1))[1]
    assert len(one - more) <= 20


def test_chat_prompts_are_told_apart_by_content_and_not_by_the_order_of_keys() -> None:
    def asked(number: int, message: dict[str, str]) -> Demonstration:
        return Demonstration(f"d{number}", [message], f"{number}")

    rows = [
        asked(0, {"role": "user", "content": "a"}),
        asked(1, {"content": "a", "role": "user"}),
        asked(2, {"role": "user", "content": "b"}),
    ]
    split = Demonstrations.from_rows(rows).split(0.5, 0)
    assert {frozenset(row.id for row in side) for side in (split.train, split.test)} == {
        frozenset({"d0", "d1"}),
        frozenset({"d2"}),
    }


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(DataError, match="test_fraction: must be more than 0 and less than 1, fou"):
        made([1, 2]).split(fraction, 0)


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(DataError) as caught:
        made([1, 1, 1]).split(0.5, 0)
    assert str(caught.value) == (
        "test_fraction: to hold out a test set, at least 2 distinct prompts are needed, found 1"
    )


def test_shared_prompts_are_refused_with_examples() -> None:
    with pytest.raises(DataError) as caught:
        refuse_shared_prompts(made([1, 2, 3]), made([3, 3, 4, 1]))
    assert str(caught.value).splitlines() == [
        "2 of 3 test prompts are in the training set too; take them out of one, "
        "or leave out the test file to have prompts held out:",
        '  d1: "Question 3"',
        '  d3: "Question 1"',
    ]
    with pytest.raises(DataError, match=r"\.\.\. and 4 more"):
        refuse_shared_prompts(made(list(range(9))), made(list(range(9))))
