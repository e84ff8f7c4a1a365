"""A gate: a limit that a measured number has to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from snnprune.gates.measured import Measured

Judgement = tuple[bool, float, str]
"""Whether a limit is kept, what was measured, and that in words."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one gate."""

    gate: str
    """Its flag without the dashes."""
    limit: str
    """As it was written."""
    unit: str
    measured: float | None
    found: str
    """The counts behind `measured` in words; why there are none, where it could not be judged."""
    met: bool | None
    """None where it could not be judged."""

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A flag, and how what follows it is read and judged."""

    name: str
    help: str
    unit: str
    needs: tuple[str, ...]
    """Fields of `Measured`."""
    read: Callable[[str, str], Any]
    """From what was written and the flag to a limit."""
    judge: Callable[[Any, Measured], Judgement]

    @property
    def flag(self) -> str:
        """As on the command line."""
        return f"--{self.name}"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A gate with the limit that somebody set."""

    gate: Gate
    text: str
    value: Any

    def verdict(self, measured: Measured) -> Verdict:
        """Hold it against what was measured."""
        gate = self.gate
        lacking = [need for need in gate.needs if getattr(measured, need) is None]
        if lacking:
            why = measured.missing.get(lacking[0], "it was not measured")
            met, number, found = None, None, why
        else:
            met, number, found = gate.judge(self.value, measured)
        return Verdict(
            gate=gate.name,
            limit=self.text,
            unit=gate.unit,
            measured=number,
            found=found,
            met=met,
        )


def at_most(limit: Fraction, found: Fraction, words: str) -> Judgement:
    """Whether what was found is no more than the limit."""
    return found <= limit, float(found), words


def at_least(limit: Fraction, found: Fraction, words: str) -> Judgement:
    """Whether what was found is no less than the limit."""
    return found >= limit, float(found), words
