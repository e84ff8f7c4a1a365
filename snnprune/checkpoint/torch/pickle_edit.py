"""A pickle with some of its values replaced, renamed or left out, and all else as it was.

An object that is left out may be referred to later, by its number in the memo: then its bytes are
written where that is first done.
"""

from __future__ import annotations

import pickle
import pickletools
from bisect import bisect_left
from dataclasses import dataclass, field

PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
FILLS = {"APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "BUILD"}
IDLE = {"PROTO", "FRAME"}


class OddPickleError(Exception):
    """The pickle is right, but not of the form that Python writes."""


@dataclass(eq=False, slots=True)
class Node:
    """A value: the bytes from the first instruction that makes it to the last that fills it."""

    begin: int
    end: int
    made: int
    """Where the instruction is that pushes it."""
    text: str | None = None
    get: int | None = None
    """The number in the memo that it comes from."""
    pairs: list[DictItem] = field(default_factory=list)
    """What is put into it by key."""


@dataclass(eq=False, slots=True)
class DictItem:
    """A key and its value, and the end of both."""

    key: Node
    value: Node
    end: int


@dataclass(frozen=True, slots=True)
class MemoStep:
    """An instruction about the memo, or one that is not written again (`number` < 0)."""

    begin: int
    end: int
    number: int
    is_put: bool


@dataclass(kw_only=True)
class PickleTree:
    """The tree of a pickle, and its memo."""

    root: Node
    by_place: dict[int, Node]
    """Values by `made`."""
    memo: dict[int, Node]
    steps: list[MemoStep]
    """In the order of the pickle."""

    def resolve(self, node: Node) -> Node:
        """The value itself where it comes from the memo."""
        return node if node.get is None else self.memo[node.get]


def parse_pickle_tree(data: bytes) -> PickleTree:
    """The tree of the pickle.

    Raises:
        OddPickleError: it does what Python's pickler never does.
    """
    made = _TreeBuilder()
    try:
        operations = list(pickletools.genops(data))
        ends = [place for _, _, place in operations[1:]] + [len(data)]
        for (opcode, argument, place), end in zip(operations, ends, strict=True):
            made.follow(opcode, argument, int(place or 0), int(end or 0))
    except (IndexError, KeyError, ValueError):  # text that is no UTF-8 is a ValueError too
        raise OddPickleError from None
    return PickleTree(root=made.stack[-1], by_place=made.by_place, memo=made.memo, steps=made.steps)


class _Mark(Node):
    """No value, but where some begin."""


class _TreeBuilder:
    """The stack of the pickle, with nodes for its values."""

    def __init__(self) -> None:
        self.stack: list[Node] = []
        self.by_place: dict[int, Node] = {}
        self.memo: dict[int, Node] = {}
        self.steps: list[MemoStep] = []

    def follow(
        self, opcode: pickletools.OpcodeInfo, argument: object, place: int, end: int
    ) -> None:
        name = opcode.name
        if name in IDLE:
            self.steps.append(MemoStep(place, end, -1, False))
        elif name == "MARK":
            self.stack.append(_Mark(place, end, place))
        elif name in PUTS:
            self._put(len(self.memo) if name == "MEMOIZE" else int(str(argument)), place, end)
        elif name in FILLS:
            self._fill(name, end)
        elif name in ("POP", "POP_MARK", "DUP"):
            raise OddPickleError
        elif name != "STOP":
            self._push(opcode, argument, place, end)

    def _put(self, number: int, place: int, end: int) -> None:
        if number in self.memo:
            raise OddPickleError
        self.memo[number] = self.stack[-1]
        self.stack[-1].end = end
        self.steps.append(MemoStep(place, end, number, True))

    def _fill(self, name: str, end: int) -> None:
        count = {"SETITEM": 2, "APPEND": 1, "BUILD": 1}.get(name)
        found = self._mark_memo()[1:] if count is None else self._pop_values(count)
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise OddPickleError
        holder = self.stack[-1]
        holder.end = end
        if name.startswith("SETITEM"):
            for key, value in zip(found[::2], found[1::2], strict=True):
                holder.pairs.append(DictItem(key, value, end if count else value.end))

    def _push(self, opcode: pickletools.OpcodeInfo, argument: object, place: int, end: int) -> None:
        if pickletools.markobject in opcode.stack_before:
            taken = self._mark_memo()
        else:
            taken = self._pop_values(len(opcode.stack_before))
        node = Node(taken[0].begin if taken else place, end, place)
        if opcode.name in GETS:
            node.get = int(str(argument))
            self.memo[node.get]  # which must be there
            self.steps.append(MemoStep(place, end, node.get, False))
        elif isinstance(argument, str) and "UNICODE" in opcode.name:
            node.text = argument
        elif opcode.name == "DICT":
            pairs = zip(taken[1::2], taken[2::2], strict=True)
            node.pairs = [DictItem(key, value, value.end) for key, value in pairs]
        self.by_place[place] = node
        self.stack.append(node)

    def _pop_values(self, count: int) -> list[Node]:
        taken = self.stack[len(self.stack) - count :] if count else []
        del self.stack[len(self.stack) - count :]
        if len(taken) < count or any(isinstance(node, _Mark) for node in taken):
            raise OddPickleError
        return taken

    def _mark_memo(self) -> list[Node]:
        at = max(i for i, node in enumerate(self.stack) if isinstance(node, _Mark))
        found = self.stack[at:]
        del self.stack[at:]
        return found


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
    structure: PickleTree
    edits: list[Edit] = field(default_factory=list)
    copied: Node | None = None
    """An object that is changed in one place and stays in others: there its edits do not hold."""
    slot: Node | None = None
    """That place."""

    def apply_edits(self) -> bytes:
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
        for stop in self._list_stops(begin, end, edits):
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

    def _list_stops(self, begin: int, end: int, edits: list[Edit]) -> list[Edit | MemoStep | Node]:
        """Where bytes are not just copied, in order; of two at one place the longer one first."""
        steps = self.structure.steps
        first = bisect_left(steps, begin, key=lambda step: step.begin)
        last = bisect_left(steps, end, key=lambda step: step.begin)
        found: list[Edit | MemoStep | Node] = []
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

    def _write_step(self, step: MemoStep, within: range, shift: int, depth: int) -> None:
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


def encode_text(value: object) -> bytes:
    """The instruction that pushes a text."""
    data = str(value).encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def encode_number(value: int) -> bytes:
    """The instruction that pushes an integer."""
    if 0 <= value < 2**31:
        return pickle.BININT + value.to_bytes(4, "little")
    data = value.to_bytes(9, "little")
    return pickle.LONG1 + bytes([len(data)]) + data


def encode_global(module: str, name: str) -> bytes:
    """The instruction that pushes a class or function."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def encode_flag(value: bool | None) -> bytes:
    """The instruction that pushes True, False or None."""
    return {True: pickle.NEWTRUE, False: pickle.NEWFALSE, None: pickle.NONE}[value]


def encode_persistent(*parts: bytes) -> bytes:
    """The instructions that push what a persistent id leads to."""
    return encode_tuple(*parts) + pickle.BINPERSID


def encode_tuple(*parts: bytes) -> bytes:
    """The instructions that push a tuple."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def encode_call(function: bytes, *arguments: bytes) -> bytes:
    """The instructions that push what a call makes."""
    return function + encode_tuple(*arguments) + pickle.REDUCE
