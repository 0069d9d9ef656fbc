"""The recipe: every rule with its message, overrides, and reading back what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from demoalign.config import Recipe, RewardConfig, dump_recipe, load_recipe, parse_recipe
from demoalign.errors import RecipeError

BASE: dict[str, Any] = {
    "name": "mine",
    "model": {"base": "models/base"},
    "demonstrations": {"source": "rows.jsonl"},
}
PREFERRED = {"positives": "preferred", "negatives": "dispreferred"}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_base(folder: Path, **sections: object) -> Path:
    return write(folder, yaml.safe_dump({**BASE, **sections}))


def refusal(**sections: object) -> list[str]:
    """The lines about broken rules, one for each."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**BASE, **sections}, "my.yaml")
    first, *lines = str(caught.value).split("\n  ")
    assert first == f"my.yaml: {len(lines)} problem(s)"
    return lines


def test_the_defaults() -> None:
    recipe = parse_recipe(BASE)
    assert (recipe.seed, recipe.folder) == (0, Path("runs/mine"))
    assert recipe.sft.learning_rate == 1e-5
    assert (recipe.model.adapter.kind, recipe.model.adapter.r) == ("lora", 32)
    assert [reward.title for reward in recipe.reward] == ["init-sft"]
    assert recipe.evaluation.golden is None
    assert recipe.evaluation.sizes == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"sed": 1}, "sed: unknown key; did you mean 'seed'?"),
        ({"sft": {"epoch": 1}}, "sft.epoch: unknown key; did you mean 'epochs'?"),
        (
            {"model": {"base": "b", "adapter": {"alfa": 1}}},
            "model.adapter.alfa: unknown key; did you mean 'alpha'?",
        ),
        ({"reward": {"los": "bce"}}, "reward.0.los: unknown key; did you mean 'loss'?"),
        (
            {"reward": [{}, {"name": "b", "ensemble": {"sise": 2}}]},
            "reward.1.ensemble.sise: unknown key; did you mean 'size'?",
        ),
        ({"improve": {"zzz": 1}}, "improve.zzz: unknown key; known here: method, rejection"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(sections: dict[str, Any], line: str) -> None:
    assert refusal(**sections) == [line]


def test_an_unknown_key_like_no_other_lists_those_there_are() -> None:
    (line,) = refusal(zzz=1)
    assert line.startswith("zzz: unknown key; known here: name, seed, output, model,")


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"model": {}}, "model.base: required, found nothing"),
        ({"demonstrations": {}}, "demonstrations.source: required, found nothing"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0; found -1"),
        ({"seed": 2**31}, "seed: Input should be less than 2147483648; found 2147483648"),
        ({"name": 3}, "name: Input should be a valid string; found 3"),
        ({"sft": {"epochs": 0}}, "sft.epochs: Input should be greater than 0; found 0"),
        (
            {"sft": {"batch_size": 0}},
            "sft.batch_size: Input should be greater than or equal to 1; found 0",
        ),
        (
            {"sft": {"warmup_fraction": 1}},
            "sft.warmup_fraction: Input should be less than 1; found 1",
        ),
        (
            {"sft": {"learning_rate": float("inf")}},
            "sft.learning_rate: Input should be a finite number; found inf",
        ),
        (
            {"rollouts": {"temperature": float("nan")}},
            "rollouts.temperature: Input should be a finite number; found nan",
        ),
        (
            {"rollouts": {"temperature": 0}},
            "rollouts.temperature: Input should be greater than 0; found 0",
        ),
        (
            {"rollouts": {"top_p": 1.1}},
            "rollouts.top_p: Input should be less than or equal to 1; found 1.1",
        ),
        (
            {"demonstrations": {"source": "s", "test_fraction": 1}},
            "demonstrations.test_fraction: Input should be less than 1; found 1",
        ),
        (
            {"demonstrations": {"source": "s", "dial": 1.5}},
            "demonstrations.dial: Input should be less than or equal to 1; found 1.5",
        ),
        (
            {"demonstrations": {"source": "lab", "variant": "known"}},
            "demonstrations.variant: Input should be 'standard', 'known-habits' or "
            "'unknown-quality'; found 'known'",
        ),
        (
            {"sft": {"token_weighting": "some"}},
            "sft.token_weighting: Input should be 'none' or 'occupancy'; found 'some'",
        ),
        (
            {"improve": {"method": "dqn"}},
            "improve.method: must be one of best_of_n, extrapolate, raft, rloo, grpo, ppo, "
            "adversarial, irl, found 'dqn'",
        ),
        (
            {"evaluation": {"n": 0}},
            "evaluation.n: Input should be greater than or equal to 1; found 0",
        ),
        (
            {"evaluation": {"n": [4, 0]}},
            "evaluation.n.1: Input should be greater than or equal to 1; found 0",
        ),
        (
            {"model": {"base": "b", "adapter": {"target_modules": 5}}},
            "model.adapter.target_modules: Input should be a valid string; found 5",
        ),
        (
            {"reward": {"ensemble": 0}},
            "reward.0.ensemble.size: Input should be greater than or equal to 1; found 0",
        ),
        ({"reward": 5}, "reward: Input should be a valid tuple; found 5"),
        ({1: 2}, "1: Keys should be strings; found 1"),
    ],
)
def test_a_value_outside_its_rule(sections: dict[Any, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**BASE, **sections})
    assert str(caught.value) == f"recipe: 1 problem(s)\n  {line}"


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "a/b", "ä", "x" * 101])
def test_a_name_must_be_that_of_a_folder(name: str) -> None:
    (line,) = refusal(name=name)
    assert line.startswith("name: String should ")
    assert line.endswith(f"found {name!r}")


def test_every_broken_rule_is_told() -> None:
    assert refusal(seed=-1, sft={"epochs": 0, "epoch": 2}) == [
        "seed: Input should be greater than or equal to 0; found -1",
        "sft.epochs: Input should be greater than 0; found 0",
        "sft.epoch: unknown key; did you mean 'epochs'?",
    ]


def test_a_section_that_is_no_mapping() -> None:
    (line,) = refusal(sft=None)
    assert line.startswith("sft: Input should be a valid dictionary")
    assert line.endswith("found None")


@pytest.mark.parametrize("source", ["initial", "sft", "policy:runs/a/policy"])
def test_equal_sources_are_refused(source: str) -> None:
    assert refusal(reward={"positives": source, "negatives": source}) == [
        "reward.0: positives and negatives must differ: a discriminator between "
        f"{source!r} and itself has nothing to learn"
    ]


@pytest.mark.parametrize("source", ["golden", "policy:", "demos", "SFT"])
def test_an_unknown_source_is_refused(source: str) -> None:
    (line,) = refusal(reward={"positives": source})
    assert line.startswith("reward.0.positives: String should match pattern")
    assert line.endswith(f"found {source!r}")


@pytest.mark.parametrize(
    ("positives", "negatives"),
    [
        ("preferred", "initial"),
        ("sft", "dispreferred"),
        ("dispreferred", "preferred"),
    ],
)
def test_preferred_and_dispreferred_belong_together(positives: str, negatives: str) -> None:
    reward = {"positives": positives, "negatives": negatives, "preferences": "p.jsonl"}
    assert refusal(reward=reward) == [
        "reward.0: preferred and dispreferred belong together (positives: preferred, negatives: "
        f"dispreferred); found positives: {positives}, negatives: {negatives}"
    ]


def test_preferences_need_their_file() -> None:
    assert refusal(reward=PREFERRED) == [
        "reward.0: preferences: give the file with chosen and rejected answers, or 'golden' to "
        "have the golden reward label pairs of SFT samples with noise"
    ]


def test_a_file_of_preferences_needs_their_sources() -> None:
    assert refusal(reward={"preferences": "p.jsonl"}) == [
        "reward.0: preferences: used only with positives: preferred, negatives: dispreferred; "
        "found positives: sft, negatives: initial"
    ]


def test_golden_preferences_need_a_golden_reward() -> None:
    reward = {**PREFERRED, "preferences": "golden"}
    assert refusal(reward=reward) == [
        "recipe: reward.preferences: golden needs evaluation.golden, found none"
    ]
    recipe = parse_recipe({**BASE, "reward": reward, "evaluation": {"golden": "lab"}})
    assert recipe.reward[0].title == "preference"


def test_names_of_rewards_must_differ() -> None:
    assert refusal(reward=[{}, {"loss": "bradley_terry"}]) == [
        "recipe: reward: names must differ, found ['init-sft'] twice; set name:"
    ]
    assert refusal(reward=[{"name": "init-demo"}, {"positives": "demonstrations"}]) == [
        "recipe: reward: names must differ, found ['init-demo'] twice; set name:"
    ]
    recipe = parse_recipe({**BASE, "reward": [{}, {"loss": "bradley_terry", "name": "bt"}]})
    assert [reward.title for reward in recipe.reward] == ["init-sft", "bt"]


@pytest.mark.parametrize(
    "name", ["none", "greedy", "golden", "length", "mean-logprob", "sequence-logprob"]
)
def test_a_reward_is_not_named_as_another_selector(name: str) -> None:
    assert refusal(reward={"name": name}) == [
        f"recipe: reward: name must not be that of another selector, found [{name!r}]"
    ]


def test_no_reward_at_all() -> None:
    assert refusal(reward=[]) == [
        "recipe: reward: needs at least one reward model, found none",
    ]


@pytest.mark.parametrize(
    ("negatives", "positives", "title"),
    [
        ("initial", "sft", "init-sft"),
        ("initial", "demonstrations", "init-demo"),
        ("sft", "demonstrations", "sft-demo"),
        ("sft", "policy:runs/a/better", "sft-better"),
        ("policy:/", "sft", "policy-sft"),
    ],
)
def test_rewards_are_named_by_their_sources(negatives: str, positives: str, title: str) -> None:
    config = RewardConfig(negatives=negatives, positives=positives)
    assert config.title == title
    assert RewardConfig(negatives=negatives, positives=positives, name="x").title == "x"


def test_one_reward_is_a_list_of_one() -> None:
    one = {"positives": "demonstrations", "loss": "bradley_terry"}
    assert parse_recipe({**BASE, "reward": one}) == parse_recipe({**BASE, "reward": [one]})


def test_an_ensemble_by_its_size_alone() -> None:
    short = parse_recipe({**BASE, "reward": {"ensemble": 3}})
    assert short == parse_recipe({**BASE, "reward": {"ensemble": {"size": 3}}})
    assert short.reward[0].ensemble.size == 3
    assert short.reward[0].ensemble.aggregate == "mean"


@pytest.mark.parametrize(
    ("golden", "titles"),
    [
        (None, []),
        ("lab", ["lab"]),
        ("a.b:score", ["score"]),
        ("models/my golden/", ["mygolden"]),
        ("org/golden-1.5B", ["golden-1.5B"]),
        ("?", ["other"]),
        ({"name": "mine", "source": "lab"}, ["mine"]),
        (["lab", {"source": "a:score"}, {"name": "x", "source": "lab"}], ["lab", "score", "x"]),
    ],
)
def test_names_of_golden_rewards(golden: object, titles: list[str]) -> None:
    evaluation = parse_recipe({**BASE, "evaluation": {"golden": golden}}).evaluation
    assert [each.title for each in evaluation.goldens] == titles
    assert evaluation.main_golden == next(iter(evaluation.goldens), None)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"golden": []}, "golden: needs at least one golden reward, or null for none; found []"),
        ({"golden": ["lab", "lab"]}, "golden: names must differ, found ['lab'] twice; set name:"),
        ({"golden": ["lab", {"sorce": "a:b"}]}, ".golden.1.source: required, found nothing"),
        ({"golden": {"source": "a", "nam": "b"}}, ".golden.nam: unknown key; did you mean 'name'?"),
        ({"golden": {"source": "a", "name": "b c"}}, ".golden.name: String should match pattern"),
        ({"golden": ""}, ".golden: String should have at least 1 character; found ''"),
        ({"length": 0}, ".length: Input should be greater than or equal to 1; found 0"),
        ({"length": "tokens"}, ".length: Input should be 'demonstrations'; found 'tokens'"),
        ({"n": 8, "win_n": 9}, "win_n: must be at most n, which is 8, found 9"),
        ({"win_n": 1}, ".win_n: Input should be greater than or equal to 2; found 1"),
    ],
)
def test_evaluation_that_cannot_be(section: dict[str, Any], line: str) -> None:
    assert any(line in each for each in refusal(evaluation=section))


@pytest.mark.parametrize(
    ("section", "n"),
    [
        ({"n": 64}, 16),
        ({"n": 16}, 8),
        ({"n": [16, 17]}, 16),
        ({"n": 1}, 1),
        ({"n": 2}, 1),
        ({"n": 16, "win_n": 16}, 16),
        ({"n": 64, "win_n": 3}, 3),
    ],
)
def test_selectors_are_compared_where_a_candidate_is_left(section: dict[str, Any], n: int) -> None:
    assert parse_recipe({**BASE, "evaluation": section}).evaluation.compared_n == n


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (16, [1, 2, 4, 8, 16]),
        (12, [1, 2, 4, 8, 12]),
        ([8, 3, 8], [1, 3, 8]),
        ([1], [1]),
    ],
)
def test_sizes_of_best_of_n(n: int | list[int], sizes: list[int]) -> None:
    assert parse_recipe({**BASE, "evaluation": {"n": n}}).evaluation.sizes == sizes


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", "0.00001", "1.e-5"])
def test_scientific_notation(tmp_path: Path, number: str) -> None:
    text = yaml.safe_dump(BASE) + f"sft: {{learning_rate: {number}}}\n"
    path = write(tmp_path, text)
    assert load_recipe(path).sft.learning_rate == 1e-5
    written = write_base(tmp_path)
    assert load_recipe(written, [f"sft.learning_rate={number}"]).sft.learning_rate == 1e-5


def test_sections_are_frozen() -> None:
    recipe = parse_recipe(BASE)
    for section, key in ((recipe, "seed"), (recipe.sft, "epochs"), (recipe.reward[0], "loss")):
        with pytest.raises(ValueError, match="Instance is frozen"):
            setattr(section, key, 1)


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    assert load_recipe(write_base(tmp_path)) == parse_recipe(BASE)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"recipe {path}: cannot be read (")
    assert message.endswith(f"`demoalign init --output {path}` writes one.")


def test_a_folder_or_other_bytes_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\n")
    for path in (tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(path)


@pytest.mark.parametrize("text", ["name: [1", "a: b: c", "\tname: x", "name: !!python/none x"])
def test_what_is_not_yaml(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe .*recipe\.yaml: not valid YAML: "):
        load_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "kind"), [("", "NoneType"), ("- a\n- b\n", "list"), ("just text", "str")]
)
def test_what_is_no_mapping(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(RecipeError, match=f"must be a mapping of keys, found {kind}$"):
        load_recipe(write(tmp_path, text))


def test_the_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = write_base(tmp_path, sed=1)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: 1 problem(s)\n  sed: unknown key")


def test_overrides(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_base(tmp_path, sft={"epochs": 1, "batch_size": 8}),
        [
            "seed=3",
            "sft.epochs=0.5",
            "model.adapter.r=8",
            "evaluation.n=[2, 8]",
            "evaluation.golden=lab",
            " name = other ",
            "demonstrations.limit=null",
            "demonstrations.source=a=b",
            "seed=4",
        ],
    )
    assert (recipe.seed, recipe.name) == (4, "other")
    assert (recipe.sft.epochs, recipe.sft.batch_size) == (0.5, 8)
    assert recipe.model.adapter.r == 8
    assert recipe.model.base == "models/base"
    assert recipe.evaluation.sizes == [1, 2, 8]
    assert recipe.demonstrations.limit is None
    assert recipe.demonstrations.source == "a=b"


def test_an_override_reaches_every_reward(tmp_path: Path) -> None:
    rewards = [{}, {"positives": "demonstrations", "epochs": 1}]
    path = write_base(tmp_path, reward=rewards)
    recipe = load_recipe(path, ["reward.epochs=3", "reward.ensemble.size=2"])
    assert [reward.epochs for reward in recipe.reward] == [3, 3]
    assert [reward.ensemble.size for reward in recipe.reward] == [2, 2]
    assert [reward.title for reward in recipe.reward] == ["init-sft", "init-demo"]


def test_an_override_of_a_single_reward_or_of_none_written(tmp_path: Path) -> None:
    single = load_recipe(write_base(tmp_path, reward={"epochs": 1}), ["reward.loss=bradley_terry"])
    assert (single.reward[0].epochs, single.reward[0].loss) == (1, "bradley_terry")
    absent = load_recipe(write_base(tmp_path), ["reward.loss=bradley_terry"])
    assert [reward.loss for reward in absent.reward] == ["bradley_terry"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.epochs", "--set 'sft.epochs': must be key=value, such as sft.epochs=3"),
        ("=3", "--set '=3': must be key=value, such as sft.epochs=3"),
        (" =3", "--set ' =3': must be key=value, such as sft.epochs=3"),
        ("name.first=x", "--set name.first: 'name' holds 'mine', which has no keys to set"),
        ("seed=[1", "--set 'seed=[1': the value is not valid YAML: "),
        ("sft.epoch=3", "sft.epoch: unknown key; did you mean 'epochs'?"),
        ("sft.epochs=0", "sft.epochs: Input should be greater than 0; found 0"),
        ("reward.0.epochs=3", "reward.0.0: unknown key"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_base(tmp_path), [override])
    assert message in str(caught.value)


def test_another_method_over_the_keys_of_one(tmp_path: Path) -> None:
    path = write_base(tmp_path, improve={"method": "extrapolate", "strength": 4})
    with pytest.raises(RecipeError, match=r"improve\.strength: unknown key") as caught:
        load_recipe(path, ["improve.method=ppo"])
    assert str(caught.value).endswith(
        "The recipe's improve has keys of another method. "
        "--set 'improve={method: ppo}' begins it anew."
    )
    assert load_recipe(path, ["improve={method: ppo}"]).improve.method == "ppo"
    with pytest.raises(RecipeError) as elsewhere:
        load_recipe(path, ["improve.method=extrapolate", "sft.epochs=0"])
    assert "anew" not in str(elsewhere.value)


def read_back(recipe: Recipe) -> Recipe:
    return parse_recipe(yaml.safe_load(dump_recipe(recipe)))


def test_a_dump_says_everything() -> None:
    raw = yaml.safe_load(dump_recipe(parse_recipe(BASE)))
    assert list(raw) == list(Recipe.model_fields)
    assert raw["sft"]["epochs"] == 2
    assert raw["reward"][0]["ensemble"] == {"size": 1, "aggregate": "mean", "k": 1.0}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z")
counts = st.integers(1, 4096)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
positive = st.floats(0, 1e300, exclude_min=True)
optimisers: dict[str, st.SearchStrategy[Any]] = {
    "epochs": positive,
    "batch_size": counts,
    "accumulation": counts,
    "learning_rate": positive,
    "schedule": st.sampled_from(["linear", "cosine", "constant"]),
    "warmup_fraction": st.floats(0, 1, exclude_max=True),
    "weight_decay": st.floats(0, 10),
    "max_length": counts,
    "gradient_checkpointing": st.booleans(),
}
pairs = st.sampled_from(
    [("sft", "initial"), ("demonstrations", "sft"), ("policy:a b/ü: #1", "initial")]
)


@st.composite
def rewards(draw: st.DrawFn, number: int) -> dict[str, Any]:
    positives, negatives = draw(pairs)
    ensemble = st.fixed_dictionaries(
        {},
        optional={
            "size": counts,
            "aggregate": st.sampled_from(["mean", "min", "mean_minus_std"]),
            "k": st.floats(0, 10),
        },
    )
    reward = draw(
        st.fixed_dictionaries(
            {"name": words.map(lambda word: f"r{number}-{word}")},
            optional={
                **optimisers,
                "loss": st.sampled_from(["bce", "bradley_terry", "bradley_terry_variance"]),
                "model": st.sampled_from(["adapter", "head", "full"]),
                "holdout_fraction": shares,
                "ensemble": counts | ensemble,
            },
        )
    )
    return {**reward, "positives": positives, "negatives": negatives}


goldens = texts.filter(bool) | st.fixed_dictionaries(
    {"source": texts.filter(bool)}, optional={"name": st.none() | words}
)

recipes = st.fixed_dictionaries(
    {
        "name": words,
        "model": st.fixed_dictionaries(
            {"base": texts},
            optional={
                "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
                "device": texts,
                "adapter": st.fixed_dictionaries(
                    {},
                    optional={
                        "kind": st.sampled_from(["lora", "none"]),
                        "r": counts,
                        "target_modules": texts | st.lists(texts, max_size=3),
                    },
                ),
            },
        ),
        "demonstrations": st.fixed_dictionaries(
            {"source": texts},
            optional={
                "format": st.sampled_from(["auto", "messages", "lab"]),
                "map": st.dictionaries(texts, texts, max_size=2),
                "test_fraction": shares,
                "test_source": st.none() | texts,
                "limit": st.none() | counts,
                "dial": st.none() | st.floats(0, 1),
                "variant": st.sampled_from([None, "known-habits", "unknown-quality"]),
            },
        ),
    },
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "output": texts,
        "sft": st.fixed_dictionaries(
            {},
            optional={
                **optimisers,
                "token_weighting": st.sampled_from(["none", "occupancy"]),
                "checkpoints": st.integers(0, 5),
            },
        ),
        "rollouts": st.fixed_dictionaries(
            {}, optional={"temperature": positive, "top_p": shares, "train_prompts": counts}
        ),
        "reward": rewards(0) | st.tuples(rewards(0), rewards(1)).map(list),
        "evaluation": st.fixed_dictionaries(
            {},
            optional={
                "golden": st.none() | goldens | st.tuples(goldens).map(list),
                "length": st.none() | st.just("demonstrations") | counts,
                "n": counts | st.lists(counts, max_size=3),
                "prompts": st.none() | counts,
                "browse": st.integers(0, 9),
            },
        ),
    },
)


@given(recipes)
@settings(max_examples=60, deadline=None)
def test_any_valid_recipe_reads_back_equal(raw: dict[str, Any]) -> None:
    recipe = parse_recipe(raw)
    assert read_back(recipe) == recipe
    assert dump_recipe(read_back(recipe)) == dump_recipe(recipe)
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(raw))) == recipe


def test_preferences_and_golden_read_back() -> None:
    recipe = parse_recipe(
        {
            **BASE,
            "reward": [{**PREFERRED, "preferences": "golden"}, {"ensemble": 2}],
            "evaluation": {"golden": "module:function", "n": [2, 4]},
        }
    )
    assert read_back(recipe) == recipe


@pytest.mark.parametrize("odd", ["\x85", "a\x85b", "\u2028", "\ufeff", "é 日本", "- a: b\n"])
def test_odd_characters_read_back_equal(odd: str) -> None:
    raw = {"name": "n", "model": {"base": odd}, "demonstrations": {"source": odd}}
    recipe = parse_recipe(raw)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_the_closed_form_needs_two_policies() -> None:
    (config,) = parse_recipe({**BASE, "reward": {"model": "density_ratio"}}).reward
    assert (config.title, config.positives, config.negatives) == ("density-ratio", "sft", "initial")
    for wrong, said in (
        ({"model": "density_ratio", "positives": "demonstrations"}, "found demonstrations"),
        ({"model": "density_ratio", "ensemble": 2}, "found size 2"),
        ({"model": "head", "ratio": {"clip": 1.0}}, "found head"),
        ({"model": "density_ratio", "ratio": {"clip": -1}}, "greater than 0"),
    ):
        with pytest.raises(RecipeError, match=said):
            parse_recipe({**BASE, "reward": wrong})


def test_a_quantised_base_is_frozen() -> None:
    plain = {"name": "q", "demonstrations": {"source": "d.jsonl"}}
    model = {"base": "b", "quantisation": "4bit"}
    assert parse_recipe({**plain, "model": model}).model.quantisation == "4bit"
    with pytest.raises(RecipeError, match=r"needs adapter\.kind: lora, found none"):
        parse_recipe({**plain, "model": {**model, "adapter": {"kind": "none"}}})
    with pytest.raises(RecipeError, match=r"reward\.init-sft\.model: full trains all weights"):
        parse_recipe({**plain, "model": model, "reward": {"model": "full"}})
