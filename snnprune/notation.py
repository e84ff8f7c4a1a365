"""Shares, counts, energies and layers as people read them, on a screen as in a report."""

from __future__ import annotations

JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
UNKNOWN = "-"


def percent(
    share: float | None, digits: int = 1, *, sign: str = "%", unknown: str = UNKNOWN
) -> str:
    """A share in percent, with that many digits."""
    return unknown if share is None else f"{100 * share:.{digits}f}{sign}"


def small_percent(share: float | None, *, sign: str = "%", unknown: str = UNKNOWN) -> str:
    """A share that may be very small in percent, with two significant digits below 1 %."""
    if share is None or share >= 0.01 or share == 0:
        return percent(share, sign=sign, unknown=unknown)
    return f"{100 * share:.2g}{sign}"


def in_percent(sparsity: float) -> str:
    """The number without a sign, with as many digits as it takes to tell 99.5 from 99.9."""
    return f"{round(100 * sparsity, 1 if sparsity < 0.99 else 2):g}"


def whole(count: float) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    return f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.3g}"


def in_joules(picojoules: float) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    size, unit = next((pair for pair in JOULES if picojoules >= pair[0]), JOULES[-1])
    return f"{picojoules / size:.3g} {unit}"


def layer_name(key: str) -> str:
    """The name of a layer: the key of its weight without `.weight`."""
    return key.removesuffix(".weight")
