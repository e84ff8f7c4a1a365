"""What stands in for the few foreign objects that trainers save beside the weights.

NumPy's own functions trust the bytes that they are given, and Lightning is not ours to import.
"""

import argparse
import struct
from collections.abc import Iterator
from typing import Any

# The codes that NumPy pickles for bool, int and float types, and those of `struct`.
NUMBERS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
ORDERS = ("<", ">", "=", "|")


class StandIn:
    """Stands for a NumPy value that is no plain number; nothing reads it."""

    # as a key it could not be written again
    __hash__ = None  # type: ignore[assignment]  # Python's own way to say it; object has a method

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __reduce__(self) -> str:
        raise TypeError("a NumPy value that is no number")


class NumpyType(StandIn):
    """Stands for a `numpy.dtype`."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code
        self.order: object = "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]


def numpy_scalar(dtype: object = None, data: object = None, *_: object) -> object:
    """The Python number for a NumPy one, read from its bytes; a `StandIn` for any other value."""
    if not isinstance(dtype, NumpyType) or not isinstance(data, bytes):
        return StandIn()
    form = NUMBERS.get(dtype.code) if isinstance(dtype.code, str) else None
    order = {"|": "="}.get(dtype.order, dtype.order) if dtype.order in ORDERS else None
    if form is None or order is None or struct.calcsize(f"={form}") != len(data):
        return StandIn()
    return struct.unpack(f"{order}{form}", data)[0]


ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""The type of Lightning's `hyper_parameters`, a dict, by the names that it has had."""

HARMLESS: list[Any] = [
    argparse.Namespace,
    (NumpyType, "numpy.dtype"),
    (numpy_scalar, "numpy.core.multiarray.scalar"),
    (numpy_scalar, "numpy._core.multiarray.scalar"),
    *((dict, name) for name in ATTRIBUTE_DICTS),
]


HOLDERS = (dict, list, tuple, argparse.Namespace)


def without_stand_ins(loaded: object) -> tuple[str, ...]:
    """Put None where a stand-in is, so that `loaded` can be written; where that was, dotted."""
    lost = []
    seen: set[int] = set()
    pending: list[tuple[str, object]] = [("", loaded)]
    while pending:
        where, holder = pending.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for key, item in list(_items(holder)):
            place = f"{where}.{key}" if where else str(key)
            if _is_stand_in(item):
                _put_none(holder, key)
                lost.append(place)
            elif isinstance(item, HOLDERS):
                pending.append((place, item))
    return tuple(lost)


def _items(holder: object) -> Iterator[tuple[Any, object]]:
    if isinstance(holder, dict):
        yield from holder.items()
    elif isinstance(holder, list | tuple):
        yield from enumerate(holder)
    elif isinstance(holder, argparse.Namespace):
        yield from vars(holder).items()


def _is_stand_in(item: object) -> bool:
    """Itself one, or a tuple with one: tuples cannot be mended."""
    return isinstance(item, StandIn) or (
        isinstance(item, tuple) and any(isinstance(part, StandIn) for part in item)
    )


def _put_none(holder: Any, key: Any) -> None:
    if isinstance(holder, argparse.Namespace):
        setattr(holder, key, None)
    else:
        holder[key] = None
