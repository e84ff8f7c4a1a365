"""The stack machine that a pickle is a program for, without its calls.

It follows pickle's protocols 0 to 5, as Python's pickletools describe them. Time and memory are in
proportion to the instructions and to what they make, both of which have a limit.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STEPS, STEPS_OF = 400_000, 4
"""Instructions that any file may have, and the bytes of it that allow for one more."""

FREE = 56 * 2**20
"""Bytes that any file may make; a larger file may make its own size more."""

SMALL, TUPLE, LIST, NAME, TABLE, ITEM, OBJECT = 32, 64, 96, 128, 128, 128, 288
"""Bytes of a number, a tuple, a list, a name, a dict, an item of a dict, and a stand-in."""

LONGEST = 2**20
"""Bytes of text that are read; what is longer can neither be a key nor be shown."""

LARGEST_NUMBER = 128
"""Bytes of an integer that is read."""

LONGEST_NAME = 1024
"""Characters of the name of a class or function."""


class PickledDict(dict[Any, Any]):
    """A dict of a file; a key that is neither text nor a number is an `OddKey`."""

    __slots__ = ("place",)

    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.place = place
        """Where in the pickle the instruction is that makes it."""


class PickledGlobal:
    """A class or function that a file names."""

    __slots__ = ("full", "module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.full = f"{module}.{name}"

    def __str__(self) -> str:
        return self.full


class PickledCall:
    """What would come of calling something, which nobody calls."""

    __slots__ = ("arguments", "by", "items", "listed", "place", "state")

    def __init__(self, by: object, arguments: object, place: int) -> None:
        self.by = by
        self.arguments = arguments
        self.place = place
        self.state: object = None
        """What it would be told to become, as a dict of its attributes."""
        self.items: PickledDict | None = None
        """What would be put into it by key; of a module its tensors by name, once asked for."""
        self.listed: list[object] = []
        """What would be added to it."""


class UnreadValue:
    """Text, bytes or a number too long to matter."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class OddKey:
    """A key of a dict that is not hashed, since what a file made may hash for ever."""

    __slots__ = ("key",)

    def __init__(self, key: object) -> None:
        self.key = key

    def __str__(self) -> str:
        return f"({kind_of(self.key)})"


# Integers that are their own hash: others can be made to share one by the thousand.
LARGEST = 2**61 - 2


def as_key(key: object) -> object:
    """The key itself where hashing it takes no time and tells nothing, else an `OddKey`."""
    if type(key) is int:
        return key if -LARGEST <= key <= LARGEST else OddKey(key)
    return key if type(key) in (str, float, bool, bytes, type(None)) else OddKey(key)


def kind_of(value: object) -> str:
    """The type that a value has in the file: `list`, `pathlib.PosixPath`."""
    if isinstance(value, PickledCall):
        return kind_of(value.by) if isinstance(value.by, PickledCall) else str(value.by)
    if isinstance(value, UnreadValue):
        return value.what
    known = {
        "PickledDict": "dict",
        "PickledGlobal": "class",
        "StoredTensor": "Tensor",
        "View": "storage",
    }
    return known.get(type(value).__name__, type(value).__name__)


Instruction = Callable[["Machine"], None]

STOP = pickle.STOP[0]

ABSENT = object()
"""In the memo: nothing under this number."""

GAP = 256
"""Numbers of the memo that may be left out."""


class MalformedPickleError(Exception):
    """The bytes are no pickle, or not one that Python writes."""


class CutPickleError(MalformedPickleError):
    """The bytes end in the middle of a pickle."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What calls and persistent ids stand for, by who knows the file's format."""

    called: Callable[[PickledGlobal, object, int], object]
    """Of a function or class, its arguments and the place of the call: a value, or a
    `PickledCall`.
    """
    persistent: Callable[[object], object]
    """Of an id that leads out of the pickle."""


class Machine:
    """One file's pickles, run one after the other; `place` is where the next one begins."""

    def __init__(
        self,
        data: bytes,
        meaning: Meaning,
        instructions: Mapping[int, Instruction],
        *,
        allowance: int = 0,
    ) -> None:
        """`instructions` is what each opcode does; `allowance` bytes more may be made of it."""
        self.data = data
        self.meaning = meaning
        self.instructions = instructions
        self.place = 0
        self.left, self.steps = FREE + allowance, STEPS + allowance // STEPS_OF
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: list[Any] = []
        self.names: dict[tuple[str, str], PickledGlobal] = {}
        self.kept = 0
        """How many places of `memo` are taken."""

    def run(self) -> Any:
        """The value of the pickle at `place`.

        Raises:
            MalformedPickleError: it is none, or makes more than its size allows.
        """
        self.stack, self.marks, self.memo, self.kept = [], [], [], 0
        with _pause_garbage_collection():
            return self._run()

    def _run(self) -> Any:
        data, instructions = self.data, self.instructions
        try:
            while (opcode := data[self.place]) != STOP:
                self.place += 1
                self.steps -= 1
                if self.steps < 0:
                    raise MalformedPickleError("has more instructions than its size allows")
                instructions[opcode](self)
            self.place += 1
            return self.stack.pop()
        except IndexError:
            if self.place >= len(data):
                raise CutPickleError("it ends in the middle") from None
            raise MalformedPickleError("takes what is not there") from None
        except KeyError:
            raise MalformedPickleError("holds an unknown instruction") from None

    def charge(self, amount: int) -> None:
        """Count the bytes that an instruction makes."""
        self.left -= amount
        if self.left < 0:
            raise MalformedPickleError("makes more than its size allows")

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the program."""
        end = self.place + count
        if count < 0 or end > len(self.data):
            raise CutPickleError("it ends in the middle")
        taken = self.data[self.place : end]
        self.place = end
        return taken

    def skip(self, count: int) -> None:
        """Go over `count` bytes without making anything of them."""
        if self.place + count > len(self.data):
            raise CutPickleError("it ends in the middle")
        self.place += count

    def number(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> bytes:
        """The program up to the next end of a line."""
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise CutPickleError("it ends in the middle")
        taken = self.data[self.place : end]
        self.place = end + 1
        return taken

    def pop_to_mark(self) -> list[Any]:
        """What was pushed since the last mark, which goes."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def memorise(self, number: int) -> None:
        """Keep what lies on the stack under a number, which Python counts up from 0."""
        value, absent = self.stack[-1], number - len(self.memo)
        if absent > GAP:
            raise MalformedPickleError("numbers its objects in no order")
        if absent >= 0:
            self.memo.extend([ABSENT] * (absent + 1))
        self.kept += self.memo[number] is ABSENT
        self.memo[number] = value

    def remember(self, number: int) -> None:
        """Put on the stack what was kept under a number."""
        if number < 0 or (value := self.memo[number]) is ABSENT:
            raise MalformedPickleError("remembers what was never there")
        self.stack.append(value)

    def call(self, function: object, arguments: object) -> object:
        """What stands for the call."""
        self.charge(OBJECT)
        if isinstance(function, PickledGlobal):
            return self.meaning.called(function, arguments, self.place - 1)
        return PickledCall(function, arguments, self.place - 1)

    def put(self, holder: object, key: object, value: object) -> None:
        """`holder[key] = value`."""
        self.charge(ITEM)
        if isinstance(holder, PickledCall):
            if holder.items is None:
                holder.items = PickledDict(holder.place)
            holder = holder.items
        if not isinstance(holder, PickledDict):
            raise MalformedPickleError("puts something by key into what is no dict")
        holder[as_key(key)] = value

    def add(self, holder: object, values: list[Any]) -> None:
        """`holder.extend(values)`."""
        if isinstance(holder, PickledCall):
            holder = holder.listed
        if not isinstance(holder, list):
            raise MalformedPickleError("adds something to what is no list")
        holder.extend(values)

    def build(self, holder: object, state: object) -> None:
        """`holder.__setstate__(state)`."""
        if isinstance(holder, PickledCall):
            # told twice, it might be anything
            holder.state = UnreadValue("contradiction") if holder.state is not None else state
        elif isinstance(holder, StateReceiver):
            holder.note_state(state)
        elif not isinstance(holder, PickledDict):
            raise MalformedPickleError("gives a state to what has none")


@contextlib.contextmanager
def _pause_garbage_collection() -> Iterator[None]:
    """Without garbage collection, which would go through all objects again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class StateReceiver(ABC):
    """A stand-in that wants to know when it is given a state."""

    __slots__ = ()

    @abstractmethod
    def note_state(self, state: object) -> None:
        """Take note of the state."""
