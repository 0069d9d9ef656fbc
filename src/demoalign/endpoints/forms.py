"""Questions with blanks: ``{name}`` is one, ``{{name}}`` stands for the name in braces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
"""A name in braces; in double braces it is the name in single ones, and no placeholder."""


class FormError(ValueError):
    """A form cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Blanks:
    """The placeholders of a form.

    Attributes:
        needed: each must be there at least once.
        optional: may be there.
    """

    needed: Sequence[str]
    optional: Sequence[str] = ()

    def check(self, text: str) -> None:
        """Refuse a form.

        Raises:
            FormError: a placeholder that is needed is not there, or one is unknown.
        """
        names = [found[2] for found in PLACEHOLDER.finditer(text) if found[2]]
        needed = _shown(self.needed)
        known = [*self.needed, *self.optional]
        missing = [name for name in self.needed if name not in names]
        if unknown := [name for name in names if name not in known]:
            close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
            hint = f"; did you mean {{{close[0]}}}?" if close else "."
            also = f" and {_shown(self.optional)}" if self.optional else ""
            raise FormError(
                f"placeholders are {needed}{also}, found {{{unknown[0]}}}{hint} Write "
                f"{{{{{unknown[0]}}}}} to have it as it stands."
            )
        if missing:
            raise FormError(
                f"must hold {needed}, found {_shown(dict.fromkeys(names)) or 'none'}; "
                f"{_shown(missing)} is missing. Put it where the text is to stand."
            )

    def read(self, path: str, instead: str) -> str:
        """The checked form in a file.

        Args:
            path: of the file.
            instead: what is asked with if none is named.

        Raises:
            FormError: the file cannot be read, or `check` refuses it.
        """
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormError(
                f"must be a text file in UTF-8, found {error}. Leave it out to ask with {instead}."
            ) from error
        self.check(text)
        return text


def fill(text: str, values: Mapping[str, str]) -> str:
    """The form with its blanks filled. What stands in the values is never taken for one."""

    def filled(found: re.Match[str]) -> str:
        return f"{{{found[1]}}}" if found[1] else values[found[2]]

    return PLACEHOLDER.sub(filled, text)


def _shown(names: Sequence[str] | Mapping[str, None]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
