"""Policies to compare with as stages of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demoalign as da
from demoalign.errors import RecipeError
from demoalign.improve.dpo import token_pairs
from demoalign.improve.referred import reference_logprobs
from demoalign.pipeline import Pipeline
from demoalign.pipeline.comparing import comparisons_of
from demoalign.pipeline.data import read_data
from demoalign.policies import Policy
from demoalign.records import Score, read_records
from demoalign.report.words import stage_name
from demoalign.rollouts.write import read_rollouts
from tests.conftest import ModelFolder
from tests.demonstrations.files import jsonl
from tests.pipeline.runs import Project, cli, lines_of, make_project, preferences, results_of

ALL_AT_ONCE = {"epochs": 1, "batch_size": 64, "accumulation": 1, "learning_rate": 0.003}
BASELINES: list[dict[str, Any]] = [
    {"method": "sft", "name": "sft-preferred", "preferences": "golden", **ALL_AT_ONCE},
    {
        **{"method": "dpo", "name": "dpo.demonstrations", **ALL_AT_ONCE},
        **{"positives": "demonstrations", "negatives": "initial", "reference": "sft"},
    },
    {
        **{"method": "dpo", "name": "dpo-preferences", **ALL_AT_ONCE, "samples": 2},
        **{"preferences": "golden", "labels": "initial", "start": "sft"},
    },
]
NAMES = [str(each["name"]) for each in BASELINES]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> Project:
    folder = tmp_path_factory.mktemp("compared")
    made = make_project(folder, model_folder("llama", "bos"), baselines=BASELINES)
    Pipeline(made.recipe()).advance()
    return made


def stale(project: Project, changes: dict[str, Any]) -> list[str]:
    return [name for name, current in Pipeline(project.recipe(changes)).plan() if not current]


def test_what_is_measured(compared: Project) -> None:
    found = results_of(compared.run)["metrics"]
    for name in NAMES:
        mine = [metric for metric in found if metric["policy"] == name]
        assert {metric["selector"] for metric in mine} == {"none", "greedy"}
        known = {metric["metric"] for metric in mine if metric["value"] is not None}
        assert known >= {
            *("golden_reward", "golden_reward_normalised", "golden_reward_difference"),
            *("win_rate_over_greedy", "completion_tokens", "kl"),
        }
        assert len(lines_of(compared.run / "baseline-rollouts" / name / f"{name}.jsonl")) == (
            6 * (2 if name == "dpo-preferences" else 4)
        )
    page = (compared.run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)
    assert stage_name("baseline/sft-preferred") == "Baseline sft-preferred"


def test_the_kl_is_to_the_sft_policy(compared: Project) -> None:
    name = "sft-preferred"
    folder = compared.run / "baseline-rollouts" / name
    rollouts = read_rollouts(folder / f"{name}.jsonl")
    stored = {s.rollout_id: s.value for s in read_records(folder / "logprobs.jsonl", Score)}
    (kl,) = (
        metric["value"]
        for metric in results_of(compared.run)["metrics"]
        if (metric["metric"], metric["policy"]) == ("kl", name)
    )
    differences = [(r.logprob or 0) - (stored[r.id] or 0) for r in rollouts]
    assert kl == pytest.approx(np.mean(differences))
    assert kl != 0


def test_a_baseline_is_a_policy_folder(compared: Project) -> None:
    recipe = compared.recipe()
    models = Pipeline(recipe).models
    train, _ = read_data(compared.run / "demonstrations")
    for config in recipe.baselines:
        folder = compared.run / "baseline" / config.name
        assert not (folder / "checkpoints").exists()
        policy = da.Policy.load(folder)
        asked = _pairs_of(compared, "dpo.demonstrations")
        pairs, _ = token_pairs(policy.backbone.tokenizer, asked, config.name, 128)
        elsewhere = reference_logprobs(policy, pairs)
        ours = reference_logprobs(models.baseline(config.name), pairs)
        np.testing.assert_allclose(elsewhere, ours, rtol=1e-5)
        assert not np.allclose(ours, reference_logprobs(models.initial(), pairs), rtol=1e-5)
    assert train


def _pairs_of(project: Project, name: str) -> list[Any]:
    recipe, run = project.recipe(), project.run
    (config,) = (each for each in recipe.baselines if each.name == name)
    assert config.method == "dpo"
    train, _ = read_data(run / "demonstrations")
    models = Pipeline(recipe).models
    return comparisons_of(recipe, config, run, models, run, train, config.labels)


@pytest.mark.parametrize("name", ["dpo.demonstrations", "dpo-preferences"])
def test_training_starts_and_refers_as_declared(compared: Project, name: str) -> None:
    """The first loss, over all pairs, is that of the declared policies' log-probabilities."""
    recipe = compared.recipe()
    models = Pipeline(recipe).models
    (config,) = (each for each in recipe.baselines if each.name == name)
    assert config.method == "dpo"
    pairs, _ = token_pairs(models.backbone().tokenizer, _pairs_of(compared, name), name, 128)
    start = reference_logprobs(models.policy(config.start), pairs)
    reference = reference_logprobs(models.policy(config.relative_to), pairs)
    margins = config.beta * (start - reference) @ [1, -1]
    noted = json.loads((compared.run / "baseline" / name / "training.json").read_text())
    assert noted["steps"] == 1
    assert noted["pairs"] == len(pairs)
    assert noted["losses"] == pytest.approx([np.logaddexp(0, -margins).mean()], rel=1e-4)
    assert (config.start, config.relative_to) in {("initial", "sft"), ("sft", "sft")}
    if config.start != config.relative_to:
        assert abs(noted["losses"][0] - np.log(2)) > 1e-3


def test_whose_samples_are_labelled(compared: Project) -> None:
    said = {
        policy: {
            line["completion"] for line in lines_of(compared.run / "rollouts" / f"{policy}.jsonl")
        }
        for policy in ("initial", "sft")
    }
    pairs = _pairs_of(compared, "dpo-preferences")
    assert {side.completion for p in pairs for side in (p.positive, p.negative)} <= said["initial"]
    assert len(lines_of(compared.run / "rollouts" / "initial.jsonl")) == 2 * 18


def test_only_what_changed_runs_again(compared: Project) -> None:
    last = ["best-of-n", "evaluation"]
    plain = compared.plain["baselines"]

    def edited(place: int, **changes: Any) -> dict[str, Any]:
        return {
            "baselines": [each | changes if i == place else each for i, each in enumerate(plain)]
        }

    assert stale(compared, {}) == []
    own = ["baseline/dpo-preferences", "baseline-rollouts/dpo-preferences"]
    assert stale(compared, edited(2, beta=0.2)) == [*own, *last]
    assert stale(compared, edited(2, samples=3)) == [own[1], *last]
    assert stale(compared, {"baselines": plain[:2]}) == ["rollouts", *_after_rollouts(), *last]
    assert stale(compared, {"baselines": plain[1:]}) == ["rollouts", *_after_rollouts(1), *last]
    added = {"method": "sft", "name": "more", "positives": "demonstrations", **ALL_AT_ONCE}
    assert stale(compared, {"baselines": [*plain, added]}) == [
        *("baseline/more", "baseline-rollouts/more"),
        *last,
    ]


def _after_rollouts(first: int = 0) -> list[str]:
    names = NAMES[first : first + 2]
    stages = [f"{kind}/{n}" for n in names for kind in ("baseline", "baseline-rollouts")]
    return ["reward/init-sft", *stages]


def test_full_fine_tuning_and_files(project: Project) -> None:
    """Whole models one at a time, preferences from a file, an own prompt answered."""
    pairs = jsonl(project.folder / "pairs.jsonl", preferences())
    entries = [
        {"method": "sft", "name": "sft-preferred", "preferences": str(pairs), **ALL_AT_ONCE},
        {
            **{"method": "dpo", "name": "dpo-preferences", "preferences": str(pairs)},
            **{**ALL_AT_ONCE, "start": "sft"},
        },
    ]
    changes = {"model.adapter.kind": "none", "baselines": entries}
    Pipeline(project.recipe(changes)).advance("baseline-rollouts")
    noted = json.loads((project.run / "baseline/dpo-preferences/training.json").read_text())
    assert noted["losses"] == pytest.approx([np.log(2)], abs=1e-4)
    sft, trained = (
        Policy.load(project.run / place) for place in ("sft", "baseline/dpo-preferences")
    )
    assert trained.adapter is None
    parts = [dict(policy.backbone.causal.named_parameters()) for policy in (sft, trained)]
    assert any(not value.equal(parts[1][name]) for name, value in parts[0].items())
    asked = jsonl(project.folder / "asked.jsonl", [{"prompt": "Is lamp 3 on?"}])
    out = project.folder / "answers.jsonl"
    said = cli(
        *("best-of-n", project.file(changes), "--prompts", asked, "--output", out),
        *("--n", 2, "--policy", "dpo-preferences"),
    )
    assert said.status == 0, said.err
    assert [line["policy"] for line in lines_of(out)] == ["dpo-preferences"]


def test_two_policies_from_elsewhere_are_not_taken_for_each_other(
    compared: Project, tmp_path: Path
) -> None:
    first, second = (f"policy:{compared.run / 'baseline' / name}" for name in NAMES[:2])
    recipe = compared.recipe({"reward": [{"positives": first, "negatives": second}]})
    train, _ = read_data(compared.run / "demonstrations")
    models = Pipeline(recipe).models
    pairs = comparisons_of(recipe, recipe.reward[0], compared.run, models, tmp_path, train)
    assert any(pair.positive != pair.negative for pair in pairs)
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {
        *("positives.jsonl", "negatives.jsonl")
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "dpo", "name": "x", "betta": 1}, r"baselines\.0\.betta: .* mean 'beta'"),
        (
            {"method": "dpq", "name": "x"},
            r"baselines\.0\.method: .*kto, spin, found 'dpq'; did you",
        ),
        ({"name": "x"}, r"baselines\.0\.method: must be one of sft, dpo, kto, spin, found ''"),
        ({"method": "sft", "name": "sft", "preferences": "golden"}, "that of another policy"),
        ({"method": "sft", "name": "x"}, "preferences: give the file"),
        (
            {"method": "sft", "name": "x", "positives": "sft", "preferences": "golden"},
            "preferences: used only with preferred or dispreferred answers, found sft",
        ),
        (
            {"method": "dpo", "name": "x", "positives": "sft", "negatives": "sft"},
            "must differ, found 'sft' as both",
        ),
        (
            {"method": "dpo", "name": "x", "negatives": "sft", "preferences": "golden"},
            "preferred and dispreferred belong together",
        ),
        (
            {"method": "dpo", "name": "x", "preferences": "golden", "label_smoothing": 0.1},
            "label_smoothing: belongs to loss: robust, found loss: sigmoid",
        ),
        (
            {"method": "dpo", "name": "x", "preferences": "a.jsonl", "labels": "initial"},
            "labels: says whose samples",
        ),
    ],
)
def test_what_is_refused(project: Project, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        project.recipe({"baselines": [entry]})


def test_what_does_not_fit_together_is_refused(project: Project) -> None:
    first = {"method": "sft", "name": "x", "preferences": "golden"}
    with pytest.raises(RecipeError, match="names must differ, found 'x-greedy' twice"):
        project.recipe({"baselines": [first, {**first, "name": "x-greedy"}]})
    with pytest.raises(RecipeError, match=r"baselines\.preferences: golden needs evaluation"):
        project.recipe({"baselines": [first], "evaluation.golden": None})
    served = {"engine": "openai", "endpoint": {"base_url": "http://localhost:1/v1"}}
    with pytest.raises(RecipeError, match=r"baselines: are trained and sampled here"):
        project.recipe({"baselines": [first], "rollouts": served})
