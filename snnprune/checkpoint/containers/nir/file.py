"""NIR graphs: HDF5 files with the parameters of a graph's nodes, read by h5py alone.

Layout, the same since nir 0.1: `version`; under `node` the root, where each node has its `type`
and its parameters, and a graph has `nodes` and `edges`. A tensor goes by its node's name in the
graph and its own, as `conv1.weight`, or `block.conv1.weight` in a graph within the graph. No text
is read: it lies on a heap of the file, and HDF5 searches a damaged one for ever.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint.containers.contents import Contents
from snnprune.checkpoint.containers.nir.hdf5 import (
    array_of,
    is_number,
    members,
    native,
    opened,
    require_h5py,
    require_modest,
)
from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError
from snnprune.files import replacing

if TYPE_CHECKING:
    import h5py

ROOT = "node"


def read(path: Path, *, values: bool = True) -> Contents:
    """The numbers of all nodes, in the order of the file; without `values` on `meta`.

    Raises:
        InputError: it is damaged or no NIR graph, points elsewhere, or would fill the memory.
    """
    found: dict[str, h5py.Dataset] = {}
    names: dict[str, str] = {}
    tied: list[str] = []
    with opened(path) as file:
        known = set()
        for short, place, dataset in _numbers(_root(file, path), path):
            key = place if short in names else short
            if dataset.id in known:  # one dataset under two names is one weight
                tied.append(key)
            else:
                known.add(dataset.id)
                found[key], names[key] = dataset, place
        require_modest(found.values(), path)
        tensors = {key: _tensor(dataset, values=values) for key, dataset in found.items()}
    if not tensors:
        raise InputError("holds no numbers", file=path, hint="was an empty graph saved?")
    notes = (f"other names of tensors that are there already: {first_few(tied)}",) if tied else ()
    return Contents(tensors=tensors, metadata={}, names=names, notes=notes)


def outline(path: Path) -> Contents:
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
    with replacing(out) as temporary:
        shutil.copyfile(source, temporary)
        with h5py.File(temporary, "r+", locking=False) as file:
            for place, tensor in tensors.items():
                dataset, value = file[place], tensor.numpy()
                if array_of(dataset).tobytes() != value.tobytes():
                    dataset[...] = value


def _root(file: h5py.File, path: Path) -> h5py.Group:
    """The node at the top."""
    root = dict(members(file, path)).get(ROOT)
    if root is None or "type" not in root:
        raise InputError(
            "is an HDF5 file, but no NIR graph",
            file=path,
            hint="of HDF5 snnprune reads what nir.write wrote; save a state_dict with torch.save",
        )
    return root


def _numbers(root: h5py.Group, path: Path) -> Iterator[tuple[str, str, h5py.Dataset]]:
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
        for name, item in members(node, path):
            if _is_dataset(item):
                if is_number(item):
                    yield f"{prefix}{name}", f"{place}/{name}", item
            elif name == "nodes":
                below = [
                    (f"{prefix}{child}.", f"{place}/{name}/{child}", group)
                    for child, group in members(item, path)
                    if not _is_dataset(group)
                ]
        pending += reversed(below)


def _is_dataset(item: h5py.Group | h5py.Dataset) -> bool:
    return hasattr(item, "shape")


def _tensor(dataset: h5py.Dataset, *, values: bool) -> Tensor:
    if values:
        return torch.from_numpy(array_of(dataset))
    dtype = torch.from_numpy(np.empty(0, native(dataset))).dtype
    return torch.empty(dataset.shape, dtype=dtype, device="meta")
