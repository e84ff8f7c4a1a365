"""The tensors that a pickle describes, and where their bytes are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.containers.torch.opcodes import Bag, Made, Named

DIMENSIONS = 64  # torch has no more
ROOM = 2**63
"""No number of elements or bytes comes near it."""

_TYPES: Mapping[str, torch.dtype] = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "Untyped": torch.uint8,
}  # fmt: skip
_COPIED = frozenset(
    {*_TYPES.values(), torch.uint16, torch.uint32, torch.uint64}
    | {getattr(torch, name) for name in dir(torch) if name.startswith("float8_")}
)
"""Types that torch can at least copy; of others, as of 4-bit floats, it holds the bytes alone."""
STORAGES: Mapping[str, torch.dtype] = {
    f"{module}.{kind}Storage": dtype
    for kind, dtype in _TYPES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
"""The types of storages that hold numbers; quantised ones are left alone."""

ODD = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values",
    "torch._utils._rebuild_wrapper_subclass": "of a class of its own",
    "torch._utils._rebuild_device_tensor_from_numpy": "of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "of another device",
    "torch._utils._rebuild_xla_tensor": "of another device",
}
"""Functions that make tensors of which nothing but bytes can be kept, and what these are."""


@dataclass(frozen=True)
class Storage:
    """Bytes of the file that tensors are views of."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Stored:
    """A dense tensor, as the file describes it."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """What its values take."""
        return math.prod(self.size) * self.dtype.itemsize

    @property
    def outside(self) -> bool:
        """Whether it reaches beyond its storage."""
        if 0 in self.size:
            return False
        steps = zip(self.size, self.stride, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        return (last + 1) * self.dtype.itemsize > self.storage.nbytes

    def of(self, values: torch.UntypedStorage) -> Tensor:
        """The tensor as a view of the bytes of its storage."""
        empty = torch.empty(0, dtype=self.dtype)
        return empty.set_(values, self.offset, self.size, self.stride)


@dataclass(frozen=True)
class Odd:
    """A tensor that is kept as it is."""

    kind: str


def known(maker: Named, args: Any) -> object | None:
    """What torch's own functions and plain containers make of `args`; None of anything else."""
    if maker.name in ODD:
        return Odd(ODD[maker.name])
    make = _KNOWN.get(maker.name)
    if make is None or not isinstance(args, tuple):
        return None
    try:
        return make(*args)
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def storage_of(saved: object) -> Storage | None:
    """The storage that a persistent id names, or the class that it stands for."""
    match saved:
        case ("storage", Named(name=kind), str(key), _, int(numel), *view) if 0 <= numel < ROOM:
            if any(part is not None for part in view):  # a part of another, in the oldest files
                return None
            dtype = STORAGES.get(kind)
            return None if dtype is None else Storage(key, dtype, numel)
    return None


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    if not isinstance(storage, Storage):
        return Odd("of a storage that is not known")
    return _view(storage, storage.dtype, offset, size, stride)


def _typed_tensor(
    storage: object, offset: object, size: object, stride: object, _: object, __: object,
    dtype: object, *___: object,
) -> object:  # fmt: skip
    found = _dtype(dtype)
    if not isinstance(storage, Storage) or found is None:
        return Odd("of a type that is not known")
    if found not in _COPIED:
        return Odd(f"of {str(found).removeprefix('torch.')}")
    return _view(storage, found, offset, size, stride)


def _view(
    storage: Storage, dtype: torch.dtype, offset: object, size: object, stride: object
) -> Stored:
    sizes, strides = _whole(size), _whole(stride)
    if type(offset) is not int or not 0 <= offset < ROOM or len(sizes) != len(strides):
        raise ValueError("no shape")
    if math.prod(sizes) >= ROOM:
        raise ValueError("no shape")
    return Stored(storage, dtype, offset, sizes, strides)


def _whole(values: object) -> tuple[int, ...]:
    """A shape, or strides.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, tuple) or len(values) > DIMENSIONS:
        raise ValueError("no shape")
    if any(type(one) is not int or not 0 <= one < ROOM for one in values):
        raise ValueError("no shape")
    return values


def _dtype(named: object) -> torch.dtype | None:
    if not isinstance(named, Named) or not named.name.startswith("torch."):
        return None
    found = vars(torch).get(named.name.removeprefix("torch."))
    return found if isinstance(found, torch.dtype) else None


def _parameter(data: object, *_: object) -> object:
    return data if isinstance(data, Stored | Odd) else None


def _of_type(function: object, kind: object, args: object, *_: object) -> object:
    """A tensor with attributes, or of a class of its own."""
    plain = isinstance(kind, Named) and kind.name in _PLAIN
    if not plain:
        return Odd("of a class of its own")
    return known(function, args) if isinstance(function, Named) else None


def _ordered(pairs: object = (), *_: object) -> object:
    found: dict[Any, Any] = {}
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        key, value = pair
        if type(key) is not str:
            return None
        found[key] = value
    return found


def _shape(values: object = (), *_: object) -> object:
    return values if isinstance(values, tuple) else None


def _bag(items: object = (), *_: object) -> object:
    return Bag(items) if isinstance(items, list) else None


_PLAIN = ("torch.Tensor", "torch._C.TensorBase", "torch.nn.parameter.Parameter")
_KNOWN: Mapping[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _shape,
    "collections.OrderedDict": _ordered,
    "builtins.set": _bag,
    "__builtin__.set": _bag,
}


def inside(value: object) -> Iterator[tuple[str, Stored]]:
    """Every tensor in what a pickle made, with the keys that lead to it; each holder once."""
    seen: set[int] = set()
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        where, here = pending.pop()
        if isinstance(here, Stored):
            yield where, here
            continue
        if not isinstance(here, dict | list | tuple) or id(here) in seen:
            continue
        seen.add(id(here))
        parts = here.items() if isinstance(here, dict) else enumerate(here)
        pending += [(f"{where}.{key}"[-200:].lstrip("."), part) for key, part in parts]
        if isinstance(here, Made):
            pending += [(where, part) for part in (here.args, here.state, here.appended)]
