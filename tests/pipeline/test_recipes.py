"""The recipes that come with the package: what they say, and that each runs in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from demoalign.cli.options import shipped, shipped_recipes
from demoalign.config import IrlConfig, Recipe, load_recipe
from demoalign.pipeline.miniature import miniature
from demoalign.pipeline.miniature.families import FAMILIES, family_of
from demoalign.pipeline.miniature.recipe import MOST
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.report.words import decoded_name
from tests.conftest import ModelFolder
from tests.pipeline.runs import cli, lines_of, metrics_of, refusal

PAPERS = ("harmless-gpt2", "helpful-gemma", "tldr-pythia", "ultrachat-zephyr")
NAMES = sorted(path.stem for path in shipped_recipes().glob("*.yaml"))
ARCHITECTURES = {
    "harmless-gpt2": "gpt2",
    "helpful-gemma": "gemma",
    "tldr-pythia": "gpt_neox",
    "ultrachat-zephyr": "mistral",
    "own-data": "llama",
}
STAGES = {"demonstrations", "sft", "rollouts", "rollouts-test", "best-of-n", "evaluation"}


def recipe_of(name: str) -> Recipe:
    return load_recipe(shipped(name))


def test_the_papers_have_recipes() -> None:
    assert {*PAPERS, "own-data", "quickstart"} <= set(NAMES)


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_opens_with_what_it_needs(name: str) -> None:
    text = shipped(name).read_text(encoding="utf-8")
    head = text[: text.index("\nname:")]
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("Reproduces:", "Hardware:", "Time", "ost (", "estimate", "Ids:", "--miniature"):
        assert word in head, word


@pytest.mark.parametrize(
    ("name", "rate", "tokens", "golden"),
    [
        ("harmless-gpt2", 1e-5, 48, "Ray2333/gpt2-large-harmless-reward_model"),
        ("helpful-gemma", 5e-6, 128, "weqweasdas/RM-Gemma-2B"),
    ],
)
def test_settings_of_inverse_rlignment(name: str, rate: float, tokens: int, golden: str) -> None:
    """Sections 4.1 and 4.2, appendices E.3 and E.6."""
    recipe = recipe_of(name)
    trained = [recipe.sft, *recipe.reward, *recipe.baselines]
    settings = {(e.learning_rate, e.batch_size, e.accumulation, e.epochs) for e in trained}
    assert settings == {(rate, 4, 2, 2)}
    adapter = recipe.model.adapter
    assert (adapter.kind, adapter.r, adapter.alpha) == ("lora", 32, 32)
    assert recipe.rollouts.max_new_tokens == recipe.evaluation.length == tokens
    assert [each.source for each in recipe.evaluation.goldens] == [golden]
    assert max(recipe.evaluation.sizes) == 1000
    titles = [each.title for each in recipe.reward]
    assert titles == ["init-sft", "init-demo", "sft-demo", "preference"]
    trainings = [(each.method, *each.sources) for each in recipe.baselines]
    assert trainings == [
        ("sft", "preferred"),
        ("dpo", "preferred", "dispreferred"),
        ("dpo", "demonstrations", "initial"),
    ]
    assert {getattr(each, "beta", 0.1) for each in recipe.baselines} == {0.1}


@pytest.mark.parametrize(("name", "step"), [("tldr-pythia", "ppo"), ("ultrachat-zephyr", "raft")])
def test_settings_of_ml_irl(name: str, step: str) -> None:
    """Eq. 11: demonstrations preferred to the policy's own answers, and checked on preferences."""
    improve = recipe_of(name).improve
    assert isinstance(improve, IrlConfig)
    assert (improve.step.method, improve.reward.loss) == (step, "bradley_terry")
    (reward,) = recipe_of(name).reward
    found = reward.positives, reward.negatives, reward.loss
    assert found == ("demonstrations", "sft", "bradley_terry")
    assert recipe_of(name).evaluation.preferences


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every recipe but the quickstart, which other tests run, in miniature on the command line."""
    folder, found = tmp_path_factory.mktemp("miniature"), {}
    for name in ARCHITECTURES:
        output = json.dumps(str(folder))
        said = cli("run", shipped(name), "--miniature", "--set", f"output={output}", "--json")
        assert said.status == 0, said.err
        found[name] = Path(said.json["run"])
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_miniature_goes_through_every_stage(runs: dict[str, Path], name: str) -> None:
    run, recipe = runs[name], recipe_of(name)
    stored = load_recipe(run / "recipe.yaml")
    manifests = [json.loads(path.read_text()) for path in run.rglob("manifest.json")]
    assert {each["status"] for each in manifests} == {"done"}
    rewards = {f"reward/{each.title}" for each in recipe.reward}
    baselines = {f"baseline/{each.name}" for each in recipe.baselines}
    assert {each["stage"] for each in manifests} >= STAGES | rewards | baselines
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    kind = json.loads((run / "miniature" / "model" / "config.json").read_text())["model_type"]
    assert kind == ARCHITECTURES[name]
    same = {"kind", "r", "alpha"}
    assert stored.model.adapter.model_dump(include=same) == recipe.model.adapter.model_dump(
        include=same
    )
    for mine, theirs in zip(stored.reward, recipe.reward, strict=True):
        kept = {"positives", "negatives", "loss", "model", "batch_size", "learning_rate"}
        assert mine.model_dump(include=kept) == theirs.model_dump(include=kept)


def test_what_a_miniature_reads(runs: dict[str, Path]) -> None:
    """Rows in the format of the real thing, and the golden rewards' architectures."""
    harmless = runs["harmless-gpt2"] / "miniature"
    row, *rest = lines_of(harmless / "demonstrations.jsonl")
    assert len(rest) > 100
    assert row["prompt"].startswith("\n\nHuman: ")
    assert row["prompt"].endswith("\n\nAssistant:")
    assert any(each["prompt"].count("\n\nHuman:") > 1 for each in rest)
    pair = lines_of(harmless / "preferences.jsonl")[0]
    assert set(pair) == {"chosen", "rejected"}
    post = lines_of(runs["tldr-pythia"] / "miniature" / "demonstrations.jsonl")[0]
    assert post["prompt"].startswith("SUBREDDIT: r/")
    assert post["prompt"].endswith("TL;DR:")
    talk = lines_of(runs["ultrachat-zephyr"] / "miniature" / "demonstrations.jsonl")[0]
    assert talk["messages"][-1]["role"] == "assistant"
    for name, family in (("harmless-gpt2", "gpt2"), ("helpful-gemma", "gemma")):
        config = json.loads((runs[name] / "miniature" / "golden-0" / "config.json").read_text())
        assert config["model_type"] == family
        assert metrics_of(runs[name], "golden_reward")
    assert metrics_of(runs["ultrachat-zephyr"], "rewardbench_score")
    assert metrics_of(runs["tldr-pythia"], "preference_accuracy")
    card = (runs["tldr-pythia"] / "policy" / "README.md").read_text(encoding="utf-8")
    assert "# tldr-pythia-miniature: policy irl" in card
    assert f"| golden_reward | {decoded_name('irl', 'none')} | 1 |" in card


def test_a_miniature_that_is_done_is_not_run_again(runs: dict[str, Path]) -> None:
    output = json.dumps(str(runs["own-data"].parent))
    arguments = (shipped("own-data"), "--miniature", "--set", f"output={output}")
    stages = cli("run", *arguments, "--json").json["stages"]
    assert {each["status"] for each in stages} == {"current"}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_passes_validate_in_miniature(tmp_path: Path, name: str) -> None:
    output = json.dumps(str(tmp_path / "runs"))
    arguments = (shipped(name), "--miniature", "--set", f"output={output}")
    said = cli("validate", *arguments, "--json")
    assert said.status == 0, said.err
    assert said.json["facts"]["prompts in train and test"] == "0"


def test_validate_says_what_to_do_without_the_hub() -> None:
    for name in PAPERS:
        said = refusal("validate", shipped(name))
        assert recipe_of(name).model.base in said
        assert "--miniature tries the recipe" in said


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_a_miniature_are_small(tmp_path: Path, name: str) -> None:
    recipe = recipe_of(name).model_copy(update={"output": str(tmp_path)})
    plain = miniature(recipe).model_dump(mode="json")

    def check(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for inner, item in value.items():
                check(item, inner)
        elif isinstance(value, list):
            for item in value:
                check(item, key)
        elif key in MOST and isinstance(value, int | float):
            assert value <= MOST[key], key

    check(plain, "")
    assert plain["name"] == f"{recipe.name}-miniature"


def test_architectures_are_told_by_folder_or_name(model_folder: ModelFolder) -> None:
    assert family_of(str(model_folder("gemma", "bos"))) == "gemma"
    assert family_of("EleutherAI/pythia-1b-deduped") == "gpt_neox"
    assert family_of("openai-community/gpt2-large") == "gpt2"
    assert family_of("mistralai/Mistral-7B-v0.1") == "mistral"
    assert family_of("somebody/something") == "llama"


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_tokenizers_are_as_awkward_as_the_real_ones(tmp_path: Path, family: str) -> None:
    """GPT-2 has no pad token, Zephyr's is its end token: what is padded with never ends a text."""
    from demoalign.pipeline.miniature.models import make_config, make_tokenizer, store_model

    texts = ["How do I mend my red chair?", "Begin by testing it first."]
    store_model(tmp_path, family, texts, chat=True, seed=0)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert (plain.pad_token == plain.eos_token) == (family == "mistral")
    safe = load_tokenizer(str(tmp_path), len(plain))
    assert safe.pad_token_id != safe.eos_token_id
    made = make_tokenizer(FAMILIES[family], texts, chat=False)
    assert made.chat_template is None
    assert make_config(family, made).vocab_size == len(made)
