"""An interpreter of pickles that calls nothing.

It knows plain containers, numbers and text; whatever else a pickle names or makes becomes a record
of its name and its arguments. Nothing is imported, nothing is constructed, and of what the file
made text alone is hashed. Every step takes bounded memory, and there is a limit to their number.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

STEPS = 4_000_000
"""A checkpoint of 30,000 parameters and their Adam takes half of it."""
PROTOCOL = 5
LINE = 2**16
"""Bytes of what a pickle writes as a line: a number or a name."""


class BadPickleError(ValueError):
    """Bytes that are no pickle, or one that no checkpoint needs."""


class CutPickleError(BadPickleError):
    """A pickle that ends in the middle."""

    def __init__(self) -> None:
        super().__init__("it ends in the middle")


@dataclass(frozen=True, eq=False)
class Named:
    """A function or class that a pickle names."""

    name: str
    """Its module and its own name, with a dot between."""


class Made(dict[Any, Any]):
    """What a pickle would have made of a class or by a function: an inert record.

    As a dict it has the items that were put into it.
    """

    def __init__(self, maker: object, args: object) -> None:
        super().__init__()
        self.maker, self.args = maker, args
        self.state: object = None
        self.appended: list[object] = []

    @property
    def name(self) -> str:
        """What it was made by."""
        return self.maker.name if isinstance(self.maker, Named) else "?"


class Bag(list[Any]):
    """The items of a set."""


@dataclass(frozen=True, eq=False)
class Key:
    """A key of a dict that is no text: it is compared as an object, whatever it holds."""

    value: object

    def __str__(self) -> str:
        plain = isinstance(self.value, int | float | bytes | None)
        return str(self.value)[:100] if plain else type(self.value).__name__


Build = Callable[[str, Any], object]
"""What a known name makes of its arguments; the same `Made` as without where it knows nothing."""


@dataclass
class Unpickling:
    """One or several pickles in a row in a file."""

    file: BinaryIO
    known: Callable[[Named, Any], object | None] = lambda _, __: None
    """What a call of a name comes to; None for a record of it."""
    persistent: Callable[[object], object] = lambda _: None
    names: dict[str, None] = field(default_factory=dict)
    """All names that pickles of it had, in their order."""
    steps: int = 0

    def __post_init__(self) -> None:
        here = self.file.tell()
        self.end = self.file.seek(0, os.SEEK_END)
        self.file.seek(here)

    def load(self) -> object:
        """The next pickle.

        Raises:
            BadPickleError: there is none.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        try:
            while (code := self.file.read(1)) != b".":
                self.steps += 1
                if self.steps > STEPS:
                    raise BadPickleError(f"more than {STEPS:,} steps")
                step = _STEPS_OF.get(code)
                if step is None:
                    raise BadPickleError(f"opcode {code!r}") if code else CutPickleError()
                step(self)
            return self.stack.pop()
        except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise BadPickleError("its instructions do not fit together") from error
        except UnicodeDecodeError as error:
            raise BadPickleError("its text is damaged") from error
        except BadPickleError:
            raise
        except ValueError as error:
            raise BadPickleError(str(error)[:200]) from error

    def bytes_of(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= self.end - self.file.tell():
            raise CutPickleError
        return self.file.read(count)

    def number(self, form: str) -> int:
        """The next whole number, of a form of `struct`."""
        found: int = struct.unpack(form, self.bytes_of(struct.calcsize(form)))[0]
        return found

    def line(self) -> str:
        """The next line of text."""
        found = self.file.readline(LINE)
        if not found.endswith(b"\n"):
            raise BadPickleError("a line has no end") if len(found) == LINE else CutPickleError()
        return found[:-1].decode("utf-8")

    def items(self) -> list[Any]:
        """What is on the stack since the last mark, which is taken off."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def named(self, module: object, name: object) -> Named:
        """A function or class by its module and name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise BadPickleError("a name is no text")
        found = f"{module[:LINE]}.{name[:LINE]}"
        self.names[found] = None
        return Named(found)

    def made(self, maker: object, args: object) -> object:
        """What a call comes to."""
        found = self.known(maker, args) if isinstance(maker, Named) else None
        return Made(maker, args) if found is None else found


def _put(holder: Any, pairs: list[Any]) -> None:
    if not isinstance(holder, dict):
        raise BadPickleError("items are set in what has none")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        holder[key if type(key) is str else Key(key)] = value


def _append(holder: Any, items: list[Any]) -> None:
    if isinstance(holder, Made):
        holder.appended += items
    elif type(holder) is list or type(holder) is Bag:
        holder += items
    else:
        raise BadPickleError("something is appended to what is no list")


def _push(value: Callable[[Unpickling], Any]) -> Callable[[Unpickling], None]:
    def step(machine: Unpickling) -> None:
        made = value(machine)  # which may take up another stack
        machine.stack.append(made)

    return step


def _mark(machine: Unpickling) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Unpickling) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.items()


def _pop_mark(machine: Unpickling) -> None:
    machine.items()


def _protocol(machine: Unpickling) -> None:
    if machine.number("<B") > PROTOCOL:
        raise BadPickleError("it is of an unknown protocol")


def _frame(machine: Unpickling) -> None:
    machine.number("<Q")  # how much may be read at once


def _tuple(count: int) -> Callable[[Unpickling], None]:
    def step(machine: Unpickling) -> None:
        taken = tuple(machine.stack[len(machine.stack) - count :])
        if len(taken) < count:
            raise IndexError
        machine.stack[len(machine.stack) - count :] = [taken]

    return step


def _dict(machine: Unpickling) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _put(made, machine.items())
    return made


def _set_item(machine: Unpickling) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine.stack[-1], [key, value])


def _set_items(machine: Unpickling) -> None:
    items = machine.items()
    _put(machine.stack[-1], items)


def _append_one(machine: Unpickling) -> None:
    item = machine.stack.pop()
    _append(machine.stack[-1], [item])


def _append_items(machine: Unpickling) -> None:
    items = machine.items()
    _append(machine.stack[-1], items)


def _remember(index: Callable[[Unpickling], int]) -> Callable[[Unpickling], None]:
    def step(machine: Unpickling) -> None:
        machine.memo[index(machine)] = machine.stack[-1]

    return step


def _recall(index: Callable[[Unpickling], int]) -> Callable[[Unpickling], None]:
    return lambda machine: machine.stack.append(machine.memo[index(machine)])


def _reduce(machine: Unpickling) -> None:
    args = machine.stack.pop()
    machine.stack[-1] = machine.made(machine.stack[-1], args)


def _build(machine: Unpickling) -> None:
    state = machine.stack.pop()
    if isinstance(machine.stack[-1], Made):
        machine.stack[-1].state = state


def _instance(machine: Unpickling) -> object:
    maker = machine.named(machine.line(), machine.line())
    return machine.made(maker, tuple(machine.items()))


def _object(machine: Unpickling) -> object:
    maker, *args = machine.items()
    return machine.made(maker, tuple(args))


def _new_object(machine: Unpickling) -> object:
    args, maker = machine.stack.pop(), machine.stack.pop()
    return machine.made(maker, args)


def _new_object_by_name(machine: Unpickling) -> object:
    named, args, maker = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    return machine.made(maker, (args, named))


def _stack_global(machine: Unpickling) -> Named:
    name, module = machine.stack.pop(), machine.stack.pop()
    return machine.named(module, name)


def _global(machine: Unpickling) -> Named:
    module = machine.line()
    return machine.named(module, machine.line())


def _integer(machine: Unpickling) -> object:
    text = machine.line()
    return {"00": False, "01": True}.get(text) if text in ("00", "01") else int(text)


def _long(form: str) -> Callable[[Unpickling], int]:
    return lambda machine: int.from_bytes(
        machine.bytes_of(machine.number(form)), "little", signed=True
    )


def _text(form: str) -> Callable[[Unpickling], str]:
    return lambda machine: machine.bytes_of(machine.number(form)).decode("utf-8", "surrogatepass")


def _raw(form: str) -> Callable[[Unpickling], bytes]:
    return lambda machine: machine.bytes_of(machine.number(form))


def _old_text(form: str) -> Callable[[Unpickling], str]:
    return lambda machine: machine.bytes_of(machine.number(form)).decode("latin-1")


def _quoted(machine: Unpickling) -> str:
    text = machine.line()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise BadPickleError("a text has no quotes")
    return text[1:-1].encode("latin-1", "replace").decode("unicode_escape")


_STEPS_OF: dict[bytes, Callable[[Unpickling], None]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _push(lambda machine: machine.stack[-1]),
    b"N": _push(lambda _: None),
    b"\x88": _push(lambda _: True),
    b"\x89": _push(lambda _: False),
    b"F": _push(lambda machine: float(machine.line())),
    b"G": _push(lambda machine: struct.unpack(">d", machine.bytes_of(8))[0]),
    b"I": _push(_integer),
    b"L": _push(lambda machine: int(machine.line().removesuffix("L"))),
    b"J": _push(lambda machine: machine.number("<i")),
    b"K": _push(lambda machine: machine.number("<B")),
    b"M": _push(lambda machine: machine.number("<H")),
    b"\x8a": _push(_long("<B")),
    b"\x8b": _push(_long("<i")),
    b"S": _push(_quoted),
    b"T": _push(_old_text("<i")),
    b"U": _push(_old_text("<B")),
    b"V": _push(lambda machine: machine.line().encode("latin-1").decode("raw_unicode_escape")),
    b"X": _push(_text("<I")),
    b"\x8c": _push(_text("<B")),
    b"\x8d": _push(_text("<Q")),
    b"B": _push(_raw("<I")),
    b"C": _push(_raw("<B")),
    b"\x8e": _push(_raw("<Q")),
    b"\x96": _push(_raw("<Q")),
    b"]": _push(lambda _: []),
    b"l": _push(lambda machine: machine.items()),
    b"a": _append_one,
    b"e": _append_items,
    b")": _push(lambda _: ()),
    b"t": _push(lambda machine: tuple(machine.items())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"}": _push(lambda _: {}),
    b"d": _push(_dict),
    b"s": _set_item,
    b"u": _set_items,
    b"\x8f": _push(lambda _: Bag()),
    b"\x90": _append_items,
    b"\x91": _push(lambda machine: Bag(machine.items())),
    b"p": _remember(lambda machine: int(machine.line())),
    b"q": _remember(lambda machine: machine.number("<B")),
    b"r": _remember(lambda machine: machine.number("<I")),
    b"\x94": _remember(lambda machine: len(machine.memo)),
    b"g": _recall(lambda machine: int(machine.line())),
    b"h": _recall(lambda machine: machine.number("<B")),
    b"j": _recall(lambda machine: machine.number("<I")),
    b"c": _push(_global),
    b"\x93": _push(_stack_global),
    b"R": _reduce,
    b"b": _build,
    b"i": _push(_instance),
    b"o": _push(_object),
    b"\x81": _push(_new_object),
    b"\x92": _push(_new_object_by_name),
    b"P": _push(lambda machine: machine.persistent(machine.line())),
    b"Q": _push(lambda machine: machine.persistent(machine.stack.pop())),
}
"""By opcode. Buffers outside the pickle and the registry of extensions are no torch file's."""
