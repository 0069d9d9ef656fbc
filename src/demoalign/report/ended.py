"""How a training ended, in sentences: what stopped it, what was kept and what it cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from demoalign.report.maximised import Maximised
from demoalign.report.trainings import Noted, Trained
from demoalign.report.words import write, write_interval, write_list, write_seconds

OBJECTIVE = "the objective itself, reward less the price of KL,"

PLAIN = {
    "over-optimisation": "what decides had fallen from its best by more than chance: from there on "
    "the policy got worse while it went on learning",
    "collapse": "the answers were falling into sameness or no longer came to an end",
    "KL to the reference": "the policy had moved further from the SFT policy than the recipe "
    "allows",
    "the reward model cannot tell": "there was nothing left to learn from: the reward model no "
    "longer tells the demonstrator's answers from the policy's",
}
"""How the reason of a stop begins -> what it means."""

PARTS = {
    "seconds_sampling": "sampling",
    "seconds_judging": "rewarding",
    "seconds_learning": "learning",
}


def how_it_ended(found: Trained, asked: Maximised, unit: str) -> tuple[str, ...]:
    """Sentences on a training.

    Args:
        found: what it noted.
        asked: what it maximised.
        unit: ``round`` or ``iteration``.
    """
    said = (_stopped(found, asked, unit), _kept(found, asked, unit), _golden(found, unit))
    return tuple(each for each in (*said, *_cautions(found, asked), _time(found)) if each)


def _stopped(found: Trained, asked: Maximised, unit: str) -> str:
    if found.done is None:
        last = max((each.round for each in (*found.rounds, *found.checks)), default=0)
        return f"How it ended is not stored; {_count(last, unit)} are."
    of = f" of {asked.planned}" if asked.planned is not None else ""
    if not found.stopped:
        if found.done == 0:
            return f"No {unit} was asked for, so the policy did not learn."
        return f"Nothing stopped it: all {_count(found.done, unit)} were done."
    start = next((each for each in PLAIN if found.stopped.startswith(each)), None)
    why = f", for {PLAIN[start]}" if start is not None else ""
    when = f"after {found.done}{of} {unit}s" if found.done else f"before the first {unit}"
    return f"Stopped {when}{why}. In its own words: {found.stopped}."


def _kept(found: Trained, asked: Maximised, unit: str) -> str:
    if found.best is None or not found.done:
        return ""
    begun = "that training began with, which is the SFT policy"
    kept = f"Kept: the policy {f'of {unit} {found.best}' if found.best else begun}."
    if not found.prompts:
        return (
            f"{kept} Nothing said which was best, so it is that of the last check that was sound."
        )
    judge = f"the reward {asked.witness}" if _has_witness(found, asked) else OBJECTIVE
    if found.best == 0:
        return f"{kept} By {judge} no later check was better beyond chance."
    return f"{kept} By {judge} it is the last check that was better beyond chance."


def _has_witness(found: Trained, asked: Maximised) -> bool:
    return bool(asked.witness) and any("witness" in each.values for each in found.checks)


def _golden(found: Trained, unit: str) -> str:
    """Golden reward where training began and of what was kept."""
    by_round = {each.round: each for each in found.checks}
    first, kept = by_round.get(0), by_round.get(-1 if found.best is None else found.best)
    if first is None or kept is None or first is kept:
        return ""
    before, after = _measured(first, "golden"), _measured(kept, "golden")
    if before is None or after is None:
        return ""
    return (
        f"Golden reward on the held-out prompts, which decided nothing: {before} at first, {after} "
        f"in the {unit} that was kept. The test prompts, under Results, have the paired comparison."
    )


def _measured(check: Noted, name: str) -> str | None:
    if name not in check.values:
        return None
    interval = write_interval(check.intervals.get(name))
    return write(check.values[name]) + (f" {interval}" if interval else "")


def _cautions(found: Trained, asked: Maximised) -> Iterator[str]:
    if found.done and not _has_witness(found, asked):
        yield (
            "No other reward looked on, so that a reward that is being gamed would not have shown "
            "(improve.check.witness names one)."
        )


def _time(found: Trained) -> str:
    """What the rounds' time went into."""
    sums = {
        word: sum(each.values.get(name, 0.0) for each in found.rounds)
        for name, word in PARTS.items()
    }
    total = sum(sums.values())
    if total <= 0:
        return ""
    shares = [f"{write(part / total, 'percent')} {word}" for word, part in sums.items()]
    return f"The rounds took {write_seconds(total)}: {write_list(shares)}."


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" + ("" if number == 1 else "s")
