"""Write what `demoalign study closed-form` found into docs/closed-form.md and README.md; draw it.

    demoalign study closed-form --seeds 3 --output runs/closed-form
    cp runs/closed-form/results.json docs/results/closed-form.json
    python docs/closed_form.py docs/results/closed-form.json

Every number between the markers of those pages comes from here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pages import Row, head, insert, interval, line, printed_by, read_results, save, with_seeds

HERE = Path(__file__).parent
ROOT = HERE.parent

PLAIN = ("sft", "sft, greedy", "sft, temperature-0.7", "sft, top-p-0.9", "sft, min-p-0.1")
IMPROVED = ("extrapolated", "extrapolated, greedy", "distilled", "distilled, greedy")
TRAINED = ("init-sft", "init-demo", "sft-demo", "preference")
FREE = ("length", "mean-logprob", "sequence-logprob", "golden")
SHORT = ("sft, greedy", "sft, min-p-0.1", "extrapolated", "init-sft", "density-ratio")
COLOURS = {
    "demonstrations": "#777777",
    "sft, greedy": "#000000",
    "sft, min-p-0.1": "#56b4e9",
    "init-sft": "#0072b2",
    "density-ratio": "#d55e00",
    "mean-logprob": "#cc79a7",
    "extrapolated": "#009e73",
    "distilled": "#e69f00",
}


class Study:
    """A study's rows by setting and method."""

    def __init__(self, plain: Row) -> None:
        self.plain = plain
        self.n = int(plain["n"])
        self.rows = {(r["axis"], r["value"], r["method"]): r for r in plain["rows"]}
        self.settings = list(dict.fromkeys((r["axis"], r["value"]) for r in plain["rows"]))
        self.dials = [value for axis, value in self.settings if axis == "dial"]

    def get(self, setting: tuple[str, str], method: str) -> Row | None:
        """The row of a method: of a selector if there is no policy of that name."""
        for name in (method, f"best of {self.n} by {method}"):
            if (*setting, name) in self.rows:
                return self.rows[(*setting, name)]
        return None

    def value(self, setting: tuple[str, str], method: str, key: str = "golden") -> str:
        """A mean with its interval, signed if it is a difference."""
        row = self.get(setting, method)
        if row is None:
            return ""
        found = row[key]
        return interval(found["value"], found["ci95"], sign=key != "golden")


def main() -> None:
    """Read a study's results and write the text and the pictures."""
    study = Study(read_results(__doc__))
    page = HERE / "closed-form.md"
    insert(page, "bar", "\n".join(_bar(study)))
    insert(page, "dials", "\n".join([*_dials(study), "", _basis(study)]))
    insert(page, "forms", "\n".join(_forms(study)))
    insert(page, "decodings", "\n".join(_decodings(study)))
    insert(page, "axes", "\n".join(_axes_table(study)))
    insert(page, "chosen", "\n".join(_chosen(study)))
    insert(page, "outside", "\n".join(_outside(study)))
    insert(ROOT / "README.md", "closed-form", "\n".join([*_readme(study), "", _basis(study)]))
    _draw(study, HERE / "images" / "closed-form.svg")
    sys.stdout.write("\n".join([*_bar(study), "", *_dials(study)]) + "\n")


def _bar(study: Study) -> list[str]:
    """What the defaults gain, paired, with each seed."""
    asked = {
        f"best of {study.n} by density-ratio, minus by init-sft": ("density-ratio", "init_sft"),
        "one extrapolated sample, minus SFT greedy": ("extrapolated", "greedy"),
        "one distilled sample, minus SFT greedy": ("distilled", "greedy"),
    }
    lines = head("golden reward (each seed)", [f"dial {dial}" for dial in study.dials])
    for label, (method, rival) in asked.items():
        cells = []
        for dial in study.dials:
            row = study.get(("dial", dial), method)
            found = None if row is None else row[f"minus_{rival}"]
            cells.append("" if found is None else with_seeds(found))
        lines.append(line(label, cells))
    return lines


def _dials(study: Study) -> list[str]:
    """Every method of the runs at the three dials."""
    lines = head("golden reward", [f"dial {dial}" for dial in study.dials])
    for method in ("initial", "demonstrations", *PLAIN, *IMPROVED):
        lines.append(_across(study, method, method))
    for method in (*TRAINED, "density-ratio", "mixture", *FREE):
        lines.append(_across(study, f"best of {study.n} by {method}", method))
    return lines


def _forms(study: Study) -> list[str]:
    """Forms of the reward on the same candidates."""
    prefix = f"best of {study.n} by ratio: "
    names = [
        r["method"].removeprefix(prefix)
        for r in study.plain["rows"]
        if r["method"].startswith(prefix)
    ]
    lines = head(f"best of {study.n} by", [f"dial {dial}" for dial in study.dials])
    for name in dict.fromkeys(names):
        lines.append(_across(study, name, prefix + name))
    return lines


def _decodings(study: Study) -> list[str]:
    """Ways to decode, and what can be seen of them without a golden reward."""
    rows = {(r["value"], r["decoding"]): r for r in study.plain["strengths"] if r["axis"] == "dial"}
    columns = [f"{what}, dial {d}" for d in study.dials for what in ("golden", "proxy", "cut")]
    lines = head("decoding", columns)
    for name in dict.fromkeys(decoding for _, decoding in rows):
        cells = []
        for dial in study.dials:
            row = rows[dial, name]
            golden = row["golden"]
            proxy = f"{row['proxy']['value']:.1f}" if "proxy" in row else ""
            cut = f"{row['cut']['value']:.0%}".replace("%", " %")
            cells += [interval(golden["value"], golden["ci95"]), proxy, cut]
        lines.append(line(name, cells))
    return lines


def _axes_table(study: Study) -> list[str]:
    """The short list of methods where something else than the dial is varied."""
    columns = ["greedy", "min-p 0.1", "extrapolated", "by init-sft", "by density-ratio"]
    differences = ["extrapolated - greedy", "density-ratio - init-sft"]
    lines = head("dial 0.5 but for what is said", ["seeds", *columns, *differences])
    for setting in study.settings:
        if setting[0] == "dial" and setting[1] != "0.5":
            continue
        seeds = len(study.rows[(*setting, "sft")]["golden"]["by_seed"])
        cells = [str(seeds), *(study.value(setting, method) for method in SHORT)]
        cells.append(study.value(setting, "extrapolated", "minus_greedy"))
        cells.append(study.value(setting, "density-ratio", "minus_init_sft"))
        lines.append(line(f"{setting[0]} {setting[1]}", cells))
    return lines


def _chosen(study: Study) -> list[str]:
    """The strength that is chosen without a golden reward, and the best one."""
    columns = {
        "chosen": ("chosen", "{:g}"),
        "its golden reward": ("golden", "{:.2f}"),
        "best by golden reward": ("best", "{:g}"),
        "the best one's golden reward": ("best_golden", "{:.2f}"),
    }
    return _each_seed(study.plain["chosen"], columns)


def _outside(study: Study) -> list[str]:
    """How much of what the SFT policy says lies outside the initial policy's support."""
    columns = {
        "log-ratio, nats an answer": ("log_ratio", "{:.1f}"),
        "outside": ("log_ratio_outside", "{:.0%}"),
        "tokens outside": ("tokens_outside", "{:.1%}"),
        "support auto, nats": ("support_auto", "{:.2f}"),
    }
    return _each_seed(study.plain["facts"], columns)


def _each_seed(rows: Sequence[Row], columns: Mapping[str, tuple[str, str]]) -> list[str]:
    """Settings with each seed's values; a column is its key and how a value is written."""
    lines = head("each seed", list(columns))
    for row in rows:
        cells = [
            ", ".join(form.format(value).replace("%", " %") for value in row[key])
            for key, form in columns.values()
        ]
        lines.append(line(f"{row['axis']} {row['value']}", cells))
    return lines


def _readme(study: Study) -> list[str]:
    lines = head("golden reward", [f"dial {dial}" for dial in study.dials])
    for method in ("demonstrations", "sft", "sft, greedy", "sft, min-p-0.1", *IMPROVED[::2]):
        lines.append(_across(study, method, method))
    for method in ("init-sft", "density-ratio", "length", "mean-logprob"):
        lines.append(_across(study, f"best of {study.n} by {method}", method))
    return lines


def _basis(study: Study) -> str:
    first, rows = study.plain["first_seed"], study.plain["rows"]
    seeds = len(rows[0]["golden"]["by_seed"])
    return (
        f"Golden reward (at most 7), mean [95 % interval], {seeds} seeds from {first}; intervals "
        "by bootstrap over prompts, which do not include how trainings differ (the seeds show "
        f"that). {printed_by(study.plain)}"
    )


def _across(study: Study, label: str, method: str) -> str:
    return line(label, [study.value(("dial", dial), method) for dial in study.dials])


def _draw(study: Study, path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_dials(study, left)
    _draw_strengths(study, right)
    save(figure, path)


def _draw_dials(study: Study, axes: Axes) -> None:
    for method, colour in COLOURS.items():
        rows = [study.get(("dial", dial), method) for dial in study.dials]
        known = [(float(d), r["golden"]) for d, r in zip(study.dials, rows, strict=True) if r]
        places = [place for place, _ in known]
        values = [found["value"] for _, found in known]
        spread = [[f["value"] - f["ci95"][0] for _, f in known]]
        spread.append([f["ci95"][1] - f["value"] for _, f in known])
        is_selector = known and (study.rows.get(("dial", study.dials[0], method)) is None)
        label = f"best of {study.n} by {method}" if is_selector else method
        style = "--" if is_selector else "-"
        axes.errorbar(places, values, spread, fmt=f"o{style}", color=colour, label=label, ms=4)
    axes.set_xlabel("heterogeneity dial")
    axes.set_ylabel("golden reward")
    axes.legend(fontsize=7, frameon=False)


def _draw_strengths(study: Study, axes: Axes) -> None:
    shades = ("#0072b2", "#009e73", "#d55e00")
    for dial, colour in zip(study.dials, shades, strict=False):
        rows = [
            r
            for r in study.plain["strengths"]
            if (r["axis"], r["value"]) == ("dial", dial) and r["decoding"].startswith("strength")
        ]
        places = [float(r["decoding"].split()[1]) for r in rows]
        axes.plot(
            places, [r["golden"]["value"] for r in rows], "o-", color=colour, label=f"dial {dial}"
        )
        greedy = study.get(("dial", dial), "sft, greedy")
        if greedy is not None:
            axes.axhline(greedy["golden"]["value"], color=colour, ls=":", lw=1)
    axes.set_xscale("symlog", base=2, linthresh=0.5)
    axes.set_xlabel("strength of extrapolation (dotted: SFT greedy)")
    axes.set_ylabel("golden reward of one sample")
    axes.legend(fontsize=7, frameon=False)


if __name__ == "__main__":
    main()
