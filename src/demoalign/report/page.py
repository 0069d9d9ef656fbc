"""`RunResults` -> one self-contained HTML file: no network, nothing from data is markup."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from demoalign.errors import StoreError
from demoalign.report import charts, tables, yardsticks
from demoalign.report.answers import give_answers
from demoalign.report.benchmarks import benchmark_table
from demoalign.report.follows import what_rewards_follow
from demoalign.report.frontier import give_frontier
from demoalign.report.heterogeneity import give_advice
from demoalign.report.judge import give_judgements
from demoalign.report.overoptimisation import give_overoptimisation
from demoalign.report.preferences import preference_sections
from demoalign.report.read import Candidate, RunResults, Sample, read_run
from demoalign.report.training import give_training
from demoalign.report.verdict import give_verdict, main_n, main_reward_model
from demoalign.report.wins import give_matrix
from demoalign.report.words import (
    in_order,
    policy_name,
    stage_name,
    write,
    write_seconds,
)

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder from what is stored there, and return its path.

    Any part of the run may be missing: the page then says so. The same stored files give the
    same bytes. The file appears whole or not at all.

    Raises:
        StoreError: ``run`` is not a folder, or the page cannot be written into it.
    """
    page = render(read_run(run))
    path = run / "report.html"
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"report: cannot write {path}: {error.strerror or error}.") from error
    return path


def render(run: RunResults) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        policy=policy_name, stage=stage_name, seconds=write_seconds, number=write
    )
    script = (HERE / "browser.js").read_text(encoding="utf-8")
    return environment.get_template("template.html").render(
        run=run,
        csp=POLICY.format(b64encode(hashlib.sha256(script.encode()).digest()).decode()),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        samples=Markup(embed(_samples(run))),
        **_words(run),
        **_charts(run),
    )


def _words(run: RunResults) -> Mapping[str, object]:
    prompts = max((m.count for m in run.metrics if m.metric == "golden_reward"), default=0)
    return {
        "verdict": give_verdict(run),
        "advice": give_advice(run),
        "follows": what_rewards_follow(run),
        "overoptimisation": give_overoptimisation(run),
        "judge": give_judgements(run),
        "training": give_training(run),
        "n": main_n(run),
        "prompts": prompts,
        "tiles": tables.tiles(run),
        "facts": tables.facts(run),
        "environment": tables.environment(run),
        "main": tables.main_table(run),
        "trust": tables.trust_table(run),
        "answers": give_answers(run),
        "others": yardsticks.other_golden_rewards(run),
        "length": yardsticks.length_table(run),
        "length_limit": yardsticks.length_limit(run),
        "matrix": give_matrix(run),
        "behind": {
            "Golden reward, normalised": tables.curve_table(
                run, "golden_reward_normalised", "number"
            ),
            "Win rate over greedy decoding": tables.curve_table(
                run, "win_rate_over_greedy", "percent"
            ),
            "Own reward": tables.curve_table(run, "proxy_reward", "number"),
        },
        "seeds": tables.seeds_of(run),
        "total_seconds": _total_seconds(run),
    }


def _total_seconds(run: RunResults) -> float | None:
    measured = [stage.seconds for stage in run.stages if stage.seconds is not None]
    return sum(measured) if measured and len(measured) == len(run.stages) else None


def _charts(run: RunResults) -> Mapping[str, object]:
    return {
        "overview": (charts.policies(run), charts.gains(run)),
        "by_n": (charts.golden_curve(run, by_kl=False), charts.win_curve(run, by_kl=False)),
        "by_kl": (charts.golden_curve(run, by_kl=True), charts.win_curve(run, by_kl=True))
        if charts.kl_by_n(run)
        else (),
        "frontier": give_frontier(run),
        "proxies": charts.proxy_charts(run),
        "rewards": charts.reward_charts(run),
        "preference_sets": preference_sections(run),
        "benchmarks": benchmark_table(run),
        "swatches": charts.swatches(run),
        "places": {name: place for place, name in enumerate(charts.looks(run))},
    }


def embed(value: object) -> str:
    """JSON that is inert inside a ``<script>``: ASCII only, no ``<``, ``>`` or ``&``."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _samples(run: RunResults) -> Mapping[str, object]:
    """What the browser of sample prompts reads; see browser.js."""
    scored = {name for s in run.samples for c in s.candidates for name in c.scores}
    chosen = {name for sample in run.samples for name in sample.chosen}
    return {
        "selectors": in_order(scored | chosen),
        "first": main_reward_model(run),
        "samples": [_sample(sample) for sample in run.samples],
    }


def _sample(sample: Sample) -> Mapping[str, object]:
    return {
        "id": sample.prompt_id,
        "prompt": sample.prompt,
        "demonstration": sample.demonstration,
        "greedy": sample.greedy,
        "chosen": sample.chosen,
        "candidates": [_candidate(candidate) for candidate in sample.candidates],
    }


def _candidate(candidate: Candidate) -> Mapping[str, object]:
    return {
        "text": candidate.completion,
        "tokens": candidate.tokens,
        "cut": candidate.finish_reason == "length",
        "golden": candidate.golden,
        "scores": {k: None if v is None else round(v, 4) for k, v in candidate.scores.items()},
    }
