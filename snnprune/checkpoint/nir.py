"""NIR graphs: HDF5 files with the parameters of a graph's nodes, read by h5py alone.

Layout, the same since nir 0.1: `version`; under `node` the root, where each node has its `type`
and its parameters, and a graph has `nodes` and `edges`. A tensor goes by its node's name in the
graph and its own, as `conv1.weight`, or `block.conv1.weight` in a graph within the graph. No text
is read: it lies on a heap of the file, and HDF5 searches a damaged one for ever.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Contents
from snnprune.errors import InputError, Note, format_names, is_text
from snnprune.files.reading import COPY_AGAIN
from snnprune.files.writing import replace_file

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
def open_hdf5(path: Path) -> Iterator[h5py.File]:
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


def iter_members(group: h5py.Group, path: Path) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
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


def read_array(dataset: h5py.Dataset) -> np.ndarray:
    """Its numbers in the byte order of this machine."""
    return np.array(dataset[()], dtype=native_dtype(dataset), order="C")


def native_dtype(dataset: h5py.Dataset) -> np.dtype:
    """Its type in the byte order of this machine."""
    return np.dtype(dataset.dtype.newbyteorder("="))


ROOT = "node"


def read(path: Path, *, values: bool = True) -> Contents:
    """The numbers of all nodes, in the order of the file; without `values` on `meta`.

    Raises:
        InputError: it is damaged or no NIR graph, points elsewhere, or would fill the memory.
    """
    found: dict[str, h5py.Dataset] = {}
    names: dict[str, str] = {}
    tied: list[str] = []
    with open_hdf5(path) as file:
        known = set()
        for short, place, dataset in _iter_numbers(_find_root(file, path), path):
            key = place if short in names else short
            if dataset.id in known:  # one dataset under two names is one weight
                tied.append(key)
            else:
                known.add(dataset.id)
                found[key], names[key] = dataset, place
        require_modest(found.values(), path)
        tensors = {key: _read_tensor(dataset, values=values) for key, dataset in found.items()}
    if not tensors:
        raise InputError("holds no numbers", file=path, hint="was an empty graph saved?")
    notes = (
        (Note(f"other names of tensors that are there already: {format_names(tied)}"),)
        if tied
        else ()
    )
    return Contents(tensors=tensors, metadata={}, names=names, notes=notes)


def read_outline(path: Path) -> Contents:
    """The same with tensors on `meta`.

    Raises:
        InputError: as `read`.
    """
    return read(path, values=False)


def rewrite(source: Path, out: Path, tensors: Mapping[str, Tensor]) -> None:
    """Copy `source` to `out`, with `tensors`, by path in the file, in place of what was there.

    Raises:
        OutputError: `out` cannot be written.
    """
    h5py = require_h5py(source)
    with replace_file(out) as temporary:
        shutil.copyfile(source, temporary)
        with h5py.File(temporary, "r+", locking=False) as file:
            for place, tensor in tensors.items():
                dataset, value = file[place], tensor.numpy()
                if read_array(dataset).tobytes() != value.tobytes():
                    dataset[...] = value


def _find_root(file: h5py.File, path: Path) -> h5py.Group:
    """The node at the top."""
    root = dict(iter_members(file, path)).get(ROOT)
    if root is None or "type" not in root:
        raise InputError(
            "is an HDF5 file, but no NIR graph",
            file=path,
            hint="of HDF5 snnprune reads what nir.write wrote; save a state_dict with torch.save",
        )
    return root


def _iter_numbers(root: h5py.Group, path: Path) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Key, path in the file and numbers, of every node below `root`.

    Raises:
        InputError: a graph is within itself, or there is a link.
    """
    known = set()
    pending = [("", f"/{ROOT}", root)]
    while pending:
        prefix, place, node = pending.pop()
        if node.id in known:
            raise InputError("is there under two names", file=path, field=place)
        known.add(node.id)
        below = []
        for name, item in iter_members(node, path):
            if _is_dataset(item):
                if is_number(item):
                    yield f"{prefix}{name}", f"{place}/{name}", item
            elif name == "nodes":
                below = [
                    (f"{prefix}{child}.", f"{place}/{name}/{child}", group)
                    for child, group in iter_members(item, path)
                    if not _is_dataset(group)
                ]
        pending += reversed(below)


def _is_dataset(item: h5py.Group | h5py.Dataset) -> bool:
    return hasattr(item, "shape")


def _read_tensor(dataset: h5py.Dataset, *, values: bool) -> Tensor:
    if values:
        return torch.from_numpy(read_array(dataset))
    dtype = torch.from_numpy(np.empty(0, native_dtype(dataset))).dtype
    return torch.empty(dataset.shape, dtype=dtype, device="meta")
