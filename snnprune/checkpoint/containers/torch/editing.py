"""A pickle with some of its values replaced, renamed or left out, and all else as it was.

An object that is left out may be referred to later, by its number in the memo: then its bytes are
written where that is first done.
"""

from __future__ import annotations

import pickle
from bisect import bisect_left
from dataclasses import dataclass, field

from snnprune.checkpoint.containers.torch.structure import Node, OddPickleError, Step, Structure

DEEPEST = 50
"""Objects written for one that refers to another that was left out."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Bytes in place of others."""

    begin: int
    end: int
    data: bytes


@dataclass(kw_only=True)
class Editor:
    """What is to be written of a pickle."""

    data: bytes
    structure: Structure
    edits: list[Edit] = field(default_factory=list)
    copied: Node | None = None
    """An object that is changed in one place and stays in others: there its edits do not hold."""
    slot: Node | None = None
    """That place."""

    def edited(self) -> bytes:
        """The whole pickle with its edits.

        Raises:
            OddPickleError: it refers to an object before that is there.
        """
        self.edits.sort(key=lambda edit: edit.begin)
        self._written: list[bytes] = []
        self._known: set[int] = set()
        everything = [] if self.copied else self.edits
        self._write(0, len(self.data), everything, shift=0)
        return b"".join(self._written)

    def _write(
        self, begin: int, end: int, edits: list[Edit], *, shift: int, depth: int = 0
    ) -> None:
        """The bytes from `begin` to `end`; with a `shift`, their numbers in the memo are others."""
        if depth > DEEPEST:
            raise OddPickleError
        at = begin
        for stop in self._stops(begin, end, edits):
            if stop.begin < at:  # within what was replaced
                continue
            self._written.append(self.data[at : stop.begin])
            at = stop.end
            if isinstance(stop, Edit):
                self._written.append(stop.data)
            elif isinstance(stop, Node):
                self._write_copy()
            elif stop.number >= 0:
                self._write_step(stop, range(begin, end), shift, depth)
        self._written.append(self.data[at:end])

    def _stops(self, begin: int, end: int, edits: list[Edit]) -> list[Edit | Step | Node]:
        """Where bytes are not just copied, in order; of two at one place the longer one first."""
        steps = self.structure.steps
        first = bisect_left(steps, begin, key=lambda step: step.begin)
        last = bisect_left(steps, end, key=lambda step: step.begin)
        found: list[Edit | Step | Node] = []
        if self.slot is not None and begin <= self.slot.begin < end:
            found.append(self.slot)
        found += [edit for edit in edits if begin <= edit.begin < end]
        found += steps[first:last]
        return sorted(found, key=lambda stop: (stop.begin, -stop.end))

    def _write_copy(self) -> None:
        """The changed object, under numbers of its own."""
        assert self.copied is not None
        shift = max(self.structure.memo, default=0) + 1
        self.slot = None  # where the object is written again, it is as it was
        self._write(self.copied.begin, self.copied.end, self.edits, shift=shift)

    def _write_step(self, step: Step, within: range, shift: int, depth: int) -> None:
        inside = bool(shift) and self.structure.memo[step.number].begin in within
        number = step.number + (shift if inside else 0)
        if step.is_put:
            self._written.append(pickle.LONG_BINPUT + number.to_bytes(4, "little"))
            self._known.add(number)
        elif number in self._known:
            self._written.append(pickle.LONG_BINGET + number.to_bytes(4, "little"))
        else:
            node = self.structure.memo[step.number]
            self._write(node.begin, node.end, [], shift=shift if inside else 0, depth=depth + 1)


def text(value: object) -> bytes:
    """The instruction that pushes a text."""
    data = str(value).encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    """The instruction that pushes an integer."""
    if 0 <= value < 2**31:
        return pickle.BININT + value.to_bytes(4, "little")
    data = value.to_bytes(9, "little")
    return pickle.LONG1 + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    """The instruction that pushes a class or function."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def flag(value: bool | None) -> bytes:
    """The instruction that pushes True, False or None."""
    return {True: pickle.NEWTRUE, False: pickle.NEWFALSE, None: pickle.NONE}[value]


def stored(*parts: bytes) -> bytes:
    """The instructions that push what a persistent id leads to."""
    return several(*parts) + pickle.BINPERSID


def several(*parts: bytes) -> bytes:
    """The instructions that push a tuple."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def called(function: bytes, *arguments: bytes) -> bytes:
    """The instructions that push what a call makes."""
    return function + several(*arguments) + pickle.REDUCE
