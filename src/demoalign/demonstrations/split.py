"""Which prompts are for testing: a choice that depends on the prompts and the seed alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from demoalign.demonstrations.fields import canonical, found
from demoalign.errors import DataError
from demoalign.records import Demonstration, Prompt

EXAMPLES = 5

log = logging.getLogger(__name__)


def prompt_key(prompt: Prompt) -> str:
    """One spelling of a prompt: two prompts are the same if and only if their keys are."""
    return canonical(prompt)


def choose_test_prompts(prompts: Iterable[Prompt], test_fraction: float, seed: int) -> set[str]:
    """The keys of the prompts to test on.

    Every distinct prompt has a rank, the hash of (seed, prompt); the lowest are chosen. So the
    order of the rows does not matter, and rows that are added move few of those already there.

    Args:
        prompts: one for each demonstration; repetitions do not count.
        test_fraction: between 0 and 1, both excluded.
        seed: another one gives another choice.

    Returns:
        ``round(test_fraction * distinct prompts)`` keys; at least one, and at most all but one.

    Raises:
        DataError: the fraction is outside its range, or there are fewer than two prompts.
    """
    if not 0 < test_fraction < 1:
        raise DataError(
            f"test_fraction: must be more than 0 and less than 1, found {test_fraction}"
        )
    keys = {prompt_key(prompt) for prompt in prompts}
    if len(keys) < 2:
        raise DataError(
            "test_fraction: to hold out a test set, at least 2 distinct prompts are needed, "
            f"found {len(keys)}"
        )
    count = min(max(round(test_fraction * len(keys)), 1), len(keys) - 1)
    return set(sorted(keys, key=lambda key: (_rank(key, seed), key))[:count])


def _rank(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\n{key}".encode(), digest_size=16).digest()


def refuse_shared_prompts(train: Iterable[Demonstration], test: Iterable[Demonstration]) -> None:
    """Refuse a test set with prompts that were trained on: its numbers would flatter the policy.

    Raises:
        DataError: with how many prompts are shared, and some of them.
    """
    seen = {prompt_key(row.prompt) for row in train}
    tested = {prompt_key(row.prompt): row for row in test}
    shared = [row for key, row in tested.items() if key in seen]
    if shared:
        examples = "\n".join(f"  {row.id}: {found(row.prompt)}" for row in shared[:EXAMPLES])
        more = f"\n  ... and {len(shared) - EXAMPLES} more" if len(shared) > EXAMPLES else ""
        raise DataError(
            f"{len(shared)} of {len(tested)} test prompts are in the training set too; take them "
            f"out of one, or leave out the test file to have prompts held out:\n{examples}{more}"
        )


def without_shared_prompts(
    train: Iterable[Demonstration], test: Iterable[Demonstration]
) -> tuple[Demonstration, ...]:
    """The test demonstrations whose prompts were not trained on; how many go, is logged.

    Raises:
        DataError: none is left.
    """
    seen = {prompt_key(row.prompt) for row in train}
    tested = tuple(test)
    kept = tuple(row for row in tested if prompt_key(row.prompt) not in seen)
    if not kept:
        raise DataError(f"all {len(tested)} test prompts are in the training set too")
    if len(kept) < len(tested):
        gone = len(tested) - len(kept)
        log.warning("%d of %d test rows left out: prompts trained on", gone, len(tested))
    return kept
