"""Text in Markdown that says what it says, whatever a file has called its tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from snnprune.escaping import printable

# an underscore within a word is none; an address would become a link
MARKUP = re.compile(r"[\\`*\[\]<>#|~&$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")


def plain(text: str) -> str:
    """Text in which nothing is markup, a link, a mention or a cell's end, on one line."""
    return MARKUP.sub(_as_entity, printable(text))


def _as_entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def row(cells: Sequence[str]) -> str:
    """Cells of a table, one after the other."""
    return " | ".join(map(plain, cells))


def table(titles: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table; the columns `right` are flush right."""
    rule = "|".join("---:" if column in right else "---" for column in range(len(titles)))
    lines = [f"| {row(titles)} |", f"|{rule}|", *(f"| {row(cells)} |" for cells in body)]
    return "\n".join(lines)
