"""Turn rows into records, collecting every row that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, TypeVar

from demoalign.demonstrations.fields import RowError, found
from demoalign.demonstrations.formats import Cells
from demoalign.demonstrations.row import Row
from demoalign.errors import DataError, Problem

Made = TypeVar("Made")
LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, kept so that its owner can mend it.

    Attributes:
        where: ``file:line``, or ``name:row N``.
        what: the field, the rule and the value found.
        row: the row's object, its raw text if it could not be read, or None if it is nested so
            deep that it cannot be written down.
    """

    where: str
    what: str
    row: object


@dataclass(slots=True)
class Collected(Generic[Made]):
    """What came of a source's rows: those made into something, and those rejected."""

    made: list[Made] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why each of the rejected rows was."""
        return tuple(Problem(each.where, each.what) for each in self.rejected)


def look_ahead(rows: Iterator[Row]) -> tuple[list[Cells], Iterator[Row]]:
    """The first rows that are objects (20 at most), and all rows, from the first on."""
    passed: list[Row] = []
    objects: list[Cells] = []
    for row in rows:
        passed.append(row)
        if row.what is None and isinstance(row.value, Mapping):
            objects.append(row.value)
            if len(objects) == LOOKED_AT:
                break
    return objects, chain(passed, rows)


def collect(
    rows: Iterable[Row],
    make: Callable[[Cells], Made],
    columns: Mapping[str, str],
    limit: int | None = None,
) -> Collected[Made]:
    """Make what can be made of each row, until ``limit`` are made.

    Args:
        rows: the source's rows.
        make: what a row's columns become; raises `RowError`.
        columns: our columns' names in the source, for the errors.
        limit: stop after so many, or None for all.
    """
    result: Collected[Made] = Collected()
    for row in rows:
        what, kept = row.what, row.value
        if what is None and not isinstance(row.value, Mapping):
            what = f"a row must be an object, found {found(row.value)}"
        elif isinstance(row.value, Mapping):
            try:
                result.made.append(make(row.value))
            except RowError as error:
                what = error.in_columns(columns)
            except RecursionError:
                what, kept = "a row must not be nested hundreds of levels deep", None
        if what is not None:
            result.rejected.append(Rejected(row.where, what, kept))
        if limit is not None and len(result.made) >= limit:
            break
    return result


def refuse(name: str, result: Collected[Made], *, skip_invalid: bool) -> None:
    """Refuse a source without rows, with only bad rows, or with bad rows not to be skipped.

    Raises:
        DataError: carrying a problem for each bad row.
    """
    made, bad = len(result.made), len(result.rejected)
    if not made and not bad:
        raise DataError(f"{name}: has no rows; at least one is needed")
    if not made:
        raise DataError(f"{name}: none of {bad} rows can be used", result.problems)
    if bad and not skip_invalid:
        raise DataError(
            f"{name}: {bad} of {made + bad} rows cannot be used; "
            "fix them or pass --skip-invalid to go on without them",
            result.problems,
        )
