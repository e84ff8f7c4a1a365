"""Numbers as people read them."""

from __future__ import annotations

JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NOTHING = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """A share."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def small_percent(share: float | None) -> str:
    """A share that may be very small, with two significant digits below 1 %."""
    if share is None:
        return NOTHING
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"


def whole(count: float | None) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    if count is None:
        return NOTHING
    return f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.3g}"


def rate(value: float | None) -> str:
    """Spikes per neuron per time step."""
    return NOTHING if value is None else f"{value:.4f}"


def in_joules(picojoules: float | None) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    if picojoules is None:
        return NOTHING
    size, unit = next((pair for pair in JOULES if picojoules >= pair[0]), JOULES[-1])
    return f"{picojoules / size:.3g} {unit}"


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


def layer_name(key: str) -> str:
    """A weight's key without its end."""
    return key.removesuffix(".weight")
