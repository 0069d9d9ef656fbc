"""A judge on what a stored run said on its test prompts.

Below the run's folder::

    judge/responses.jsonl        every reply of any judge, by a key of all that could change it
    judge/NAME/pairs.jsonl       a comparison: each pair and control, what the judge said, verdicts
    judge/NAME/summary.json      what `demoalign judge --json` prints
    judge/NAME/results.json      the same numbers as metrics

The last three appear when a comparison is finished; replies are stored as they come.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.config import JudgeConfig, Recipe, load_recipe
from demoalign.endpoints.backoff import Backoff
from demoalign.endpoints.cost import Estimate
from demoalign.errors import RecipeError, StoreError
from demoalign.evaluation.judge import Asked, Judge, Outcome, Pair, Template, load_template
from demoalign.evaluation.judge import control_pairs as controls_of
from demoalign.evaluation.judge.pairs import PAIR
from demoalign.evaluation.judge.summary import (
    Share,
    judge_metrics,
    measure,
    measure_agreement,
    measure_controls,
)
from demoalign.pipeline.goldens import ORACLE
from demoalign.pipeline.measure import test_rows
from demoalign.pipeline.resolve import resolve_lab
from demoalign.pipeline.sides import DEMONSTRATIONS, Side, Stored
from demoalign.records import Metric
from demoalign.store import Run, settings_of, write_json, write_text

FOLDER = "judge"
RESPONSES = "responses.jsonl"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
PRESSURE = frozenset({"concurrency", "retries", "timeout", "price"})
"""Settings that do not change what is asked."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be compared, as flags say it: policy, selector and n of each side."""

    policy: tuple[str, str, int | None]
    against: tuple[str, str, int | None]


class Judging:
    """A comparison of a stored run, checked and ready to be judged.

    Args:
        run: folder of the run.
        config: the judge.
        wanted: what to compare.
        name: folder of the results below ``judge/``; made of sides and judge by default.
        backoff: how long to wait before asking again.

    Raises:
        DemoalignError: the run is not finished, a side is not there, or the template is unusable.
    """

    def __init__(
        self,
        run: Path,
        config: JudgeConfig,
        wanted: Comparison,
        name: str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.recipe, self.run, self.config = stored_recipe(run), run, config
        self.template = load_template(config.template, config.criterion)
        rows = test_rows(self.recipe, run)
        stored = Stored(self.recipe, run, rows)
        self.policy = stored.side(*wanted.policy, flag="policy")
        self.against = stored.side(*wanted.against, flag="against")
        if self.policy == self.against:
            raise RecipeError(
                f"--against: must be another side than --policy, found {self.policy.label} twice. "
                "How the judge treats an answer against itself is among the controls."
            )
        rows = rows[: config.prompts]
        first, second = (stored.answers(side)[: len(rows)] for side in (self.policy, self.against))
        real = stored.answers(Side(DEMONSTRATIONS, "none", 1))[: len(rows)]
        prompts = [(row.id, row.prompt) for row in rows]
        self.pairs = [Pair(*p, a, b) for p, a, b in zip(prompts, first, second, strict=True)]
        shown = [Pair(*p, a, a) for p, a in zip(prompts, real, strict=True)]
        self.pairs += controls_of(shown, config.controls)
        self.golden, self.stages = stored.golden(), stored.stages
        if name is not None and not NAME.fullmatch(name):
            raise RecipeError(
                f"--name: must be letters, digits, '.', '_' and '-', the first a letter or digit, "
                f"found {name!r}"
            )
        self.name = name or _name(self.policy, self.against, config, self.template)
        self._judge = Judge(config, self.template, run / FOLDER / RESPONSES, backoff)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run / FOLDER / self.name

    def estimate(self) -> Estimate:
        """What it will cost at most; asks and writes nothing."""
        return self._judge.estimate(self.pairs)

    def judge(self) -> Json:
        """Ask what is not stored, write the results, and return the summary.

        Raises:
            EvaluationError: the judge cannot be asked; the replies that came are stored.
            StoreError: another process judges this run.
        """
        with Run(self.run / FOLDER).locked():
            asked = self._judge.judge(self.pairs)
            summary, metrics = self._results(asked)
            lines = [json.dumps(_line(each), ensure_ascii=False) for each in asked.outcomes]
            write_text(self.folder / "pairs.jsonl", "".join(line + "\n" for line in lines))
            results = {
                "schema": 1,
                "run": self.recipe.name,
                "judge": summary["judge"],
                "stages": self.stages,
                "metrics": [dataclasses.asdict(metric) for metric in metrics],
            }
            write_json(self.folder / "results.json", results)
            write_json(self.folder / "summary.json", summary)
        now = {**dataclasses.asdict(asked.now), "asked_again": asked.again}
        return {**summary, "now": now, "folder": str(self.folder)}

    def _results(self, asked: Asked) -> tuple[Json, list[Metric]]:
        real = [each for each in asked.outcomes if each.pair.kind == PAIR]
        shares, controls = measure(real), measure_controls(asked.outcomes)
        golden = {name: measure_agreement(real, found) for name, found in self.golden.items()}
        metrics = judge_metrics(shares, self._metric)
        for kind, found in controls.items():
            metrics += judge_metrics({f"{kind}_{k}": v for k, v in found.items()}, self._control)
        for name, found in golden.items():
            named = name.replace(ORACLE, "judge_golden_agreement", 1)  # golden:NAME keeps its name
            metrics.append(self._metric(named, found["agreement"]))
        summary = {
            "policy": self.policy.label,
            "against": self.against.label,
            **_contract(shares, real),
            **{name: dataclasses.asdict(shares[name]) for name in MORE},
            "controls": {kind: _plain(found) for kind, found in controls.items()},
            "golden": {name: _plain(found) for name, found in golden.items()},
            "judge": _described(self.config, self.template),
            "cost": dataclasses.asdict(asked.cost),
            "stages": self.stages,
        }
        return summary, metrics

    def _metric(self, name: str, share: Share) -> Metric:
        side, seed = self.policy, self.recipe.seed
        return Metric(
            name, side.policy, side.selector, side.n, share.value, share.ci95, share.count, seed,
            share.unit, self.against.label, share.reason,
        )  # fmt: skip

    def _control(self, name: str, share: Share) -> Metric:
        return Metric(
            name.replace("judge_", "judge_control_", 1), DEMONSTRATIONS, "none", 1, share.value,
            share.ci95, share.count, self.recipe.seed, share.unit, None, share.reason,
        )  # fmt: skip


CONTRACT = ("win", "tie", "lose", "flip_rate", "unparseable", "refused")
MORE = ("win_rate", "net", "identical", "first_position", "single_order_win_rate")


def stored_recipe(run: Path) -> Recipe:
    """The recipe that a run has stored.

    Raises:
        StoreError: the folder is not a run's.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        raise StoreError(
            f"{run}: must be the folder of a run, such as runs/NAME, found no recipe.yaml in it. "
            "`demoalign run` makes one."
        )
    return resolve_lab(load_recipe(path))


def _contract(shares: Mapping[str, Share], outcomes: Sequence[Outcome]) -> Json:
    """What every script may rely on: fractions, their intervals, and the counts behind them."""
    results = [each.result for each in outcomes]
    judged = sum(each.is_judged for each in outcomes)
    counts: Json = {name: results.count(name) for name in ("win", "tie", "lose")}
    counts |= {
        "flipped": sum(each.is_flipped for each in outcomes),
        "identical": sum(each.verdicts is None for each in outcomes),
        **{name: results.count(name) for name in ("unparseable", "refused")},
    }
    return {
        **{name: shares[name].value for name in CONTRACT},
        "ci95": {name: shares[name].ci95 for name in CONTRACT},
        "count": judged,
        "pairs": len(outcomes),
        "counts": counts,
        "reason": shares["win"].reason,
    }


def _plain(shares: Mapping[str, Share]) -> Json:
    return {name: dataclasses.asdict(share) for name, share in shares.items()}


def _described(config: JudgeConfig, template: Template) -> Json:
    """Who was asked what, without how hard the server was pressed."""
    settings = {key: value for key, value in settings_of(config).items() if key not in PRESSURE}
    return {**settings, "template": template.text, "file": config.template}


def _name(policy: Side, against: Side, config: JudgeConfig, template: Template) -> str:
    """A folder's name that tells the comparison, and differs where anything else differs."""
    described = _described(config, template)
    described.pop("file")
    key = json.dumps([described, policy.label, against.label], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    sides = [each.label.replace("/", ".") for each in (policy, against)]
    text = f"{sides[0]}-vs-{sides[1]}-by-{config.model}"
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', text)[:120]}-{digest}"


def _line(outcome: Outcome) -> Json:
    pair = outcome.pair
    return {
        "kind": pair.kind,
        "prompt_id": pair.prompt_id,
        "first": dataclasses.asdict(pair.first),
        "second": dataclasses.asdict(pair.second),
        "verdicts": outcome.verdicts,
        "said": list(outcome.said),
        "result": outcome.result,
        "flipped": outcome.is_flipped,
    }
