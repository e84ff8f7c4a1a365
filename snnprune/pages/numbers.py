"""Numbers as they stand on a page: a blank before the sign, a dash for what is not known."""

from __future__ import annotations

from functools import partial

from snnprune import notation

BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NOTHING = "–"
percent = partial(notation.percent, sign=" %", unknown=NOTHING)
small_percent = partial(notation.small_percent, sign=" %", unknown=NOTHING)


def whole(count: float | None) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    return NOTHING if count is None else notation.whole(count)


def rate(value: float | None) -> str:
    """Spikes per neuron per time step."""
    return NOTHING if value is None else f"{value:.4f}"


def in_joules(picojoules: float | None) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    return NOTHING if picojoules is None else notation.in_joules(picojoules)


def in_bytes(count: float | None) -> str:
    """A size in the unit that leaves a number from 1 to 1000."""
    if count is None:
        return NOTHING
    size, unit = next((pair for pair in BYTES if count >= pair[0]), (1.0, "bytes"))
    return f"{count / size:.4g} {unit}" if size > 1 else f"{count:,.0f} bytes"


def change(before: float | None, after: float | None) -> str:
    """How much less or more, relative to before."""
    if before is None or after is None or not before:
        return NOTHING
    relative = after / before - 1
    if before == after:
        return "same"
    return f"{100 * relative:+.1f} %" if abs(relative) >= 5e-4 else "under 0.1 %"


def points(before: float | None, after: float | None) -> str:
    """The difference of two shares, in percentage points."""
    if before is None or after is None:
        return NOTHING
    return f"{100 * (after - before):+.2f} points"
