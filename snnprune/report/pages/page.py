"""A page as data: sections of tables, facts and pictures, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from snnprune.errors import text

BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NOTHING = "–"
percent = partial(text.format_percent, sign=" %", unknown=NOTHING)
small_percent = partial(text.format_small_percent, sign=" %", unknown=NOTHING)


def format_whole(count: float | None) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    return NOTHING if count is None else text.format_whole(count)


def format_rate(value: float | None) -> str:
    """Spikes per neuron per time step."""
    return NOTHING if value is None else f"{value:.4f}"


def format_joules(picojoules: float | None) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    return NOTHING if picojoules is None else text.format_joules(picojoules)


def format_bytes(count: float | None) -> str:
    """A size in the unit that leaves a number from 1 to 1000."""
    if count is None:
        return NOTHING
    size, unit = next((pair for pair in BYTES if count >= pair[0]), (1.0, "bytes"))
    return f"{count / size:.4g} {unit}" if size > 1 else f"{count:,.0f} bytes"


def format_change(before: float | None, after: float | None) -> str:
    """How much less or more, relative to before."""
    if before is None or after is None or not before:
        return NOTHING
    relative = after / before - 1
    if before == after:
        return "same"
    return f"{100 * relative:+.1f} %" if abs(relative) >= 5e-4 else "under 0.1 %"


def format_points(before: float | None, after: float | None) -> str:
    """The difference of two shares, in percentage points."""
    if before is None or after is None:
        return NOTHING
    return f"{100 * (after - before):+.2f} points"


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text; a cell that is None is not known."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    names: int = 1
    """How many columns from the left hold names; the others are numbers, flush right."""
    caption: str = ""
    kind: Literal["table"] = "table"


def drop_unknown_columns(table: TextTable, unknown: str) -> TextTable:
    """The table without the columns of numbers of which none is known."""
    known = [
        number
        for number in range(len(table.titles))
        if number < table.names or any(row[number] not in (None, unknown) for row in table.rows)
    ]
    return replace(
        table,
        titles=[table.titles[number] for number in known],
        rows=[[row[number] for number in known] for row in table.rows],
    )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG of ours, which may stand in HTML as it is."""

    svg: str
    alt: str
    on_white: bool = False
    """Whether its colours are for light paper alone."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One picture, or many small ones side by side."""

    pictures: Sequence[Picture]
    caption: str
    wide: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with what they are."""

    pairs: Sequence[tuple[str, str]]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, kw_only=True)
class TextLines:
    """Text, a line each."""

    lines: Sequence[str]
    kind: Literal["lines"] = "lines"


Block = TextTable | Pictures | Facts | TextLines


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """What belongs under one title."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether it is opened by a click; in print it is open."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """All of a report."""

    title: str
    subtitle: str
    ok: bool
    verdict: str
    """What came of the gates, or nothing."""
    headlines: Sequence[Headline]
    sections: Sequence[PageSection]
