"""Rewards made of other rewards, in a recipe: names, order, and every rule with its message."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import yaml

from demoalign.config import RewardConfig, dump_recipe, in_order, parse_recipe
from demoalign.errors import RecipeError

BASE: dict[str, Any] = {
    "name": "mine",
    "model": {"base": "models/base"},
    "demonstrations": {"source": "rows.jsonl"},
}
RATIO = {"model": "density_ratio"}
BOTH = {"name": "both", "model": "mixture", "members": ["init-sft", "density-ratio"]}


def rewards(*entries: dict[str, Any]) -> tuple[RewardConfig, ...]:
    return parse_recipe({**BASE, "reward": list(entries)}).reward


def refusal(*entries: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        rewards(*entries)
    first, line = str(caught.value).split("\n  ")
    assert first == "recipe: 1 problem(s)"
    return line


def test_what_they_are_called() -> None:
    found = rewards({**BOTH, "name": None}, {}, RATIO, {"distils": "mixture", "model": "head"})
    assert [each.title for each in found] == [
        "mixture",
        "init-sft",
        "density-ratio",
        "mixture-head",
    ]
    assert [each.needs for each in found] == [
        ("init-sft", "density-ratio"),
        (),
        (),
        ("mixture",),
    ]
    assert [each.loss for each in found] == ["bce", "bce", "bce", "squared_error"]


def test_they_come_after_what_they_are_made_of() -> None:
    student = {"name": "student", "distils": "both"}
    entries: list[dict[str, Any]] = [BOTH, student, {}, RATIO]
    for order in permutations(entries):
        found = [each.title for each in in_order(rewards(*order))]
        assert sorted(found) == ["both", "density-ratio", "init-sft", "student"]
        assert found.index("both") > max(found.index("init-sft"), found.index("density-ratio"))
        assert found[-1] == "student"
    plain = rewards(RATIO, {"positives": "demonstrations"}, {})
    assert in_order(plain) == list(plain)


def test_they_read_back_as_written() -> None:
    ensemble = {"aggregate": "mean_minus_std", "k": 0.5}
    recipe = parse_recipe(
        {**BASE, "reward": [{**BOTH, "ensemble": ensemble}, {}, RATIO, {"distils": "both"}]}
    )
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("members", "line"),
    [
        (
            ["init-sft", "density_ratio"],
            "recipe: reward.both.members: must name other rewards of this recipe, found "
            "'density_ratio'; did you mean 'density-ratio'?",
        ),
        (
            ["init-sft", "zzz"],
            "recipe: reward.both.members: must name other rewards of this recipe, found 'zzz'; "
            "others: init-sft, density-ratio",
        ),
        (
            ["init-sft", "both"],
            "recipe: reward.both.members: must name other rewards, found the reward itself",
        ),
        (
            ["init-sft", "init-sft"],
            "reward.0: members: must be named once each, found 'init-sft' twice",
        ),
        (
            ["init-sft"],
            "reward.0: members: a mixture needs at least two rewards, found ['init-sft']",
        ),
        ([], "reward.0: members: a mixture needs at least two rewards, found []"),
        ("init-sft", "reward.0.members: Input should be a valid tuple; found 'init-sft'"),
    ],
)
def test_members_that_cannot_be(members: object, line: str) -> None:
    assert refusal({**BOTH, "members": members}, {}, RATIO) == line


def test_a_mixture_of_mixtures() -> None:
    other = {"name": "more", "model": "mixture", "members": ["both", "init-sft"]}
    assert refusal(other, BOTH, {}, RATIO) == (
        "recipe: reward.more.members: must not be mixtures themselves, found 'both'; name its "
        "members instead (init-sft, density-ratio)"
    )


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"distils": "inits-ft"},
            "recipe: reward.inits-ft-adapter.distils: must name other rewards of this recipe, "
            "found 'inits-ft'; did you mean 'init-sft'?",
        ),
        (
            {"name": "s", "distils": "s"},
            "recipe: reward.s.distils: must name other rewards, found the reward itself",
        ),
        (
            {"distils": "init-sft", "model": "density_ratio"},
            "reward.0: distils: a student is model: adapter, head or full, which can be trained, "
            "found density_ratio",
        ),
        (
            {"distils": "init-sft", **BOTH},
            "reward.0: distils: a student is model: adapter, head or full, which can be trained, "
            "found mixture",
        ),
        (
            {"distils": "init-sft", "loss": "bradley_terry"},
            "reward.0: loss: a student learns by squared_error, found bradley_terry",
        ),
        (
            {"loss": "squared_error"},
            "reward.0: loss: squared_error needs a reward to learn from; set distils",
        ),
        (
            {"distils": "init-sft", "model": "head", "ensemble": 2},
            "reward.0: ensemble: a head that distils is fitted in closed form, whatever the seed, "
            "found size 2",
        ),
        (
            {"members": ["init-sft", "density-ratio"]},
            "reward.0: members: belong to model: mixture, found model: adapter",
        ),
        (
            {**BOTH, "ensemble": 2},
            "reward.0: ensemble: a mixture has its members, of which each may be an ensemble, "
            "found size 2",
        ),
        (
            {**BOTH, "ratio": {"clip": 2}},
            "reward.0: ratio: belongs to model: density_ratio, found mixture",
        ),
    ],
)
def test_what_does_not_fit_together(entry: dict[str, Any], line: str) -> None:
    assert refusal(entry, {}, RATIO) == line


@pytest.mark.parametrize("turned", [False, True])
def test_a_circle(turned: bool) -> None:
    entries = [
        {"name": "a", "distils": "mix"},
        {"name": "mix", "model": "mixture", "members": ["init-sft", "b"]},
        {"name": "b", "distils": "a"},
        {},
    ]
    line = refusal(*(reversed(entries) if turned else entries))
    start = "recipe: reward: rewards must not need each other in a circle, found "
    circles = [("a", "mix", "b", "a"), ("mix", "b", "a", "mix"), ("b", "a", "mix", "b")]
    assert line in [start + " -> ".join(circle) for circle in circles]


def test_an_unknown_key_gets_a_suggestion() -> None:
    assert refusal({"distill": "x"}) == "reward.0.distill: unknown key; did you mean 'distils'?"
    assert refusal({"member": ["x"]}) == "reward.0.member: unknown key; did you mean 'members'?"
