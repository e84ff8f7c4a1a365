"""Measurements held against limits: the verdict of each gate, of all, and where CI shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from snnprune.errors import (
    GateError,
    InputError,
    SnnpruneError,
    format_row,
    format_table,
    make_printable,
)
from snnprune.files.writing import replace_file

if TYPE_CHECKING:
    from snnprune.chips.check import ChipFit


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """So many of so many."""

    part: int
    whole: int

    @property
    def share(self) -> Fraction:
        """Exact, in [0, 1]."""
        return Fraction(self.part, self.whole)


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """How many weights the output channels of a layer keep."""

    fewest: int
    most: int
    """The fan-in of the neurons of one channel."""
    size: int
    """How many each has."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """A checkpoint in numbers; None where nobody measured, and `missing` says why."""

    layers: Mapping[str, Proportion]
    """Pruned weights, by weight key."""
    size: int
    """Bytes of the file or files."""
    right: Proportion | None = None
    """Labelled samples that are classified right."""
    right_before: Proportion | None = None
    """The same of the baseline."""
    operations: int | None = None
    """Effective synaptic operations, over all samples."""
    layer_operations: Mapping[str, int] | None = None
    """Of each layer, by weight key."""
    energy: Fraction | None = None
    """Of them, in pJ."""
    rows: Mapping[str, RowCounts] | None = None
    """By weight key."""
    samples: int = 0
    silent: Proportion | None = None
    """Channels that never spike."""
    same: Proportion | None = None
    """Spikes that are as in the baseline."""
    chip: ChipFit | None = None
    """How it fits the chip."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why something was not measured, by the name of its field."""

    def count_pruned(self) -> Proportion:
        """Of all layers."""
        counts = self.layers.values()
        return Proportion(part=sum(c.part for c in counts), whole=sum(c.whole for c in counts))


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
class GateRule:
    """A flag, and how what follows it is read and judged."""

    name: str
    help: str
    unit: str
    needs: tuple[str, ...]
    """Fields of `Measurements`."""
    read: Callable[[str, str], Any]
    """From what was written and the flag to a limit."""
    judge: Callable[[Any, Measurements], Judgement]

    @property
    def flag(self) -> str:
        """As on the command line."""
        return f"--{self.name}"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A gate with the limit that somebody set."""

    gate: GateRule
    text: str
    value: Any

    def verdict(self, measured: Measurements) -> Verdict:
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


def check_at_most(limit: Fraction, found: Fraction, words: str) -> Judgement:
    """Whether what was found is no more than the limit."""
    return found <= limit, float(found), words


def check_at_least(limit: Fraction, found: Fraction, words: str) -> Judgement:
    """Whether what was found is no less than the limit."""
    return found >= limit, float(found), words


def judge(limits: Sequence[Limit], measured: Measurements) -> tuple[Verdict, ...]:
    """Each of them, whatever came of the others."""
    return tuple(limit.verdict(measured) for limit in limits)


def make_gate_error(verdicts: Sequence[Verdict], file: object) -> SnnpruneError | None:
    """The error of gates that are not met; before it, that of gates that could not be judged."""
    unknown = [one for one in verdicts if one.met is None]
    failed = [one for one in verdicts if one.met is False]
    if unknown:
        return InputError(
            f"cannot be judged: {unknown[0].found}{_format_others(unknown)}",
            file=file,
            field=f"--{unknown[0].gate}",
            hint="a gate that cannot be judged is not met",
        )
    if failed:
        named = ", ".join(f"--{one.gate} {one.limit} ({one.found})" for one in failed)
        return GateError(f"{len(failed)} of {len(verdicts)} gates not met: {named}", file=file)
    return None


def _format_others(verdicts: Sequence[Verdict]) -> str:
    names = ", ".join(f"--{one.gate}" for one in verdicts[1:])
    return f"; nor can {names}" if names else ""


def write_junit(path: Path, command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """One suite per checkpoint, by its name, with a test case per gate.

    Raises:
        OutputError: `path` cannot be written.
    """
    root = ElementTree.Element("testsuites", name=f"snnprune {command}")
    for name, found in verdicts.items():
        _add_suite(root, make_printable(name), found)
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree)
    with replace_file(path) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)


def _add_suite(root: ElementTree.Element, name: str, verdicts: Sequence[Verdict]) -> None:
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(verdicts)),
        failures=str(sum(one.met is False for one in verdicts)),
        errors=str(sum(one.met is None for one in verdicts)),
    )
    for one in verdicts:
        title = make_printable(f"{one.gate} {one.limit}")
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=title)
        if one.met is not True:
            kind = "failure" if one.met is False else "error"
            ElementTree.SubElement(case, kind, message=make_printable(one.found), type=one.gate)
        ElementTree.SubElement(case, "system-out").text = make_printable(one.found)


VARIABLE = "GITHUB_STEP_SUMMARY"
SIGNS = {True: "✅ met", False: "❌ not met", None: "⚠️ not judged"}


def append_step_summary(command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> str | None:
    """Append a table per checkpoint where the variable names a file; why that failed, else None."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    text = "\n".join(_format_section(command, name, found) for name, found in verdicts.items())
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return f"{VARIABLE} ({path}) cannot be written: {error.strerror}"
    return None


def _format_section(command: str, name: str, verdicts: Sequence[Verdict]) -> str:
    body = [(one.gate, one.limit, one.found, SIGNS[one.met]) for one in verdicts]
    lines = format_table(("gate", "limit", "found", ""), body)
    return f"### snnprune {command}: {format_row([make_printable(name)])}\n\n{lines}\n"
