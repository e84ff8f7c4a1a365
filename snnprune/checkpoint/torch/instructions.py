"""What each instruction of a pickle does to the machine."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable

from snnprune.checkpoint.torch.machine import (
    LARGEST_NUMBER,
    LIST,
    LONGEST,
    LONGEST_NAME,
    NAME,
    OBJECT,
    SMALL,
    TABLE,
    TUPLE,
    Instruction,
    Machine,
    MalformedPickleError,
    PickledCall,
    PickledDict,
    PickledGlobal,
    UnreadValue,
)

INSTRUCTIONS: dict[int, Instruction] = {}
"""What each opcode does."""

RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that have another name since Python 3."""


def instruction(*opcodes: bytes) -> Callable[[Instruction], Instruction]:
    """Take the decorated function for these opcodes."""

    def take(function: Instruction) -> Instruction:
        INSTRUCTIONS.update({opcode[0]: function for opcode in opcodes})
        return function

    return take


# the program itself


@instruction(pickle.PROTO)
def _(on: Machine) -> None:
    if on.number(1) > 5:
        raise MalformedPickleError("is of a later protocol than 5")


@instruction(pickle.FRAME)
def _(on: Machine) -> None:
    on.skip(8)  # how the bytes were buffered, which does not matter


@instruction(pickle.MARK)
def _(on: Machine) -> None:
    on.charge(LIST)
    on.marks.append(on.stack)
    on.stack = []


@instruction(pickle.POP)
def _(on: Machine) -> None:
    if on.stack:
        on.stack.pop()
    else:
        on.pop_to_mark()


@instruction(pickle.POP_MARK)
def _(on: Machine) -> None:
    on.pop_to_mark()


@instruction(pickle.DUP)
def _(on: Machine) -> None:
    on.stack.append(on.stack[-1])


# constants


@instruction(pickle.NONE)
def _(on: Machine) -> None:
    on.stack.append(None)


@instruction(pickle.NEWTRUE)
def _(on: Machine) -> None:
    on.stack.append(True)


@instruction(pickle.NEWFALSE)
def _(on: Machine) -> None:
    on.stack.append(False)


# numbers


@instruction(pickle.BININT)
def _(on: Machine) -> None:
    on.charge(SMALL)
    on.stack.append(int.from_bytes(on.take(4), "little", signed=True))


@instruction(pickle.BININT1)
def _(on: Machine) -> None:
    on.stack.append(on.data[on.place])
    on.place += 1


@instruction(pickle.BININT2)
def _(on: Machine) -> None:
    on.charge(SMALL)
    on.stack.append(on.number(2))


@instruction(pickle.LONG1)
def _(on: Machine) -> None:
    _push_integer(on, on.number(1))


@instruction(pickle.LONG4)
def _(on: Machine) -> None:
    _push_integer(on, on.number(4))


@instruction(pickle.INT)
def _(on: Machine) -> None:
    line = on.line()
    on.stack.append(line == b"01" if line in (b"00", b"01") else _parse_integer(line))


@instruction(pickle.LONG)
def _(on: Machine) -> None:
    on.stack.append(_parse_integer(on.line().removesuffix(b"L")))


@instruction(pickle.FLOAT)
def _(on: Machine) -> None:
    try:
        on.stack.append(float(on.line()[:LONGEST_NAME]))
    except ValueError:
        raise MalformedPickleError("holds text in place of a number") from None


@instruction(pickle.BINFLOAT)
def _(on: Machine) -> None:
    on.charge(SMALL)
    on.stack.append(struct.unpack(">d", on.take(8))[0])


def _push_integer(on: Machine, size: int) -> None:
    if size > LARGEST_NUMBER:
        on.skip(size)
        on.stack.append(UnreadValue("long number"))
    else:
        on.charge(SMALL + size)
        on.stack.append(int.from_bytes(on.take(size), "little", signed=True))


def _parse_integer(digits: bytes) -> object:
    if len(digits) > 2 * LARGEST_NUMBER:
        return UnreadValue("long number")
    try:
        return int(digits)
    except ValueError:
        raise MalformedPickleError("holds text in place of a number") from None


# text and bytes


@instruction(pickle.SHORT_BINUNICODE)
def _(on: Machine) -> None:
    _push_text(on, on.number(1))


@instruction(pickle.BINUNICODE)
def _(on: Machine) -> None:
    _push_text(on, on.number(4))


@instruction(pickle.BINUNICODE8)
def _(on: Machine) -> None:
    _push_text(on, on.number(8))


@instruction(pickle.SHORT_BINSTRING)
def _(on: Machine) -> None:
    _push_old_text(on, on.number(1))


@instruction(pickle.BINSTRING)
def _(on: Machine) -> None:
    _push_old_text(on, on.number(4))


@instruction(pickle.UNICODE)
def _(on: Machine) -> None:
    _push_decoded(on, on.line(), "raw-unicode-escape")


@instruction(pickle.STRING)
def _(on: Machine) -> None:
    line = on.line().rstrip()
    if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
        raise MalformedPickleError("holds text without its quotes")
    if b"\\" in line or not line.isascii():  # of Python 2, where no key of a state_dict needs it
        on.stack.append(UnreadValue("text"))
    else:
        _push_decoded(on, line[1:-1], "utf-8")


@instruction(pickle.SHORT_BINBYTES)
def _(on: Machine) -> None:
    _push_bytes(on, on.number(1))


@instruction(pickle.BINBYTES)
def _(on: Machine) -> None:
    _push_bytes(on, on.number(4))


@instruction(pickle.BINBYTES8, pickle.BYTEARRAY8)
def _(on: Machine) -> None:
    _push_bytes(on, on.number(8))


def _push_text(on: Machine, size: int) -> None:
    if size > LONGEST:
        on.skip(size)
        on.stack.append(UnreadValue("long text"))
    else:
        _push_decoded(on, on.take(size), "utf-8")


def _push_old_text(on: Machine, size: int) -> None:
    """Text of Python 2, which may be bytes."""
    try:
        str(on.data[on.place : on.place + min(size, LONGEST)], "utf-8")
    except UnicodeDecodeError:
        _push_bytes(on, size)
    else:
        _push_text(on, size)


def _push_decoded(on: Machine, data: bytes, encoding: str) -> None:
    on.charge(TUPLE + 4 * len(data))  # a character may take as many bytes
    try:
        on.stack.append(str(data, encoding, "surrogatepass"))
    except UnicodeDecodeError:
        raise MalformedPickleError("its text is damaged") from None


def _push_bytes(on: Machine, size: int) -> None:
    if size > LONGEST_NAME:
        on.skip(size)
        on.stack.append(UnreadValue("bytes"))
    else:
        on.charge(TUPLE + size)
        on.stack.append(on.take(size))


# containers


@instruction(pickle.EMPTY_TUPLE)
def _(on: Machine) -> None:
    on.stack.append(())


@instruction(pickle.TUPLE1)
def _(on: Machine) -> None:
    on.charge(TUPLE)
    on.stack[-1] = (on.stack[-1],)


@instruction(pickle.TUPLE2)
def _(on: Machine) -> None:
    on.charge(TUPLE)
    last = on.stack.pop()
    on.stack[-1] = (on.stack[-1], last)


@instruction(pickle.TUPLE3)
def _(on: Machine) -> None:
    on.charge(TUPLE)
    last, middle = on.stack.pop(), on.stack.pop()
    on.stack[-1] = (on.stack[-1], middle, last)


@instruction(pickle.TUPLE)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.charge(TUPLE + 8 * len(found))
    on.stack.append(tuple(found))


@instruction(pickle.EMPTY_LIST)
def _(on: Machine) -> None:
    on.charge(LIST)
    on.stack.append([])


@instruction(pickle.LIST)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.stack.append(found)


@instruction(pickle.EMPTY_DICT)
def _(on: Machine) -> None:
    on.charge(TABLE)
    on.stack.append(PickledDict(on.place - 1))


@instruction(pickle.DICT)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.charge(TABLE)
    table = PickledDict(on.place - 1)
    _put_all(on, table, found)
    on.stack.append(table)


@instruction(pickle.EMPTY_SET)
def _(on: Machine) -> None:
    on.stack.append(on.call(PickledGlobal("builtins", "set"), ()))


@instruction(pickle.FROZENSET)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.stack.append(on.call(PickledGlobal("builtins", "frozenset"), (found,)))


@instruction(pickle.APPEND)
def _(on: Machine) -> None:
    value = on.stack.pop()
    on.add(on.stack[-1], [value])


@instruction(pickle.APPENDS, pickle.ADDITEMS)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.add(on.stack[-1], found)


@instruction(pickle.SETITEM)
def _(on: Machine) -> None:
    value, key = on.stack.pop(), on.stack.pop()
    on.put(on.stack[-1], key, value)


@instruction(pickle.SETITEMS)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    _put_all(on, on.stack[-1], found)


def _put_all(on: Machine, holder: object, found: list[object]) -> None:
    if len(found) % 2:
        raise MalformedPickleError("has a key without a value")
    for key, value in zip(found[::2], found[1::2], strict=True):
        on.put(holder, key, value)


# what was there before


@instruction(pickle.PUT)
def _(on: Machine) -> None:
    on.memorise(_read_index(on))


@instruction(pickle.BINPUT)
def _(on: Machine) -> None:
    number = on.data[on.place]
    on.place += 1
    on.memorise(number)


@instruction(pickle.LONG_BINPUT)
def _(on: Machine) -> None:
    on.memorise(on.number(4))


@instruction(pickle.MEMOIZE)
def _(on: Machine) -> None:
    on.memorise(on.kept)


@instruction(pickle.GET)
def _(on: Machine) -> None:
    on.remember(_read_index(on))


@instruction(pickle.BINGET)
def _(on: Machine) -> None:
    number = on.data[on.place]
    on.place += 1
    on.remember(number)


@instruction(pickle.LONG_BINGET)
def _(on: Machine) -> None:
    on.remember(on.number(4))


def _read_index(on: Machine) -> int:
    number = _parse_integer(on.line())
    if not isinstance(number, int) or number < 0:
        raise MalformedPickleError("numbers its objects in no order")
    return number


# what is named, and what would be called


@instruction(pickle.GLOBAL)
def _(on: Machine) -> None:
    on.stack.append(_make_global(on, _decode_name(on.line()), _decode_name(on.line())))


@instruction(pickle.STACK_GLOBAL)
def _(on: Machine) -> None:
    name, module = on.stack.pop(), on.stack.pop()
    on.stack.append(_make_global(on, module, name))


@instruction(pickle.EXT1)
def _(on: Machine) -> None:
    _push_registered(on, 1)


@instruction(pickle.EXT2)
def _(on: Machine) -> None:
    _push_registered(on, 2)


@instruction(pickle.EXT4)
def _(on: Machine) -> None:
    _push_registered(on, 4)


@instruction(pickle.REDUCE, pickle.NEWOBJ)
def _(on: Machine) -> None:
    arguments, function = on.stack.pop(), on.stack.pop()
    on.stack.append(on.call(function, arguments))


@instruction(pickle.NEWOBJ_EX)
def _(on: Machine) -> None:
    _, arguments, function = on.stack.pop(), on.stack.pop(), on.stack.pop()
    on.charge(OBJECT)
    on.stack.append(PickledCall(function, arguments, on.place - 1))


@instruction(pickle.INST)
def _(on: Machine) -> None:
    found = on.pop_to_mark()
    on.stack.append(
        on.call(_make_global(on, _decode_name(on.line()), _decode_name(on.line())), tuple(found))
    )


@instruction(pickle.OBJ)
def _(on: Machine) -> None:
    function, *arguments = on.pop_to_mark() or [None]
    on.stack.append(on.call(function, tuple(arguments)))


@instruction(pickle.BUILD)
def _(on: Machine) -> None:
    state = on.stack.pop()
    on.build(on.stack[-1], state)


@instruction(pickle.PERSID)
def _(on: Machine) -> None:
    on.stack.append(on.meaning.persistent(_decode_name(on.line())))


@instruction(pickle.BINPERSID)
def _(on: Machine) -> None:
    on.charge(OBJECT)
    on.stack.append(on.meaning.persistent(on.stack.pop()))


@instruction(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
def _(_: Machine) -> None:
    raise MalformedPickleError("has parts outside itself")


def _decode_name(line: bytes) -> str:
    return line[: LONGEST_NAME + 1].decode("utf-8", "replace")


def _make_global(on: Machine, module: object, name: object) -> PickledGlobal:
    if not isinstance(module, str) or not isinstance(name, str):
        raise MalformedPickleError("names a class by what is no text")
    if max(len(module), len(name)) > LONGEST_NAME:
        raise MalformedPickleError(f"names a class by more than {LONGEST_NAME:,} characters")
    found = on.names.get((module, name))
    if found is None:
        on.charge(NAME + 4 * (len(module) + len(name)))
        found = on.names[module, name] = PickledGlobal(RENAMED.get(module, module), name)
    return found


def _push_registered(on: Machine, size: int) -> None:
    on.stack.append(PickledGlobal("copyreg", f"extension {on.number(size)}"))
