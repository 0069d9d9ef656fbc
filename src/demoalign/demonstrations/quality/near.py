"""Near-duplicates by MinHash (Broder 1997): how much of their phrases two texts share.

A text is the set of its phrases of three words (of four characters where it has no blanks between
words). Of each of 64 random orders of all phrases the signature has the first that is in the text;
the share of places in which two signatures agree estimates the Jaccard similarity of the sets,
with a standard error of at most 0.063. Candidates are found by bands of four places: of pairs with
similarity 0.8 all but 0.02 % share one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLACES, BAND = 64, 4
WORDS, CHARACTERS = 3, 4
LONG_WORD = 25
"""Characters a word on average above which a text is taken to have no blanks between words."""

BATCH_PHRASES = 20_000
LEAST = 0.8

Hashes = NDArray[np.uint64]
Signature = NDArray[np.uint32]

_DRAW = np.random.default_rng(8)
_FACTORS = _DRAW.integers(0, 2**31, size=PLACES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_OFFSETS = _DRAW.integers(0, 2**32, size=PLACES, dtype=np.uint32)
_ROLL = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Match:
    """A text that nearly repeats another.

    Attributes:
        index: of the text.
        other: of an earlier one, or of one in the other collection.
        similarity: estimated share of common phrases, in [0, 1].
    """

    index: int
    other: int
    similarity: float


class Signatures:
    """Signatures of texts, 256 bytes each."""

    def __init__(self) -> None:
        self._done: list[Signature] = []
        self._waiting: list[Signature] = []
        self._phrases = 0

    def add(self, text: str) -> None:
        """Add a text; its index is how many were added before."""
        phrases = (_phrases(text) >> np.uint64(32)).astype(np.uint32)
        self._waiting.append(phrases)
        self._phrases += len(phrases)
        if self._phrases >= BATCH_PHRASES:
            self._sign()

    def all(self) -> Signature:
        """Signatures (N, 64) of all texts so far."""
        self._sign()
        self._done = [np.concatenate(self._done)] if self._done else []
        return self._done[0] if self._done else np.zeros((0, PLACES), dtype=np.uint32)

    def _sign(self) -> None:
        if not self._waiting:
            return
        sizes = [len(each) for each in self._waiting]
        whole = np.concatenate(self._waiting)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        # One place at a time stays in the processor's cache: 10 times as fast as all at once.
        columns = [
            np.minimum.reduceat(whole * factor + offset, starts)
            for factor, offset in zip(_FACTORS, _OFFSETS, strict=True)
        ]
        self._done.append(np.stack(columns, axis=1))
        self._waiting, self._phrases = [], 0


def repeats(signatures: Signature, least: float = LEAST) -> list[Match]:
    """Each text that nearly repeats an earlier one, with the most similar that was found.

    Args:
        signatures: (N, 64).
        least: similarity from which on it does.
    """
    best: dict[int, Match] = {}
    for keys in _bands(signatures):
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        if not len(same):
            continue
        first = _group_starts(keys[order])
        _keep_best(best, order[same], order[first[same]], signatures, signatures, least)
        _keep_best(best, order[same], order[same - 1], signatures, signatures, least)
    return [best[index] for index in sorted(best)]


def matches(texts: Signature, others: Signature, least: float = LEAST) -> list[Match]:
    """Each text that nearly repeats one of another collection, with the most similar found.

    Args:
        texts: (N, 64).
        others: (M, 64).
        least: similarity from which on it does.
    """
    best: dict[int, Match] = {}
    if not len(texts) or not len(others):
        return []
    for keys, wanted in zip(_bands(texts), _bands(others), strict=True):
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        low = np.searchsorted(ordered, keys, side="left")
        high = np.searchsorted(ordered, keys, side="right")
        for step in range(int((high - low).max(initial=0))):
            found = np.flatnonzero(low + step < high)
            _keep_best(best, found, order[low[found] + step], texts, others, least)
            if step >= PLACES:
                break  # as many texts that begin alike: one of those before is as good
    return [best[index] for index in sorted(best)]


def _keep_best(
    best: dict[int, Match],
    indices: NDArray[np.intp],
    others: NDArray[np.intp],
    texts: Signature,
    collection: Signature,
    least: float,
) -> None:
    for start in range(0, len(indices), BATCH_PHRASES):
        some, theirs = indices[start : start + BATCH_PHRASES], others[start : start + BATCH_PHRASES]
        similar = (texts[some] == collection[theirs]).mean(axis=1)
        for place in np.flatnonzero(similar >= least):
            index, value = int(some[place]), float(similar[place])
            if index not in best or best[index].similarity < value:
                best[index] = Match(index, int(theirs[place]), value)


def _bands(signatures: Signature) -> Iterator[Hashes]:
    """Of each band the key of every text, comparable and sortable."""
    for start in range(0, PLACES, BAND):
        band = np.ascontiguousarray(signatures[:, start : start + BAND]).astype(np.uint64)
        keys = band[:, 0]
        for column in range(1, BAND):
            keys = _mixed(keys * _ROLL + band[:, column])
        yield keys


def _group_starts(ordered: Hashes) -> NDArray[np.intp]:
    """For each place of sorted keys the first place with the same key."""
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    places = np.where(begins, np.arange(len(ordered)), 0)
    found: NDArray[np.intp] = np.maximum.accumulate(places)
    return found


def _phrases(text: str) -> Hashes:
    """The hashes of a text's phrases, at least one; case and blanks do not count."""
    raw = text.lower()
    words = raw.split()
    if len(raw) > LONG_WORD * max(len(words), 1):
        body = "".join(words)
        parts, size = [body[i : i + CHARACTERS].encode() for i in range(len(body))], 1
        parts = parts[: max(1, len(parts) - CHARACTERS + 1)]
    else:
        parts, size = raw.encode(errors="replace").split(), WORDS
    hashes = np.fromiter((zlib.crc32(part) for part in parts), np.uint64, len(parts))
    if len(hashes) < size:
        hashes = np.append(hashes, np.zeros(size - len(hashes), dtype=np.uint64))
    rolled = hashes[: len(hashes) - size + 1]
    for step in range(1, size):
        rolled = _mixed(rolled * _ROLL + hashes[step : len(hashes) - size + 1 + step])
    return _mixed(rolled)


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Hashes = values ^ (values >> np.uint64(31))
    return found
