"""Text in Markdown that says what it says, whatever a file has called its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from snnprune.escaping import printable

# an underscore within a word is none; an address would become a link
MARKUP = re.compile(r"[\\`*\[\]<>#|~&$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
MARKS = re.compile(r"([\\`*_\[\]<>|])")


def plain(text: str) -> str:
    """Text in which nothing is markup, a link, a mention or a cell's end, on one line."""
    return MARKUP.sub(_as_entity, printable(text))


def backslashed(text: str) -> str:
    """Text on one line whose marks have a backslash, for files that are read as they are too."""
    return MARKS.sub(r"\\\1", printable(text))


def _as_entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def row(cells: Sequence[str], escape: Callable[[str], str] = plain) -> str:
    """Cells of a table, one after the other."""
    return " | ".join(map(escape, cells))


def table(
    titles: Sequence[str],
    body: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    *,
    escape: Callable[[str], str] = plain,
    spaced: bool = False,
) -> str:
    """A table; the columns `right` are flush right, and a `spaced` rule has blanks."""
    rules = ["---:" if column in right else "---" for column in range(len(titles))]
    rule = f"| {' | '.join(rules)} |" if spaced else f"|{'|'.join(rules)}|"
    rows = (f"| {row(cells, escape)} |" for cells in body)
    return "\n".join([f"| {row(titles, escape)} |", rule, *rows])
