"""Safetensors: one file, in an order of our own, or an index in JSON beside its shards.

The format's own library sorts tensors when it writes; a pruned file keeps the order of its input.
What is where in a file, `header` knows.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.header import (
    METADATA,
    NAMES,
    Header,
    StoredType,
    locate_shards,
    plan_header,
    read_header,
    read_weight_map,
    require_as_indexed,
)
from snnprune.errors import InputError
from snnprune.files.reading import changed_error, open_for_reading
from snnprune.files.writing import replace_file


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor in the order of its elements, (bytes,) uint8.

    Of a contiguous tensor it is the memory itself, to be read into.
    """
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # one element may have any stride, which a view of bytes does not take
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def list_bytes(tensors: Iterable[Tensor]) -> list[npt.NDArray[np.uint8]]:
    """The bytes of each of them, of one on a GPU a copy."""
    return [bytes_of(tensor.cpu()).numpy() for tensor in tensors]


def require_dtype(kind: StoredType, path: Path, field: str) -> torch.dtype:
    """The same type in torch, of which the last came with 2.7.

    Raises:
        InputError: this torch has none.
    """
    found: torch.dtype | None = getattr(torch, kind.name, None)
    if found is None:
        raise InputError(
            f"torch {torch.__version__} has no {kind.name}",
            file=path,
            field=field,
            hint="a later torch has",
        )
    return found


def read(path: Path) -> Contents:
    """Everything in the file, in the order of its header.

    Raises:
        InputError: it is damaged or lies about itself.
    """
    with open_for_reading(path) as file:
        header = read_header(file, path)
        tensors = _make_empty_tensors(header, path, device="cpu")
        for entry in sorted(header.entries, key=lambda entry: entry.begin):
            if file.readinto(bytes_of(tensors[entry.name]).numpy().data) != entry.end - entry.begin:
                raise changed_error(path)
    return Contents(tensors=tensors, metadata=header.metadata)


def read_outline(path: Path) -> Contents:
    """The same with tensors on `meta`: the header is read, the data is not.

    Raises:
        InputError: the header does not fit the file.
    """
    with open_for_reading(path) as file:
        header = read_header(file, path)
    tensors = _make_empty_tensors(header, path, device="meta")
    return Contents(tensors=tensors, metadata=header.metadata)


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
    `files.writing.replace_file`.

    Raises:
        InputError: a dtype or name has no place in the format.
        OutputError: `path` cannot be written.
    """
    slots = {name: (_require_type(path, name, one), one.shape) for name, one in tensors.items()}
    header, order = plan_header(slots, metadata)
    with replace_file(path, within=within) as temporary, temporary.open("wb") as file:
        file.write(header)
        for name in order:
            file.write(bytes_of(tensors[name].cpu()).numpy().data)


def measure_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """How many bytes `write_safetensors` would write.

    Raises:
        InputError: a dtype or name has no place in the format.
    """
    path = Path("file.safetensors")
    slots = {name: (_require_type(path, name, one), one.shape) for name, one in tensors.items()}
    data = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return len(plan_header(slots, metadata)[0]) + data


def _make_empty_tensors(header: Header, path: Path, device: str) -> dict[str, Tensor]:
    types = {one.name: require_dtype(one.dtype, path, one.name) for one in header.entries}
    return {
        one.name: torch.empty(one.shape, dtype=types[one.name], device=device)
        for one in header.entries
    }


def name_type(tensor: Tensor) -> str | None:
    """What the format calls the type of a tensor; None where it has no place for it."""
    return NAMES.get(str(tensor.dtype).removeprefix("torch."))


def _require_type(path: Path, name: str, tensor: Tensor) -> str:
    known = name_type(tensor)
    if known is None:
        raise InputError(
            f"a safetensors file cannot hold {tensor.dtype}",
            file=path,
            field=name,
            hint="convert the tensor or leave it out",
        )
    if name == METADATA:
        raise InputError("is a reserved name", file=path, field=name, hint="rename the tensor")
    return known


def read_shards(path: Path) -> Contents:
    """The tensors of all shards, in the order of the index.

    Raises:
        InputError: the index is no such table or names a file that it must not; a shard is
            missing or damaged, or holds other tensors than the index says.
    """
    return _gather_shards(path, read)


def read_shard_outlines(path: Path) -> Contents:
    """The same with tensors on `meta`: headers are read, data is not.

    Raises:
        InputError: as `read_shards`.
    """
    return _gather_shards(path, read_outline)


def _gather_shards(path: Path, read_shard: Callable[[Path], Contents]) -> Contents:
    where = read_weight_map(path)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, shard in locate_shards(where, path).items():
        contents = read_shard(shard)
        require_as_indexed(contents.tensors, where, name, path)
        tensors |= contents.tensors
        metadata |= contents.metadata
    return Contents(tensors={key: tensors[key] for key in where}, metadata=metadata)
