"""A run folder's stored files -> one frozen `RunResults`.

Any file may be absent, damaged or incomplete: what could not be read is said in ``problems``,
a number that is absent stays None. Nothing here raises, except when the folder is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from demoalign.errors import StoreError
from demoalign.records import Metric
from demoalign.report.judgements import Judgement, read_judgements
from demoalign.report.results import metrics_of
from demoalign.report.stages import Stage, read_stages
from demoalign.report.stored import (
    Json,
    Problems,
    list_of,
    mapping_of,
    number_of,
    parse_yaml,
    printable,
    read_json,
    read_text,
    text_of,
    whole_of,
)
from demoalign.report.trainings import Trained, read_training

SOURCES = ("initial", "sft", "demonstrations")
GOLDEN_METRICS = (
    "golden_reward",
    "golden_reward_normalised",
    "golden_reward_difference",
    "win_rate_over_greedy",
    "golden_correlation",
)


@dataclass(frozen=True, slots=True)
class SourceRewards:
    """Rewards by one model of one source's completions; three lists of one length."""

    values: tuple[float, ...]
    tokens: tuple[float | None, ...]
    golden: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled completion of a test prompt."""

    completion: str
    tokens: int | None
    finish_reason: str
    golden: float | None
    scores: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Sample:
    """A test prompt with its demonstration, greedy answer and candidates.

    Attributes:
        prompt_id: the demonstration's id.
        prompt: (role, text) of every message; role is "" for a plain prompt.
        demonstration: the demonstrator's answer, or None if not stored.
        greedy: the SFT policy's deterministic answer and its golden reward.
        candidates: in the order they were sampled.
        chosen: selector -> index into ``candidates``.
    """

    prompt_id: str
    prompt: tuple[tuple[str, str], ...]
    demonstration: str | None
    greedy: tuple[str | None, float | None]
    candidates: tuple[Candidate, ...]
    chosen: Mapping[str, int]


Key = tuple[str, str, str, int, str | None]


@dataclass(frozen=True)
class RunResults:
    """Everything the page shows, as stored.

    ``golden`` names the main golden reward, "" if one; ``wins`` says who beats whom;
    ``preferences`` are the sets of evaluation/preferences.json; ``training`` is the policy's.
    """

    name: str
    recipe: Mapping[str, Json]
    recipe_text: str | None
    environment: Mapping[str, Json]
    stages: tuple[Stage, ...]
    metrics: tuple[Metric, ...]
    golden: str
    rewards: Mapping[str, Mapping[str, SourceRewards]]
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]
    judgements: tuple[Judgement, ...] = ()
    wins: tuple[Metric, ...] = ()
    preferences: Sequence[Json] = ()
    training: Trained | None = None

    @cached_property
    def _by_key(self) -> Mapping[Key, Metric]:
        return {(m.metric, m.policy, m.selector, m.n, m.against): m for m in self.metrics}

    def find(
        self, metric: str, policy: str, selector: str, n: int = 1, against: str | None = None
    ) -> Metric | None:
        """The metric stored under exactly these names, with or without a value."""
        return self._by_key.get((metric, policy, selector, n, against))

    def curve(self, metric: str, selector: str, against: str | None = None) -> tuple[Metric, ...]:
        """The SFT policy's measured values of a metric, by increasing n."""
        found = (
            m
            for m in self.metrics
            if (m.metric, m.policy, m.selector, m.against) == (metric, "sft", selector, against)
            and m.value is not None
        )
        return tuple(sorted(found, key=lambda m: m.n))

    @property
    def has_golden(self) -> bool:
        """Whether any golden reward has a value."""
        return any(m.metric == "golden_reward" and m.value is not None for m in self.metrics)


def read_run(run: Path) -> RunResults:
    """Read what is stored in a run folder.

    Raises:
        StoreError: ``run`` is not a folder.
    """
    if not run.is_dir():
        raise StoreError(f"report: {run} is not a run folder. Give the folder of a finished run.")
    problems = Problems()
    recipe_text = read_text(run / "recipe.yaml", problems, "recipe.yaml")
    recipe = mapping_of(parse_yaml(recipe_text or "", problems, "recipe.yaml"))
    evaluation = run / "evaluation"
    results = mapping_of(
        read_json(evaluation / "results.json", problems, "evaluation/results.json")
    )
    if results and results.get("schema") != 1:
        problems.add("evaluation/results.json has an unknown schema; read as schema 1.")
    metrics, golden = _main_golden(tuple(metrics_of(results, problems, "evaluation/results.json")))
    rewards = read_json(evaluation / "rewards.json", problems, "evaluation/rewards.json")
    samples = read_json(evaluation / "samples.json", problems, "evaluation/samples.json")
    return RunResults(
        name=text_of(recipe.get("name")) or text_of(results.get("run")) or printable(run.name),
        recipe=recipe,
        recipe_text=None if recipe_text is None else printable(recipe_text),
        environment={
            **mapping_of(read_json(run / "env.json", problems, "env.json")),
            **_engines(run, problems),
        },
        stages=tuple(read_stages(run, problems)),
        metrics=metrics,
        golden=golden,
        rewards={
            model: _rewards(sources) for model, sources in sorted(mapping_of(rewards).items())
        },
        samples=tuple(_sample(item) for item in list_of(samples) if isinstance(item, dict)),
        judgements=tuple(read_judgements(run, problems)),
        wins=_wins(evaluation / "wins.json", problems),
        preferences=_preference_sets(evaluation, problems),
        training=read_training(run, recipe, problems),
        problems=tuple(problems.found),
    )


def _wins(path: Path, problems: Problems) -> tuple[Metric, ...]:
    """Metrics of the optional file of wins."""
    if not path.is_file():
        return ()
    shown = "evaluation/wins.json"
    return tuple(metrics_of(mapping_of(read_json(path, problems, shown)), problems, shown))


def _preference_sets(evaluation: Path, problems: Problems) -> Sequence[Json]:
    path = evaluation / "preferences.json"
    if not path.exists():
        return ()
    stored = mapping_of(read_json(path, problems, f"evaluation/{path.name}"))
    return tuple(list_of(stored.get("sets")))


def _engines(run: Path, problems: Problems) -> dict[str, Json]:
    """How each file of rollouts was sampled."""
    return {
        f"{path.parent.name}/{path.name.removesuffix('.engine.json')}": read_json(
            path, problems, f"{path.parent.name}/{path.name}"
        )
        for path in sorted(run.glob("rollouts*/*.engine.json"))
    }


def _main_golden(metrics: tuple[Metric, ...]) -> tuple[tuple[Metric, ...], str]:
    """Give the metrics of the first ``golden_reward:NAME`` their plain names, if none is plain."""
    names = [m.metric.partition(":") for m in metrics]
    if any(base == "golden_reward" and not name for base, _, name in names):
        return metrics, ""
    main = next((name for base, _, name in names if base == "golden_reward" and name), "")
    renamed = {f"{base}:{main}": base for base in GOLDEN_METRICS} if main else {}
    return tuple(replace(m, metric=renamed.get(m.metric, m.metric)) for m in metrics), main


def _rewards(sources: Json) -> Mapping[str, SourceRewards]:
    found = {}
    for source, stored in mapping_of(sources).items():
        columns = mapping_of(stored)
        values = [number_of(value) for value in list_of(columns.get("values"))]
        padded = [
            [number_of(item) for item in list_of(columns.get(name))] + [None] * len(values)
            for name in ("tokens", "golden")
        ]
        rows = [
            (value, tokens, golden)
            for value, tokens, golden in zip(values, *padded, strict=False)
            if value is not None
        ]
        if rows:
            found[source] = SourceRewards(
                values=tuple(row[0] for row in rows),
                tokens=tuple(row[1] for row in rows),
                golden=tuple(row[2] for row in rows),
            )
    return found


def _sample(item: Json) -> Sample:
    row = mapping_of(item)
    prompt, greedy = row.get("prompt"), mapping_of(row.get("greedy"))
    messages = [mapping_of(message) for message in list_of(prompt)]
    candidates = tuple(_candidate(candidate) for candidate in list_of(row.get("candidates")))
    chosen = {name: whole_of(i) for name, i in mapping_of(row.get("chosen")).items()}
    return Sample(
        prompt_id=text_of(row.get("prompt_id")),
        prompt=(("", text_of(prompt)),)
        if not messages
        else tuple((text_of(m.get("role")), text_of(m.get("content"))) for m in messages),
        demonstration=_text_or_none(row.get("demonstration")),
        greedy=(_text_or_none(greedy.get("completion")), number_of(greedy.get("golden"))),
        candidates=candidates,
        chosen={k: i for k, i in chosen.items() if i is not None and 0 <= i < len(candidates)},
    )


def _candidate(item: Json) -> Candidate:
    row = mapping_of(item)
    return Candidate(
        completion=text_of(row.get("completion")),
        tokens=whole_of(row.get("tokens")),
        finish_reason=text_of(row.get("finish_reason")),
        golden=number_of(row.get("golden")),
        scores={name: number_of(score) for name, score in mapping_of(row.get("scores")).items()},
    )


def _text_or_none(value: Json) -> str | None:
    return None if value is None else text_of(value)
