"""Read preference pairs: the yardstick's data, and the rival method's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from demoalign.demonstrations import messages as chat
from demoalign.demonstrations.fields import RowError, cell, found, is_missing, text
from demoalign.demonstrations.formats import Cells, prompt_of
from demoalign.demonstrations.hh_rlhf import first_difference, is_transcript, split_transcript
from demoalign.demonstrations.ids import assign_ids, content_id, own_id
from demoalign.demonstrations.recognise import columns_of
from demoalign.demonstrations.rows import collect, look_ahead, refuse
from demoalign.demonstrations.sources import open_source
from demoalign.errors import DataError
from demoalign.records import Preference, Prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A row's prompt, its two answers and its own id, if it has one."""

    prompt: Prompt
    chosen: str
    rejected: str
    own_id: str | None


def read_preferences(
    source: str | Path, *, split: str = "train", skip_invalid: bool = False
) -> list[Preference]:
    r"""Read pairs of a preferred and a dispreferred answer to one prompt.

    A row has ``chosen`` and ``rejected``, and ``prompt`` unless they hold it themselves:

    - both text, with a ``prompt`` (text or messages);
    - both HH-RLHF transcripts without a ``prompt``: they share all up to the last
      ``\n\nAssistant:``;
    - both lists of messages, the last being the answer: whatever stands before it is the prompt,
      the same on both sides.

    Args:
        source: as for `read_demonstrations`.
        split: which split of a folder or a hub data set.
        skip_invalid: go on without the rows that cannot be used (how many, is logged).

    Raises:
        DataError: the source cannot be read, or rows cannot be used; it carries a problem for each.
    """
    name, rows = open_source(str(source), split)
    first, rows = look_ahead(rows)
    have = columns_of(first)
    if first and not {"chosen", "rejected"} <= set(have):
        raise DataError(
            f"{name}: preferences need the columns chosen and rejected (and prompt, unless these "
            f"hold it), found the columns {', '.join(have)}"
        )
    result = collect(rows, pair_of, {})
    refuse(name, result, skip_invalid=skip_invalid)
    if result.rejected:
        log.warning("%s: %d rows skipped", name, len(result.rejected))
    content = [content_id(pair.prompt, pair.chosen, pair.rejected) for pair in result.made]
    ids = assign_ids([pair.own_id for pair in result.made], content)
    return [
        Preference(given, pair.prompt, pair.chosen, pair.rejected)
        for given, pair in zip(ids, result.made, strict=True)
    ]


def pair_of(row: Cells) -> Pair:
    """One row of `read_preferences`.

    Raises:
        RowError: it breaks a rule.
    """
    chosen, rejected = cell(row, "chosen"), cell(row, "rejected")
    if isinstance(chosen, list | tuple) or isinstance(rejected, list | tuple):
        prompt, good, bad = _of_messages(row)
    elif is_missing(row.get("prompt")):
        prompt, good, bad = _of_transcripts(row)
    else:
        prompt, good, bad = prompt_of(row), text(row, "chosen"), text(row, "rejected")
    if good == bad:
        raise RowError("rejected", f"must differ from chosen, found {found(bad)} in both")
    return Pair(prompt, good, bad, own_id(row.get("id")))


def _of_transcripts(row: Cells) -> tuple[Prompt, str, str]:
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    if not is_transcript(chosen) and not is_transcript(rejected):
        raise RowError(
            "prompt",
            "is missing, and chosen and rejected are not transcripts that hold it "
            f"('\\n\\nAssistant:'), found {found(chosen)}",
        )
    prompt, good = split_transcript("chosen", chosen)
    other, bad = split_transcript("rejected", rejected)
    if prompt != other:
        at = first_difference(prompt, other)
        raise RowError(
            "rejected",
            f"must share chosen's prompt up to the last '\\n\\nAssistant:', found that they "
            f"differ from character {at}: {found(other[at:])}",
        )
    return prompt, good, bad


def _of_messages(row: Cells) -> tuple[Prompt, str, str]:
    before, good = _conversation("chosen", row["chosen"])
    other, bad = _conversation("rejected", row["rejected"])
    if before != other:
        raise RowError("rejected", f"must share chosen's prompt messages, found {found(other)}")
    given = row.get("prompt")
    if not before:
        prompt = prompt_of(row)
        if isinstance(prompt, str):
            raise RowError(
                "prompt", f"must be a list of messages as chosen is one, found {found(prompt)}"
            )
        return prompt, good, bad
    if not is_missing(given) and not _agrees(prompt_of(row), before):
        raise RowError("prompt", f"must agree with chosen's prompt messages, found {found(given)}")
    return before, good, bad


def _conversation(field: str, value: object) -> tuple[list[dict[str, str]], str]:
    given = chat.messages(field, value)
    if len(given) == 1:
        return [], chat.answer(field, value)
    return chat.split_answer(field, given)


def _agrees(prompt: Prompt, before: list[dict[str, str]]) -> bool:
    """Whether a row's own prompt is the conversation, or (as text) its last question."""
    if isinstance(prompt, str):
        return prompt.strip() == before[-1]["content"].strip()
    return prompt == before
