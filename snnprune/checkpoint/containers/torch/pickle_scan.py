"""What a pickle asks for, found by reading its instructions without following any."""

import contextlib
import io
import pickletools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

# What a state_dict, and the arguments and scores that trainers save beside it, are made of.
EXPECTED = ("torch.", "collections.", "argparse.Namespace", "numpy.", "_codecs.encode")

# A torch file of the old format is five pickles in a row, then raw bytes.
PICKLES = 5


def foreign_global(data: bytes) -> str | None:
    """The first function or class named by the pickles in `data` that no state_dict needs."""
    named = (text for text, is_global in _texts(data) if is_global)
    return next((name for name in named if not name.startswith(EXPECTED)), None)


@dataclass(frozen=True, kw_only=True)
class PickledModule:
    """A module that was pickled whole."""

    name: str
    """Of its class, behind that of the Python module around it."""
    key: str | None
    """What it lies under, where it is in a dict."""


def pickled_module(data: bytes, *, is_zip: bool) -> PickledModule | None:
    """The first module in the pickles in `data`, known by the attributes that torch gives it."""
    before = deque([""], maxlen=4)
    found: PickledModule | None = None
    for text, is_global in _texts(data):
        if is_global and not text.startswith("collections."):
            found = PickledModule(name=text, key=_key([*before], text, is_zip=is_zip))
        elif text == "_parameters" and found is not None:
            return found
        elif not is_global:
            before.append(text)
    return None


def _key(before: list[str], name: str, *, is_zip: bool) -> str | None:
    """The text before a class; its own name may come between, and a word of the older format."""
    if ".".join(before[-2:]) == name:
        before = before[:-2]
    if before[-1:] == ["module"] and not is_zip:
        before = before[:-1]
    return before[-1] or None if before else None


class _Text(NamedTuple):
    """Text that a pickle pushes."""

    text: str
    is_global: bool
    """Whether it names a function or class, which is pushed."""


def _texts(data: bytes) -> Iterator[_Text]:
    """All that the pickles in `data` push, and nothing ("") where one begins."""
    stream = io.BytesIO(data)
    with contextlib.suppress(ValueError):  # the end of the pickles
        for _ in range(PICKLES):
            yield _Text("", False)
            yield from _pushed(stream)


def _pushed(stream: BinaryIO) -> Iterator[_Text]:
    pushed = deque(["", ""], maxlen=2)  # what STACK_GLOBAL takes, where it is text
    memo: dict[Any, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "GLOBAL" | "INST":
                yield _Text(str(argument).replace(" ", ".", 1), True)
            case "STACK_GLOBAL":
                yield _Text(".".join(pushed), True)
            case "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = pushed[-1]
            case "BINGET" | "LONG_BINGET":
                pushed.append(memo.get(argument, ""))
                yield _Text(pushed[-1], False)
            case _:
                pushed.append(argument if isinstance(argument, str) else "")
                if pushed[-1]:
                    yield _Text(pushed[-1], False)
