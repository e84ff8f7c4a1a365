"""What a pickle asks for, found by reading its instructions without following any."""

import contextlib
import io
import pickletools
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO

# What a state_dict, and the arguments and scores that trainers save beside it, are made of.
EXPECTED = ("torch.", "collections.", "argparse.Namespace", "numpy.", "_codecs.encode")

# A torch file of the old format is five pickles in a row, then raw bytes.
PICKLES = 5


def foreign_global(data: bytes) -> str | None:
    """The first function or class named by the pickles in `data` that no state_dict needs."""
    stream = io.BytesIO(data)
    with contextlib.suppress(ValueError):  # the end of the pickles
        for _ in range(PICKLES):
            for name in _globals(stream):
                if not name.startswith(EXPECTED):
                    return name
    return None


def _globals(stream: BinaryIO) -> Iterator[str]:
    pushed = deque(["", ""], maxlen=2)  # what STACK_GLOBAL takes, where it is text
    memo: dict[Any, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "GLOBAL" | "INST":
                yield str(argument).replace(" ", ".", 1)
            case "STACK_GLOBAL":
                yield ".".join(pushed)
            case "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = pushed[-1]
            case "BINGET" | "LONG_BINGET":
                pushed.append(memo.get(argument, ""))
            case _:
                pushed.append(argument if isinstance(argument, str) else "")
