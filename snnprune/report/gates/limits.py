"""Limits as people write them, read without rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from snnprune.errors import UsageError
from snnprune.errors.text import suggest_percent, suggest_share

NUMBER = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*(\D*)")
LONGEST = 32  # characters; 1e999999999 is short too
MOST = 10**24  # more is no limit of anything
THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BYTES = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
PICOJOULES = {"": 1, "pJ": 1, "nJ": 10**3, "uJ": 10**6, "µJ": 10**6, "mJ": 10**9, "J": 10**12}


def parse_share(text: str, flag: str) -> Fraction:
    """A share in [0, 1].

    Raises:
        UsageError: it is none.
    """
    value = _parse_number(text, {"": 1}, flag, suggest_percent(text.strip()))
    if value > 1:
        raise UsageError(f"{text} is outside [0, 1]", field=flag, hint=suggest_share(float(value)))
    return value


def parse_points(text: str, flag: str) -> Fraction:
    """Percentage points in [0, 100).

    Raises:
        UsageError: it is none.
    """
    value = _parse_number(text, {"": 1}, flag, "percentage points are written as 1.5")
    if value >= 100:
        raise UsageError(
            f"{text} is no number of percentage points in [0, 100)",
            field=flag,
            hint="percentage points are written as 1.5",
        )
    return value


def parse_operations(text: str, flag: str) -> Fraction:
    """Operations, as 1500000, 1.5M or 1.5e6.

    Raises:
        UsageError: it is no such number.
    """
    return _parse_number(text, THOUSANDS, flag, "operations are written as 1500000 or 1.5M")


def parse_energy(text: str, flag: str) -> Fraction:
    """pJ, also as 1.2uJ.

    Raises:
        UsageError: it is no energy.
    """
    return _parse_number(text, PICOJOULES, flag, "an energy is written as 1200000 (pJ) or 1.2uJ")


def parse_size(text: str, flag: str) -> Fraction:
    """Bytes, also as 200kB or 2MiB.

    Raises:
        UsageError: it is no size.
    """
    return _parse_number(text, BYTES, flag, "a size is written as 200000, 200kB or 200KiB")


def parse_number_or_percent(text: str, flag: str) -> tuple[Fraction, bool]:
    """A whole number, or a share written as 5%; and whether it is a share.

    Raises:
        UsageError: it is neither.
    """
    hint = "a number of channels is written as 3, a share of them as 5%"
    value = _parse_number(text, {"": 1, "%": Fraction(1, 100)}, flag, hint)
    percent = text.strip().endswith("%")
    if (percent and value > 1) or (not percent and value.denominator != 1):
        raise UsageError(f"{text!r} is no number of channels", field=flag, hint=hint)
    return value, percent


def _parse_number(text: str, units: Mapping[str, int | Fraction], flag: str, hint: str) -> Fraction:
    found = NUMBER.fullmatch(text.strip()) if len(text) <= LONGEST else None
    exponent = re.search(r"[eE][+-]?(\d+)", text)
    if found is None or found[2] not in units or (exponent and int(exponent[1]) > 24):
        raise UsageError(f"{text!r} is no such limit", field=flag, hint=hint)
    value = Fraction(found[1]) * units[found[2]]
    if value > MOST:
        raise UsageError(f"{text} limits nothing", field=flag, hint=hint)
    return value
