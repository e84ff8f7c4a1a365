"""What a torch file comes to: tensors by where their values lie, and stand-ins without calls."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint.torch.instructions import INSTRUCTIONS
from snnprune.checkpoint.torch.machine import (
    CutPickleError,
    Machine,
    MalformedPickleError,
    Meaning,
    PickledCall,
    PickledDict,
    PickledGlobal,
    StateReceiver,
    kind_of,
)
from snnprune.errors import InputError
from snnprune.files.reading import COPY_AGAIN, changed_error

DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
}
"""The types that are read, by their names in torch."""

STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "_UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
"""The type of a storage's elements, by the name of its class; of quantised ones, of their codes."""


@dataclass(eq=False, slots=True)
class Storage:
    """Values in a row, somewhere in the file."""

    key: object
    kind: str
    """The name of its class."""
    location: object
    """The device that it was saved from."""
    count: int
    """Elements."""
    begin: int = -1
    """Where its bytes begin in the file, once that is known."""
    doubt: str | None = None
    """What is wrong with it."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its elements."""
        found: torch.dtype = DTYPES[STORAGES[self.kind]]
        return found

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class View:
    """A part of a storage, which may be all of it, in elements."""

    storage: Storage
    offset: int
    count: int


class StoredTensor(StateReceiver):
    """A tensor of the file."""

    __slots__ = (
        "doubt", "dtype", "grad", "is_parameter", "kind", "offset", "place", "shape", "storage",
        "stride", "untyped",
    )  # fmt: skip

    def __init__(self, place: int, kind: str | None = None) -> None:
        self.place = place
        """Where in the pickle the call is that makes it of its storage; -1 where more is done."""
        self.kind = kind
        """What it is where it is no plain tensor of numbers: `quantised`."""
        self.doubt: tuple[str, str] | None = None
        """What it claims wrongly, and what to do."""
        self.storage: Storage | None = None
        self.dtype = torch.float32
        self.shape: tuple[int, ...] = ()
        self.stride: tuple[int, ...] = ()
        self.offset = 0
        """In elements of its type."""
        self.untyped = False
        """Whether it, and not its storage, knows the type."""
        self.grad = False
        """Whether it requires a gradient."""
        self.is_parameter = False

    def note_state(self, state: object) -> None:
        """As a parameter of torch 0.3 was told of its hooks; another state would change it."""
        if not (isinstance(state, tuple) and len(state) == 3):
            self.kind = self.kind or "given other values after it was made"


def rebuild_tensor(
    function: str, arguments: object, place: int, depth: int = 0
) -> StoredTensor | None:
    """The tensor that a function of torch would make; None where it makes none.

    What the function would not take gives a tensor of the kind `not as torch saves it`.
    """
    rebuild = REBUILDERS.get(function)
    if rebuild is None:
        return None
    try:
        return rebuild(arguments, place, depth)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError):
        return StoredTensor(place, "not as torch saves it")


def _rebuild_plain(arguments: Any, place: int, _: int) -> StoredTensor:
    """`_rebuild_tensor(storage, offset, size, stride)` and `_v2`, with what autograd needs."""
    view, offset, size, stride, *more = arguments
    found = _place_on_storage(StoredTensor(place), view, offset, size, stride)
    found.grad = bool(more) and more[0] is True
    if len(more) > 2 and more[2]:  # whether it is conjugated or negated
        found.kind = "a conjugated or negated view"
    return found


def _rebuild_typed(arguments: Any, place: int, _: int) -> StoredTensor:
    """`_rebuild_tensor_v3`, whose storage knows no type."""
    view, offset, size, stride, grad, _, dtype, *more = arguments
    found = StoredTensor(place)
    found.grad = grad is True
    found.untyped = True
    if dtype.name not in DTYPES:
        found.kind = f"of {dtype.name}"
        return found
    found.dtype = DTYPES[dtype.name]
    _place_on_storage(found, view, offset, size, stride)
    if more and more[0]:
        found.kind = "a conjugated or negated view"
    return found


def _rebuild_quantised(arguments: Any, place: int, _: int) -> StoredTensor:
    view, offset, size, stride, *_ = arguments
    found = _place_on_storage(StoredTensor(place), view, offset, size, stride)
    found.kind = "quantised"
    return found


def _place_on_storage(
    found: StoredTensor, view: Any, offset: Any, size: Any, stride: Any
) -> StoredTensor:
    """The tensor with its place in the storage, or with what is wrong about it."""
    if not isinstance(view, View):
        found.kind = f"made of a {kind_of(view)}"
        return found
    found.storage = view.storage
    if not found.untyped:
        found.dtype = view.storage.dtype
    found.shape, found.stride = _read_sizes(size), _read_sizes(stride)
    if len(found.shape) != len(found.stride):
        raise ValueError
    step = found.dtype.itemsize // view.storage.dtype.itemsize or 1
    found.offset = _read_sizes((offset,))[0] + view.offset // step
    _require_inside(found, view.count * view.storage.dtype.itemsize)
    return found


def _read_sizes(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value < 2**59 for value in values) or len(values) > 64:
        raise ValueError
    return tuple(values)


def _require_inside(found: StoredTensor, stored: int) -> None:
    """Note where a tensor claims more bytes than there are."""
    claimed = math.prod(found.shape) * found.dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(found.shape, found.stride, strict=True))
    reach = (found.offset + last + 1) * found.dtype.itemsize if claimed else 0
    if math.prod(max(size, 1) for size in found.shape) >= 2**59:
        raise ValueError
    if claimed > stored:
        hint = "save a contiguous() copy of an expanded tensor"
        found.doubt = f"claims {claimed:,} bytes, {stored:,} are stored", hint
    elif reach > stored:
        found.doubt = f"reaches to byte {reach:,}, {stored:,} are stored", "save it again"


def _rebuild_parameter(arguments: Any, _: int, __: int) -> StoredTensor:
    """`_rebuild_parameter(data, requires_grad, hooks)`, the class itself, and Variables of 0.3."""
    found = arguments[0]
    if not isinstance(found, StoredTensor):
        raise TypeError
    found.is_parameter, found.grad = True, arguments[1:2] != (False,)
    return found


def _rebuild_subclass(arguments: Any, _: int, depth: int) -> StoredTensor:
    """`_rebuild_from_type_v2(function, type, arguments, attributes)`."""
    function, kind, inner, *_ = arguments
    if depth > 4:
        raise ValueError
    found = (
        rebuild_tensor(str(function), inner, -1, depth + 1)
        if isinstance(function, PickledGlobal)
        else None
    )
    if found is None:
        raise TypeError
    if not (isinstance(kind, PickledGlobal) and str(kind) in PLAIN):
        found.kind = "of a class of its own"
    return found


def _make_odd_rebuilder(kind: str) -> Any:
    return lambda _, place, __: StoredTensor(place, kind)


PLAIN = (
    "torch.Tensor",
    "torch._C.TensorBase",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
)
"""Classes of plain tensors, which may have attributes."""

_UTILS = "torch._utils._rebuild_"

REBUILDERS = {
    f"{_UTILS}tensor": _rebuild_plain,
    f"{_UTILS}tensor_v2": _rebuild_plain,
    f"{_UTILS}tensor_v3": _rebuild_typed,
    f"{_UTILS}qtensor": _rebuild_quantised,
    f"{_UTILS}parameter": _rebuild_parameter,
    f"{_UTILS}parameter_with_state": _rebuild_parameter,
    f"{_UTILS}sparse_tensor": _make_odd_rebuilder("sparse"),
    f"{_UTILS}sparse_csr_tensor": _make_odd_rebuilder("sparse"),
    f"{_UTILS}nested_tensor": _make_odd_rebuilder("nested"),
    f"{_UTILS}meta_tensor_no_storage": _make_odd_rebuilder("without values"),
    f"{_UTILS}wrapper_subclass": _make_odd_rebuilder("of a class of its own"),
    f"{_UTILS}device_tensor_from_numpy": _make_odd_rebuilder("of another device, as a NumPy array"),
    f"{_UTILS}device_tensor_from_cpu_tensor": _make_odd_rebuilder("of another device"),
    f"{_UTILS}xla_tensor": _make_odd_rebuilder("of another device, as a NumPy array"),
    "torch.nested._internal.nested_tensor._rebuild_njt": _make_odd_rebuilder("nested"),
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch._tensor._rebuild_from_type": _rebuild_subclass,
    "torch.tensor._rebuild_from_type": _rebuild_subclass,
    "torch.tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch.autograd.variable.Variable": _rebuild_parameter,
}


MAPPINGS = ("collections.OrderedDict", "builtins.dict")
"""Dicts that are made empty by a call and filled afterwards."""

ATTACKS = {
    *("os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "pty", "socket", "shutil"),
    *("ctypes", "webbrowser", "commands", "timeit", "code", "marshal", "pdb", "bdb"),
}
RUNNING = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input", "execfile"}
"""Modules, and functions of `builtins`, that only a file made to do harm calls."""


class CodeError(Exception):
    """The file calls what no trainer saves; its text is the name of that."""


class PickledTensors:
    """The tensors and storages that a file's pickles speak of."""

    def __init__(self) -> None:
        self.storages: dict[object, Storage] = {}
        self.all: list[StoredTensor] = []
        """Every tensor, wherever it lies."""
        self.others: dict[object, StoredTensor | View] = {}
        """What a bare number or text leads to, as in tar files."""
        self.names: dict[str, None] = {}
        """Of every class and function that was called, in their order."""
        self._harmless: set[PickledGlobal] = set()

    def meaning(self) -> Meaning:
        """What calls and persistent ids stand for."""
        return Meaning(called=self.called, persistent=self.persistent)

    def called(self, function: PickledGlobal, arguments: object, place: int) -> object:
        """What a call stands for.

        Raises:
            CodeError: it would run a program.
        """
        if function not in self._harmless:
            _require_harmless(function)
            self.names[function.full] = None
            self._harmless.add(function)
        name = function.full
        if (found := rebuild_tensor(name, arguments, place)) is not None:
            self.all.append(found)
            return found
        if name in MAPPINGS and arguments == ():
            return PickledDict(place)
        if name == "torch.Size" and _is_sizes(arguments):
            return tuple(arguments[0])  # type: ignore[index]  # as was seen
        return PickledCall(function, arguments, place)

    def persistent(self, identity: object) -> object:
        """The storage that an id leads to, the class of a module, or a tensor of a tar file."""
        if type(identity) in (int, str):
            return self._make_numbered(identity)
        if not isinstance(identity, tuple) or len(identity) < 2:
            raise MalformedPickleError("refers to what is no storage")
        if identity[0] == "module":  # with the source of its class
            return identity[1]
        if identity[0] == "storage" and len(identity) in (5, 6):
            return self._make_view(*identity[1:])
        if isinstance(identity[0], PickledGlobal):  # a module of a tar file
            return identity[0]
        raise MalformedPickleError("refers to what is no storage")

    def _make_numbered(self, identity: object) -> object:
        if isinstance(identity, str) and identity.isascii() and identity.isdigit():
            identity = int(identity[:20])
        if identity not in self.others:
            raise MalformedPickleError("refers to what is no storage")
        return self.others[identity]

    def _make_view(
        self, kind: object, key: object, location: object, count: object, part: object = None
    ) -> View:
        if type(key) not in (str, int) or not _is_count(count):
            raise MalformedPickleError("refers to a storage without a key or a size")
        storage = self.storage(kind, key, location, count)  # type: ignore[arg-type]  # as above
        if part is None:
            return View(storage, 0, storage.count)
        return _parse_view(storage, part)

    def storage(self, kind: object, key: object, location: object, count: int) -> Storage:
        """The storage under `key`; one that is described in two ways is in doubt.

        Raises:
            MalformedPickleError: its class is none of a storage.
        """
        name = (
            kind.name if isinstance(kind, PickledGlobal) and kind.module.startswith("torch") else ""
        )
        if name not in STORAGES:
            raise MalformedPickleError("refers to what is no storage")
        new = Storage(key, name, location, count)
        known = self.storages.setdefault(key, new)
        if (known.kind, known.count) != (name, count):
            known.doubt = "is described in two ways"
        return known


def _require_harmless(function: PickledGlobal) -> None:
    runs = function.module == "builtins" and function.name in RUNNING
    if runs or function.module.partition(".")[0] in ATTACKS:
        raise CodeError(function.full)


def _parse_view(storage: Storage, part: object) -> View:
    """`(key, offset, size)` of a view, which torch wrote before 0.2."""
    if not isinstance(part, tuple) or len(part) != 3 or not all(map(_is_count, part[1:])):
        raise MalformedPickleError("refers to a part of a storage without its size")
    _, offset, count = part
    if offset + count > storage.count:
        raise MalformedPickleError("refers to a part outside its storage")
    return View(storage, offset, count)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**59


def _is_sizes(arguments: object) -> bool:
    return (
        isinstance(arguments, tuple)
        and len(arguments) == 1
        and isinstance(arguments[0], tuple | list)
    )


SAVE_STATE_DICT = "save the state_dict instead: torch.save(model.state_dict(), FILE)"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """The part of a zip archive that a storage is in."""

    size: int
    """Bytes, which may be more than the storage has."""
    crcs: tuple[int, ...]
    """Where in the file the CRC-32 of its bytes stands."""


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """A torch file whose pickle has been read and whose storages have been found."""

    format: str
    """`zip`, `old` or `tar`."""
    root: object
    tensors: PickledTensors
    begin: int
    """Where in the file its pickle begins."""
    end: int
    first: int = 0
    """The place of the pickle's first byte, as tensors and dicts count their places."""
    swapped: bool = False
    """Whether its numbers are of the other byte order than this machine's."""
    parts: dict[object, StoredPart] = field(default_factory=dict)
    """Of a zip archive, by the key of the storage in it."""


def read_storage_bytes(file: BinaryIO, storage: Storage, path: Path) -> Tensor:
    """The bytes of a storage as they lie in the file, (bytes,) uint8.

    Raises:
        InputError: the file ends before them.
    """
    found = torch.empty(storage.nbytes, dtype=torch.uint8)
    file.seek(storage.begin)
    if file.readinto(found.numpy().data) != storage.nbytes:  # type: ignore[attr-defined]  # BinaryIO's own
        raise changed_error(path)
    return found


def swap_byte_order(data: Tensor, storage: Storage, *, swapped: bool) -> Tensor:
    """The same bytes in this machine's order, and back; of complex numbers, each part."""
    size = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
    if not swapped or size == 1:
        return data
    return torch.from_numpy(data.numpy().view(f"u{size}").byteswap().view(np.uint8))


def is_other_order(name: bytes) -> bool:
    """Whether `little` or `big` is not the order of this machine."""
    return name.decode("ascii", "replace") != sys.byteorder


@contextlib.contextmanager
def convert_pickle_errors(path: Path, *, partial: bool = False) -> Iterator[None]:
    """What is wrong with a pickle is an `InputError`; a cut is not where a part was read only."""
    try:
        yield
    except CodeError as error:
        raise InputError(
            "holds code, which snnprune never runs",
            file=path,
            field=str(error),
            hint=SAVE_STATE_DICT,
        ) from None
    except CutPickleError as error:
        if partial:
            raise
        raise damaged_error(str(error), path) from None
    except MalformedPickleError as error:
        raise InputError(
            f"is a pickle that torch.save did not write, or damaged: {error}",
            file=path,
            hint=SAVE_STATE_DICT,
        ) from None


def make_machine(data: bytes, tensors: PickledTensors, size: int) -> Machine:
    """A machine for the pickles in `data`, of a file of `size` bytes."""
    return Machine(data, tensors.meaning(), INSTRUCTIONS, allowance=size)


def damaged_error(what: str, path: Path) -> InputError:
    """The error of a file that is cut, or whose parts do not fit each other."""
    return InputError(f"truncated or damaged: {what}", file=path, hint=COPY_AGAIN)
