"""Ids that stay the same when a file is shuffled, cut or added to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from demoalign.demonstrations.fields import canonical


def content_id(*content: object) -> str:
    """Twelve hexadecimal digits that depend on the content alone."""
    return hashlib.blake2b(canonical(content).encode(), digest_size=6).hexdigest()


def own_id(value: object) -> str | None:
    """The id that a row brought along, if it is text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if str(value).strip() else None


def assign_ids(own: Sequence[str | None], content: Sequence[str]) -> list[str]:
    """One unique id a row.

    A row keeps its own id where no other row has it. The others get the id of their content, and
    exact repetitions ``-2``, ``-3`` after it in order of appearance.

    Args:
        own: each row's own id, or None.
        content: each row's `content_id`.

    Returns:
        As many ids as rows, in their order.
    """
    times = Counter(each for each in own if each is not None)
    taken = {each for each, count in times.items() if count == 1}
    seen: Counter[str] = Counter()
    ids = []
    for mine, base in zip(own, content, strict=True):
        if mine is not None and times[mine] == 1:
            ids.append(mine)
            continue
        seen[base] += 1
        while (candidate := base if seen[base] == 1 else f"{base}-{seen[base]}") in taken:
            seen[base] += 1
        taken.add(candidate)
        ids.append(candidate)
    return ids
