"""One pass over demonstrations: everything the data report says, in little memory a row.

Of a row about 1.3 kB are needed at most, signatures above all, and what was found in it; its text
is not kept.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from demoalign.demonstrations.fields import canonical, shorten
from demoalign.demonstrations.hh_rlhf import HUMAN, NOTE
from demoalign.demonstrations.inspect import Lengths, characters_of, lengths_of
from demoalign.demonstrations.quality.language import language_of
from demoalign.demonstrations.quality.leaks import Leaks
from demoalign.demonstrations.quality.near import Match, Signatures, repeats
from demoalign.demonstrations.quality.overlap import (
    EvaluationSet,
    Overlap,
    same_words,
    words_of,
)
from demoalign.demonstrations.quality.refusals import is_refusal
from demoalign.demonstrations.rows import Rejected
from demoalign.records import Demonstration, Prompt

Kind = Literal["duplicate", "near-duplicate", "overlap", "refusal", "leak", "pair"]
KINDS: tuple[Kind, ...] = ("duplicate", "near-duplicate", "overlap", "refusal", "leak", "pair")
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a row.

    Attributes:
        index: of the row among those that can be used.
        id: its id.
        kind: of finding.
        what: in words.
    """

    index: int
    id: str
    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was found.

    Attributes:
        rows: demonstrations that were looked at.
        unusable: rows of the source that are none, and the first reasons.
        findings: by row and kind.
        overlaps: one for each evaluation set.
        languages: rows by the language of their completion.
        lengths: characters of prompts and completions, and human turns of prompts.
    """

    rows: int
    unusable: int
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    overlaps: tuple[Overlap, ...]
    languages: dict[str, int]
    lengths: dict[str, Lengths | None]

    def count(self, kind: Kind) -> int:
        """Rows with a finding of a kind."""
        return len({each.index for each in self.findings if each.kind == kind})

    def as_json(self) -> dict[str, Any]:
        """Plain objects, with a few examples of each kind of finding."""
        found = {}
        for kind in KINDS:
            some = [each for each in self.findings if each.kind == kind]
            shown = [{"id": each.id, "what": each.what} for each in some[:EXAMPLES]]
            count = self.count(kind)
            share = count / self.rows if self.rows else None
            found[kind] = {"count": count, "share": share, "examples": shown}
        return {
            "rows": self.rows,
            "unusable": {"count": self.unusable, "examples": list(self.reasons)},
            "findings": found,
            "overlap": {
                each.name: {"prompts": each.prompts, "same": each.same, "near": each.near}
                for each in self.overlaps
            },
            "languages": self.languages,
            "lengths": {
                name: None
                if each is None
                else {key: getattr(each, key) for key in ("minimum", "median", "p95", "maximum")}
                for name, each in self.lengths.items()
            },
        }


@dataclass(slots=True)
class _Lengths:
    prompt_characters: array[int] = field(default_factory=lambda: array("I"))
    completion_characters: array[int] = field(default_factory=lambda: array("I"))
    human_turns: array[int] = field(default_factory=lambda: array("I"))


class Look:
    """A pass over demonstrations.

    Args:
        evaluations: sets whose prompts should not be trained on.
        specials: texts that no answer should hold, such as a tokenizer's special tokens.
    """

    def __init__(
        self, evaluations: Sequence[EvaluationSet] = (), specials: Iterable[str] = ()
    ) -> None:
        self._evaluations = evaluations
        self._leaks = Leaks(specials)
        self._ids: list[str] = []
        self._findings: list[Finding] = []
        self._seen: dict[int, int] = {}
        self._keys = array("Q")
        self._texts, self._prompts = Signatures(), Signatures()
        self._languages: Counter[str] = Counter()
        self._lengths = _Lengths()
        self._unusable = 0
        self._reasons: list[str] = []

    def add(self, row: Demonstration | Rejected) -> None:
        """Look at one row."""
        if isinstance(row, Rejected):
            self._unusable += 1
            if len(self._reasons) < EXAMPLES:
                self._reasons.append(f"{row.where}: {row.what}")
            return
        index = len(self._ids)
        self._ids.append(row.id)
        self._read(index, row)
        self._texts.add(f"{last_turn(row.prompt)}\n{row.completion}")
        if self._evaluations:
            self._keys.append(same_words(row.prompt))
            self._prompts.add(words_of(row.prompt))
        self._languages[language_of(row.completion)] += 1
        self._lengths.prompt_characters.append(characters_of(row.prompt))
        self._lengths.completion_characters.append(len(row.completion))
        self._lengths.human_turns.append(turns_of(row.prompt))

    def report(self) -> DataReport:
        """Everything that was found."""
        overlaps = [each.overlap(self._keys, self._prompts.all()) for each in self._evaluations]
        findings = [*self._findings, *self._near()]
        for overlap in overlaps:
            findings += [
                self._finding(index, "overlap", what) for index, what in overlap.rows.items()
            ]
        return DataReport(
            rows=len(self._ids),
            unusable=self._unusable,
            reasons=tuple(self._reasons),
            findings=tuple(sorted(findings, key=lambda each: (each.index, each.kind))),
            overlaps=tuple(overlaps),
            languages=dict(self._languages.most_common()),
            lengths={
                "prompt_characters": lengths_of(self._lengths.prompt_characters),
                "completion_characters": lengths_of(self._lengths.completion_characters),
                "human_turns": lengths_of(self._lengths.human_turns),
            },
        )

    def _read(self, index: int, row: Demonstration) -> None:
        key = hash(canonical([row.prompt, row.completion]))
        if key in self._seen:
            what = f"repeats {self._named(self._seen[key])} exactly"
            self._findings.append(self._finding(index, "duplicate", what))
        self._seen.setdefault(key, index)
        if is_refusal(row.completion):
            what = f"declines: {shorten(row.completion.strip())!r}"
            self._findings.append(self._finding(index, "refusal", what))
        if (mark := self._leaks.find(row.completion)) is not None:
            self._findings.append(self._finding(index, "leak", f"holds {mark!r}"))
        if NOTE in row.meta:
            self._findings.append(self._finding(index, "pair", str(row.meta[NOTE])))

    def _near(self) -> list[Finding]:
        """Near-duplicates that are not exact ones."""
        exact = {each.index for each in self._findings if each.kind == "duplicate"}

        def what(match: Match) -> str:
            return f"nearly repeats {self._named(match.other)} (similarity {match.similarity:.2f})"

        return [
            self._finding(match.index, "near-duplicate", what(match))
            for match in repeats(self._texts.all())
            if match.index not in exact
        ]

    def _named(self, index: int) -> str:
        return f"row {index + 1} ({self._ids[index]})"

    def _finding(self, index: int, kind: Kind, what: str) -> Finding:
        return Finding(index, self._ids[index], kind, what)


def last_turn(prompt: Prompt) -> str:
    """What was asked last: conversations of which one goes on are no near-duplicates for that."""
    if isinstance(prompt, str):
        return prompt.rpartition(HUMAN)[2]
    return prompt[-1]["content"]


def turns_of(prompt: Prompt) -> int:
    """Human turns; one for a text that is no transcript."""
    if isinstance(prompt, str):
        return max(1, ("\n\n" + prompt.lstrip()).count(HUMAN))
    return sum(turn["role"] == "user" for turn in prompt)
