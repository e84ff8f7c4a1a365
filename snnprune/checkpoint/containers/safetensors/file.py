"""Safetensors: reading, and writing in an order of our own.

The format's own library sorts tensors when it writes; a pruned file keeps the order of its input.
"""

import json
import os
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.containers.contents import Contents
from snnprune.checkpoint.containers.raw import bytes_of
from snnprune.checkpoint.containers.safetensors.header import DTYPES, METADATA, Header, read_header
from snnprune.errors import InputError
from snnprune.files import replacing
from snnprune.readable import changed, reading

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(path: Path) -> Contents:
    """Everything in the file, in the order of its header.

    Raises:
        InputError: it is damaged or lies about itself.
    """
    with reading(path) as file:
        header = read_header(file, _size(file), path)
        tensors = _empty_tensors(header, device="cpu")
        for entry in sorted(header.entries, key=lambda entry: entry.begin):
            if file.readinto(bytes_of(tensors[entry.name]).numpy().data) != entry.end - entry.begin:
                raise changed(path)
    return Contents(tensors=tensors, metadata=header.metadata)


def outline(path: Path) -> Contents:
    """The same with tensors on `meta`: the header is read, the data is not.

    Raises:
        InputError: the header does not fit the file.
    """
    with reading(path) as file:
        header = read_header(file, _size(file), path)
    return Contents(tensors=_empty_tensors(header, device="meta"), metadata=header.metadata)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    within: Path | None = None,
) -> None:
    """Write the file whole or not at all, one tensor at a time; keys stay in the given order.

    The data lies in that order too, unless a tensor would then start at a multiple of less than
    its item size and could not be mapped: then wider items come first. `within` is as for
    `files.replacing`.

    Raises:
        InputError: a dtype or name has no place in the format.
        OutputError: `path` cannot be written.
    """
    order = _data_order(tensors)
    header = _header(path, tensors, order, metadata)
    with replacing(path, within=within) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in order:
            file.write(bytes_of(tensors[name].cpu()).numpy().data)


def _size(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _empty_tensors(header: Header, device: str) -> dict[str, Tensor]:
    return {
        entry.name: torch.empty(entry.shape, dtype=entry.dtype, device=device)
        for entry in header.entries
    }


def _data_order(tensors: Mapping[str, Tensor]) -> list[str]:
    position = 0
    for tensor in tensors.values():
        if position % tensor.itemsize:
            return sorted(tensors, key=lambda name: -tensors[name].itemsize)
        position += tensor.nbytes
    return list(tensors)


def _header(
    path: Path, tensors: Mapping[str, Tensor], order: Iterable[str], metadata: Mapping[str, str]
) -> bytes:
    begin, offsets = 0, {}
    for name in order:
        offsets[name] = [begin, begin + tensors[name].nbytes]
        begin += tensors[name].nbytes
    fields: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, tensor in tensors.items():
        _require_writable(path, name, tensor)
        fields[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets[name],
        }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def _require_writable(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPE_NAMES:
        raise InputError(
            f"a safetensors file cannot hold {tensor.dtype}",
            file=path,
            field=name,
            hint="convert the tensor or leave it out",
        )
    if name == METADATA:
        raise InputError("is a reserved name", file=path, field=name, hint="rename the tensor")
