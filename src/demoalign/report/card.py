"""Model cards: a README.md with what a run has stored on one of its models. Nothing is measured.

A card holds counts, settings and metrics, never a prompt, an answer or a path of this machine: what
is shared is shared because somebody asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from demoalign.config import Section, parse_recipe, trained_policy
from demoalign.errors import RecipeError, StoreError
from demoalign.records import Metric
from demoalign.report.read import RunResults, read_run
from demoalign.report.stored import Json, Problems, mapping_of, read_json, text_of
from demoalign.report.verdict import give_verdict
from demoalign.report.words import decoded_name, write, write_interval
from demoalign.store import CARD, write_text

POLICIES = ("sft", "policy")
"""Folders of policies below a run."""

SHOWN = ("golden_reward", "golden_reward_normalised", "win_rate_over_greedy", "kl")
JUDGED = ("heldout_accuracy", "heldout_log_loss", "heldout_calibration_error")
RELATED = ("golden_correlation", "length_correlation")

CHOOSES = """\
```python
import demoalign as da

reward = da.RewardModel.load("{place}")
reward.score(["How do I reset it?"], [" Hold the button."])  # array of shape (1,)
```
It also loads with `AutoModelForSequenceClassification` (`num_labels=1`)."""
ANSWERS = """\
```python
import demoalign as da

policy = da.Policy.load("{place}")
```
It also loads with `AutoModelForCausalLM`."""


def write_cards(run: Path) -> list[Path]:
    """A card for every policy and reward model that a run has stored; where they are."""
    results = read_run(run)
    written = []
    for folder in model_folders(run):
        write_text(folder / CARD, card(results, run, folder))
        written.append(folder / CARD)
    return written


def model_folders(run: Path) -> list[Path]:
    """The folders of a run that hold a model."""
    places = [run / name for name in POLICIES]
    places += sorted((run / "baseline").glob("*")) + sorted((run / "reward").glob("*"))
    return [place for place in places if _is_model(place)]


def run_of(folder: Path) -> Path | None:
    """The run that a model's folder belongs to, None if it belongs to none."""
    whole = folder.resolve()
    for run in whole.parents[:3]:
        if (run / "recipe.yaml").is_file() and whole in [each.resolve() for each in _known(run)]:
            return run
    return None


def card(results: RunResults, run: Path, folder: Path, merged: Path | None = None) -> str:
    """The text of a model's card.

    Args:
        results: what the run has stored.
        run: its folder.
        folder: the model's, below it.
        merged: where the adapter was merged into the base, if it was and the card is for that.

    Raises:
        StoreError: the folder is none of the run's models.
    """
    kind, _, name = folder.resolve().relative_to(run.resolve()).as_posix().partition("/")
    if kind not in (*POLICIES, "baseline", "reward"):
        raise StoreError(f"card: {folder} is no model of the run {run}")
    title = name.partition("/")[0] or (kind if kind == "sft" else _improved(results))
    is_reward = kind == "reward"
    is_adapter = merged is None and (folder / "adapter_config.json").is_file()
    front = _front(results, is_reward=is_reward, is_adapter=is_adapter)
    what = f"reward model {title}" if is_reward else f"policy {title}"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {results.name}: {what}\n",
        _summary(results, title, is_reward=is_reward, is_adapter=is_adapter),
        (CHOOSES if is_reward else ANSWERS).format(place=(merged or folder).name) + "\n",
        f"## Data\n{_data(results, run)}",
        f"## Settings\n{_settings(results, kind, title)}",
        f"## Results\n{_reward_results(results, title) if is_reward else _results(results, title)}",
        f"## Limits\n{_limits(results, title, is_reward=is_reward)}",
    ]
    return "\n".join(parts)


def _improved(run: RunResults) -> str:
    """What results call the policy that the recipe's way of improving has trained."""
    try:
        return trained_policy(parse_recipe(run.recipe).improve) or "policy"
    except RecipeError:  # written by another version
        return "policy"


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("adapter_config.json", "config.json"))


def _known(run: Path) -> list[Path]:
    members = sorted((run / "reward").glob("*/member-*"))
    return [*model_folders(run), *(each for each in members if _is_model(each))]


def _front(run: RunResults, *, is_reward: bool, is_adapter: bool) -> dict[str, object]:
    """Front matter as the hub reads it; local folders are no ids and stay out."""
    base = text_of(mapping_of(run.recipe.get("model")).get("base"))
    source = text_of(mapping_of(run.recipe.get("demonstrations")).get("source"))
    front: dict[str, object] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-classification" if is_reward else "text-generation",
        "tags": ["demoalign", "alignment-from-demonstrations"],
    }
    if _is_hub_id(base):
        front["base_model"] = base
    if _is_hub_id(source):
        front["datasets"] = [source.partition("@")[0].partition(":")[0]]
    if is_reward:
        front["tags"] = ["demoalign", "alignment-from-demonstrations", "reward-model"]
    return front


def _is_hub_id(name: str) -> bool:
    """Whether a name can only be the hub's: a folder may have a path of any form."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name
    return not is_path and not name.lower().endswith(DATA_FILES) and not Path(name).exists()


def _shown(name: str) -> str:
    """A source without the folders of this machine."""
    return name if _is_hub_id(name) else (name.rstrip("/").rpartition("/")[2] or name)


def _summary(run: RunResults, title: str, *, is_reward: bool, is_adapter: bool) -> str:
    base = _shown(text_of(mapping_of(run.recipe.get("model")).get("base"), "not stored"))
    form = f"A PEFT adapter on `{base}`" if is_adapter else f"Whole weights, made from `{base}`"
    entry = _entry(run, "reward", title)
    if is_reward:
        sides = f"{text_of(entry.get('positives'))} as positives, {text_of(entry.get('negatives'))}"
        return f"{form}. Reward learned by demoalign from {sides} as negatives.\n"
    return f"{form}. Trained by demoalign from demonstrations.\n"


def _data(run: RunResults, folder: Path) -> str:
    problems = Problems()
    found = read_json(folder / "demonstrations" / "summary.json", problems, "summary.json")
    summary = mapping_of(found)
    section = mapping_of(run.recipe.get("demonstrations"))
    if not summary:
        return "Not stored.\n"
    rows = [
        ("source", f"`{_shown(text_of(section.get('source')))}`"),
        ("format", text_of(summary.get("format"))),
        ("demonstrations to train on", text_of(summary.get("train"))),
        ("demonstrations to test on", text_of(summary.get("test"))),
        ("rows left out", text_of(summary.get("rejected"))),
    ]
    for side in ("prompt_tokens", "completion_tokens"):
        lengths = mapping_of(summary.get(side))
        label = side.replace("_", " ")
        rows.append((label, f"median {lengths.get('median')}, longest {lengths.get('maximum')}"))
    return _table(("", ""), rows)


def _settings(run: RunResults, kind: str, title: str) -> str:
    """The model's section of the recipe, with the base's and the sampling's."""
    section = {"policy": "improve"}.get(kind, kind)
    chosen = _entry(run, {"baseline": "baselines"}.get(section, section), title)
    whole: dict[str, Json] = {"seed": run.recipe.get("seed")}
    model = dict(mapping_of(run.recipe.get("model")))
    model["base"] = _shown(text_of(model.get("base")))
    whole |= {"model": model, section: _private(chosen)}
    whole["rollouts"] = _private(mapping_of(run.recipe.get("rollouts")))
    text = yaml.safe_dump(_without_null(whole), sort_keys=False)
    versions = mapping_of(run.environment.get("packages"))
    used = [f"{name} {text_of(versions[name])}" for name in versions if versions[name]]
    said = [f"demoalign {text_of(run.environment.get('demoalign'))}", *used]
    return f"```yaml\n{text}```\nMade with {', '.join(said)}.\n"


def _entry(run: RunResults, section: str, title: str) -> Mapping[str, Json]:
    """A section of the recipe, or that of its entries which has the name."""
    try:
        recipe = parse_recipe(run.recipe)
    except RecipeError:  # written by another version; the card then has no settings of it
        return {}
    entries: dict[str, Mapping[str, Section]] = {
        "reward": {each.title: each for each in recipe.reward},
        "baselines": {each.name: each for each in recipe.baselines},
    }
    found = entries[section].get(title) if section in entries else getattr(recipe, section, None)
    return {} if found is None else mapping_of(found.model_dump(mode="json"))


DATA_FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz")

PRIVATE = ("preferences", "positives", "negatives", "include")
"""Keys whose values may be paths."""


def _private(section: Mapping[str, Json]) -> dict[str, Json]:
    return {key: _hidden(key, value) for key, value in section.items() if key != "endpoint"}


def _hidden(key: str, value: Json) -> Json:
    """A value without folders of this machine, and so all that is in it."""
    if isinstance(value, Mapping):
        return _private(value)
    if isinstance(value, list | tuple):
        return [_hidden(key, item) for item in value]
    return _shown(value) if key in PRIVATE and isinstance(value, str) else value


def _without_null(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _results(run: RunResults, policy: str) -> str:
    """Means of the policy's samples and greedy answers, beside the initial policy's."""
    others = ("initial", "sft", "demonstrations")
    known = dict.fromkeys((policy, *others))
    found = [
        metric
        for metric in run.metrics
        if metric.metric in SHOWN and metric.n == 1 and metric.policy in known
        if metric.selector in ("none", "greedy")
    ]
    return _metrics(found)


def _reward_results(run: RunResults, title: str) -> str:
    """How it does on held-out pairs, what it follows, and what it chooses."""
    own = [m for m in run.metrics if m.selector == title and m.metric in (*JUDGED, *RELATED)]
    chosen = [
        m for m in run.metrics if m.selector == title and m.metric == SHOWN[0] and not m.against
    ]
    sets = [
        m
        for m in run.metrics
        if m.selector == title and m.metric in ("preference_accuracy", "rewardbench_score")
    ]
    return _metrics([*own, *sets, *chosen])


def _metrics(metrics: Sequence[Metric]) -> str:
    if not metrics:
        return "Not measured: the run has stored no evaluation of this model.\n"
    rows = []
    for metric in metrics:
        value = f"not measured: {metric.reason or 'no reason was stored'}"
        if metric.value is not None:
            value = write(metric.value)
        unit = metric.unit + (f", against {metric.against}" if metric.against else "")
        name = decoded_name(metric.policy, metric.selector)
        who = name if metric.n == 1 and metric.selector in ("none", "greedy") else metric.policy
        interval = write_interval(metric.ci95) or ""
        rows.append((metric.metric, who, str(metric.n), value, interval, str(metric.count), unit))
    columns = ("metric", "policy", "best of", "value", "95 % interval", "prompts or pairs", "unit")
    return _table(columns, rows)


def _limits(run: RunResults, title: str, *, is_reward: bool) -> str:
    said = [
        "One training with one seed: intervals are over prompts, and trainings differ, too.",
        "Measured on the run's own test prompts; elsewhere nothing is known.",
        "Licences and terms of the base model and of the data hold; the run does not know them.",
    ]
    if not run.has_golden:
        said.append("No golden reward was measured: nothing here says that answers are better.")
    if is_reward:
        said.append(
            "A reward tells its two sources apart. Scores compare answers to one prompt, by the "
            "policies that it was trained on; much optimisation against it may fool it."
        )
    else:
        said.append("Answers may be wrong, harmful or biased, as the demonstrations and base are.")
    said += [each for each in give_verdict(run).warnings if not is_reward or title in each]
    return "".join(f"- {each}\n" for each in said)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[each.replace("|", "\\|").replace("\n", " ") for each in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
