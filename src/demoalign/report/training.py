"""The page's section on how the policy was trained: why it ended, what was kept, and the rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from demoalign.report.charts import Chart
from demoalign.report.ended import how_it_ended
from demoalign.report.figures import Point
from demoalign.report.maximised import Maximised, what_is_maximised
from demoalign.report.panels import Panel, draw_panel
from demoalign.report.read import RunResults
from demoalign.report.stored import number_of, text_of, whole_of
from demoalign.report.tables import Row, Table, table_of
from demoalign.report.trainings import Noted, Trained
from demoalign.report.words import (
    NOT_APPLICABLE,
    Cell,
    Style,
    spoken_name,
    write,
    write_interval,
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of checks or rounds.

    Attributes:
        name: where it is stored.
        title: for the reader.
        unit: of it.
        style: how it is written.
        colour: how it is drawn.
        absent: why it may not be there; empty for what is then not spoken of.
        in_rounds: whether every round has it on the same scale.
    """

    name: str
    title: str
    unit: str
    style: Style = "number"
    colour: str = "policy"
    absent: str = ""
    in_rounds: bool = True


FACTS = (
    Measure("kl", "KL from SFT", "nats an answer"),
    Measure("entropy", "Entropy", "nats a token"),
    Measure("tokens", "Length", "tokens", "tokens"),
    Measure("distinct", "Distinct pairs", "of neighbouring words", "percent", in_rounds=False),
    Measure(
        "greedy_distinct",
        "Distinct pairs of greedy answers",
        "within each of them",
        "percent",
        in_rounds=False,
    ),
    Measure("cut", "Does not end", "share of answers", "percent"),
)
DISCRIMINATOR = (
    Measure(
        "discriminator_accuracy",
        "Discriminator's accuracy",
        "on the round's pairs, before it learns",
        "percent",
    ),
    Measure(
        "discriminator_calibration",
        "Discriminator's calibration error",
        "on the same pairs",
        "percent",
    ),
)


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """Sentences, charts and tables.

    Attributes:
        policy: what was trained, as a sentence names it.
        unit: ``round`` or ``iteration``.
        said: how it ended, what was kept, and what to make of it.
        views: charts of the rewards, each on its own scale; for irl of its reward's accuracy, too.
        facts: charts of everything else.
        iterations: of irl; None for other methods.
        checks: the numbers behind the charts.
    """

    policy: str
    unit: str
    said: tuple[str, ...]
    views: tuple[Chart, ...]
    facts: tuple[Chart, ...]
    iterations: Table | None
    checks: Table


def give_training(run: RunResults) -> TrainingSection | None:
    """The section; None where no policy was trained against a reward."""
    found, asked = run.training, what_is_maximised(run.recipe)
    if found is None or not (found.checks or found.rounds):
        return None
    is_irl = any("accuracy" in each.values for each in found.rounds) or found.method == "irl"
    unit = "iteration" if is_irl else "round"
    seen = [each for each in _views(asked) if not (is_irl and each.name == "reward")]
    views = [_chart(found, each, unit) for each in seen]
    facts = [_chart(found, each, unit) for each in FACTS]
    facts += [_by_round(found, each) for each in DISCRIMINATOR]
    return TrainingSection(
        policy=spoken_name(found.method) if found.method else "the policy",
        unit=unit,
        said=how_it_ended(found, asked, unit),
        views=_only([_accuracy(found), *views] if is_irl else views),
        facts=_only(facts),
        iterations=_iterations(found) if is_irl else None,
        checks=_checks(found, (*seen, *FACTS), unit),
    )


def _only(charts: list[Chart | None]) -> tuple[Chart, ...]:
    return tuple(each for each in charts if each is not None)


def _views(asked: Maximised) -> tuple[Measure, ...]:
    """The three that look at answers, each on its own scale."""
    proxy = f"Reward, {asked.reward}" if asked.reward else "Reward"
    if asked.learns:
        proxy = "Discriminator's view"
    witness = f"Witness, {asked.witness}" if asked.witness else "Witness"
    alone = "no check has its view" if asked.witness else "no other reward of the recipe looked on"
    return (
        Measure("reward", proxy, asked.unit, "number", "s0", "no check has it", in_rounds=False),
        Measure(
            "witness", witness, "own scale", "number", "s2",
            alone, in_rounds=False,
        ),
        Measure(
            "golden", "Golden reward", "own scale; decides nothing", "number", "oracle",
            "the recipe names no golden reward", in_rounds=False,
        ),
    )  # fmt: skip


def _chart(found: Trained, measure: Measure, unit: str) -> Chart | None:
    """Of the checks; nothing for a fact that no check has."""
    points = _points(found.checks, measure.name)
    if not points:
        return Chart(measure.title, f"Not measured: {measure.absent}.") if measure.absent else None
    is_shared = measure.in_rounds and unit == "round"
    faint = _points(found.rounds, measure.name) if is_shared else []
    panel = Panel(points, faint, measure.colour, found.best, percent=measure.style == "percent")
    drawn = _draw(f"by-{unit}-{measure.name}", measure, panel, unit)
    return Chart(measure.title, _caption(measure), drawn)


def _by_round(found: Trained, measure: Measure) -> Chart | None:
    points = _points(found.rounds, measure.name)
    if not points:
        return None
    half = 0.5 if measure.name.endswith("accuracy") else None
    panel = Panel(points, (), "s3", found.best, half, percent=True)
    drawn = _draw(f"by-round-{measure.name}", measure, panel, "round")
    return Chart(measure.title, _caption(measure), drawn)


def _caption(measure: Measure) -> str:
    return measure.unit[:1].upper() + measure.unit[1:]


def _accuracy(found: Trained) -> Chart:
    """How well the reward of each iteration tells held-out demonstrations from samples."""
    title, points = "Reward's accuracy on held-out pairs", _points(found.rounds, "accuracy")
    if not points:
        return Chart(title, "Not measured: policy/rounds.jsonl has no iteration with it.")
    measure = Measure("accuracy", title, "", "percent")
    panel = Panel(points, (), "s0", None, 0.5, percent=True)
    return Chart(
        title,
        "Dotted: nothing to tell",
        _draw("by-iteration-accuracy", measure, panel, "iteration"),
    )


def _points(lines: tuple[Noted, ...], name: str) -> list[Point]:
    return [
        Point(each.round, each.values[name], each.intervals.get(name))
        for each in lines
        if name in each.values
    ]


def _draw(chart: str, measure: Measure, panel: Panel, unit: str) -> str:
    first, last = panel.points[0], panel.points[-1]
    spoken = f"{measure.title}: {write(first.value, measure.style)} in {unit} {first.x:g}"
    if last is not first:
        spoken += f", {write(last.value, measure.style)} in {unit} {last.x:g}"
    return draw_panel(chart, f"{spoken}.", panel, unit)


def _checks(found: Trained, measures: tuple[Measure, ...], unit: str) -> Table:
    """A row for each check, a column for each measure that any of them has."""
    known = [each for each in measures if any(each.name in line.values for line in found.checks)]
    rows = tuple(
        Row(
            f"{unit.capitalize()} {line.round}",
            "kept" if line.round == found.best else "",
            None,
            tuple(_cell(line, each) for each in known),
        )
        for line in found.checks
    )
    return table_of([(each.title, each.unit) for each in known], {"all": rows} if rows else {})


def _cell(line: Noted, measure: Measure) -> Cell:
    if measure.name not in line.values:
        return Cell(reason="the check has no number of it")
    interval = write_interval(line.intervals.get(measure.name), measure.style)
    return Cell(write(line.values[measure.name], measure.style), interval)


def _iterations(found: Trained) -> Table:
    """What each turn of reward and policy came to."""
    columns = (
        ("Reward's accuracy", "held-out pairs"),
        ("Pairs", "held out"),
        ("Policy's rounds", ""),
        ("Kept", "round"),
        ("Stopped", ""),
    )
    rows: list[Row] = []
    notes: list[str] = []
    for line in found.rounds:
        accuracy = Measure("accuracy", "", "", "percent")
        pairs = whole_of(line.values.get("pairs"))
        cells = [_cell(line, accuracy), _text(pairs)]
        if line.step:
            kept = number_of(line.step.get("best"))
            cells += [_text(whole_of(line.step.get("rounds"))), _text(whole_of(kept))]
            why = text_of(line.step.get("stopped"))
            cells.append(Cell(why.partition(":")[0] or "no"))
            if why:
                notes.append(f"Iteration {line.round}, the policy's step stopped: {why}.")
        else:
            cells += [NOT_APPLICABLE] * 3
        rows.append(Row(f"Iteration {line.round}", "", None, tuple(cells)))
    table = table_of(columns, {"all": tuple(rows)} if rows else {})
    return replace(table, notes=(*table.notes, *notes))


def _text(number: int | None) -> Cell:
    return Cell(reason="not stored") if number is None else Cell(str(number))
