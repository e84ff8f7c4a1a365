"""HDF5 from a stranger: only numbers that lie in the file itself are read.

A link to another file, data stored outside, or a filter that would load a plugin is refused.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from snnprune.checkpoint.naming import is_text
from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN

if TYPE_CHECKING:
    import h5py

FILTERS = (1, 2, 3, 4, 32000)
"""Of HDF5 itself and of h5py: deflate, shuffle, fletcher32, szip, lzf."""

SMALL, RATIO = 2**30, 100
"""Bytes that any file may hold unpacked, and how many times its size a larger one may."""


def require_h5py(path: Path) -> ModuleType:
    """The h5py package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(
            "reading .nir needs h5py", file=path, hint="pip install 'snnprune[nir]'"
        ) from None
    return h5py


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The open file; whatever HDF5 says against its bytes is an `InputError`."""
    h5py = require_h5py(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:  # hostile bytes can make it fail in any way
        reason = str(error).strip("'\"").split("\n")[0]
        raise InputError(
            f"truncated or damaged HDF5: {reason}", file=path, hint=COPY_AGAIN
        ) from error


def members(group: h5py.Group, path: Path) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """What lies in a group by name, without following links.

    Raises:
        InputError: there is a link, or a name that is no text.
    """
    h5py = require_h5py(path)
    for name in group:
        place = f"{group.name}/{name}"
        if not isinstance(name, str) or not is_text(name):  # bytes where it is not UTF-8
            raise InputError("its name is not text", file=path, field=place)
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError(
                "is a link, which snnprune does not follow",
                file=path,
                field=place,
                hint="copy what it points to in its place (h5repack, h5copy)",
            )
        yield name, group[name]


def is_number(dataset: h5py.Dataset) -> bool:
    """Whether it holds bools, integers or floats that torch has too."""
    dtype = dataset.dtype
    return dataset.shape is not None and dtype.kind in "fiub" and dtype.itemsize <= 8


def require_readable(dataset: h5py.Dataset, path: Path) -> int:
    """The bytes that it unpacks to, or that a part of it does where that is more.

    Raises:
        InputError: its data lie elsewhere, or need a filter of somebody else's.
    """
    where = str(dataset.name)
    if dataset.external or dataset.is_virtual:
        raise InputError("has its data in another file", file=path, field=where)
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    foreign = [number for number in filters if number not in FILTERS]
    if foreign:
        raise InputError(
            f"is packed with filter {foreign[0]}, which is not HDF5's own",
            file=path,
            field=where,
            hint="write it again with gzip or without compression",
        )
    return dataset.dtype.itemsize * max(math.prod(dataset.shape), math.prod(dataset.chunks or ()))


def require_modest(datasets: Iterable[h5py.Dataset], path: Path) -> None:
    """Refuse numbers that would fill the memory from a small file.

    Raises:
        InputError: they would; or as `require_readable`.
    """
    size, total = path.stat().st_size, 0
    for dataset in datasets:
        total += require_readable(dataset, path)
        if total > max(SMALL, RATIO * size):
            raise InputError(
                f"would unpack to more than {total:,} bytes, from a file of {size:,}",
                file=path,
                field=dataset.name,
                hint=COPY_AGAIN,
            )


def array_of(dataset: h5py.Dataset) -> np.ndarray:
    """Its numbers in the byte order of this machine."""
    return np.array(dataset[()], dtype=native(dataset), order="C")


def native(dataset: h5py.Dataset) -> np.dtype:
    """Its type in the byte order of this machine."""
    return np.dtype(dataset.dtype.newbyteorder("="))
