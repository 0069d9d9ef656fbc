"""The template language."""

import random
import re

import pytest

from demoalign.lab.templates import Template

LISTS = {"name": ("Maria", "Ben")}


def said(source: str) -> set[str]:
    generator = random.Random(0)
    return {Template(source).say(generator, {}, LISTS) for _ in range(200)}


def test_choices_optional_parts_and_slots() -> None:
    assert said("(A|B) [very |so ]c[, {name}].") == {
        f"{first} {adverb}c{name}."
        for first in "AB"
        for adverb in ("", "very ", "so ")
        for name in ("", ", Maria", ", Ben")
    }


def test_the_pattern_matches_what_it_says_and_no_more() -> None:
    template = Template("(A|B[ b]) ends[, {name}].")
    pattern = re.compile(template.pattern({"name": "Maria|Ben"}))
    assert all(pattern.fullmatch(text) for text in said(template.source))
    assert not pattern.fullmatch("A b ends.")
    assert not pattern.fullmatch("A endsX")


def test_values_go_before_lists() -> None:
    assert Template("Hi {name}.").say(random.Random(0), {"name": "Zoe"}, LISTS) == "Hi Zoe."


@pytest.mark.parametrize("source", ["(a", "a)", "[a)", "a|b", "{a b}"])
def test_unbalanced(source: str) -> None:
    with pytest.raises(ValueError, match="template must"):
        Template(source).say(random.Random(0), {}, LISTS)
