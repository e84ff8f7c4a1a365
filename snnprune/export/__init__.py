"""The same weights in another file, smaller, plain or for other programs, and what they weigh.

Importing this imports no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import zstandard

from snnprune.checkpoint.naming import is_prunable
from snnprune.checkpoint.packing import Bytes, Packing
from snnprune.errors import InputError
from snnprune.files.writing import replace_file
from snnprune.measure import Natural

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.export.exporters import RecordedNetwork


if TYPE_CHECKING:
    IntegerTensors = Mapping[str, tuple[Tensor, Tensor]]
    """Integers, and the scale of each output channel in a shape that broadcasts, by weight key."""


@dataclass(frozen=True, kw_only=True)
class ExportContents:
    """What is to be written: tensors by the keys of the file, in its order."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    packing: Packing[Tensor]
    running: RecordedNetwork | None = None
    """The network with these weights, for a format that needs it."""
    bits: int | None = None
    integers: IntegerTensors = field(default_factory=dict)
    """Of each weight, by the keys of the file or where there is a network by its own; or none."""


@dataclass(frozen=True, kw_only=True)
class ChainCheck:
    """How far a chain is from the network that it was made of, on one batch."""

    samples: Natural
    time_steps: Natural
    folded: Natural
    """Layers that have a BatchNorm in their weights now."""
    deviation: float
    """Largest difference of a membrane or output that follows from the spikes before it, as a share
    of the largest of its layer."""
    spikes: Natural
    """Of all neurons of the network."""
    other_spikes: Natural
    """How many come or miss otherwise when the chain is run by itself."""
    table_bytes: Natural | None = None
    """Of a header, what does not change: weights, where they are, scales and biases."""
    state_bytes: Natural | None = None
    """And what does."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is to be told of a file."""

    notes: tuple[str, ...] = ()
    check: ChainCheck | None = None
    """Of a file that is a chain of layers and neurons."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file."""

    summary: str
    suffixes: tuple[str, ...]
    write: Callable[[Path, ExportContents], Written | None]
    """Gives what is to be told of the file."""
    needs_network: bool = False
    """Whether tensors are not enough."""
    bits: Literal["never", "may", "must"] = "never"
    """Whether it holds weights as integers."""


def _write_packed(path: Path, found: ExportContents) -> None:
    found.packing.write(path, found.metadata)


def _write_dense(path: Path, found: ExportContents) -> None:
    from snnprune.checkpoint.safetensors import write_safetensors

    write_safetensors(path, found.tensors, found.metadata)


def _write_torch(path: Path, found: ExportContents) -> None:
    import torch

    with replace_file(path) as temporary:
        torch.save({key: tensor.clone() for key, tensor in found.tensors.items()}, temporary)


def _write_rows(path: Path, found: ExportContents) -> None:
    """A NumPy archive: of a weight, (out, in * kernel), the rows as SciPy's `csr_array` has them.

    `KEY.data`, `KEY.indices`, `KEY.indptr`, and `KEY.shape` of the whole weight. All other tensors
    lie under their own names.
    """
    arrays: dict[str, Any] = {}
    for key, tensor in found.tensors.items():
        _require_in_numpy(key, tensor)
        if is_prunable(key, tensor):
            arrays |= {f"{key}.{part}": array for part, array in _make_csr(tensor).items()}
        else:
            arrays[key] = tensor.numpy()
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _make_csr(weight: Tensor) -> dict[str, Any]:
    matrix = weight.flatten(1).numpy()
    rows, columns = matrix.nonzero()
    ends = np.bincount(rows, minlength=len(matrix)).cumsum()
    return {
        "data": matrix[rows, columns],
        "indices": columns.astype(np.int32),
        "indptr": np.concatenate([[0], ends]).astype(np.int32),
        "shape": np.array(weight.shape),
    }


def _write_integers(path: Path, found: ExportContents) -> None:
    from snnprune.checkpoint.mask_file import BITS, write_integers

    write_integers(path, found.integers, {**found.metadata, BITS: str(found.bits)})


def _write_nir(path: Path, found: ExportContents) -> Written:
    from snnprune.export.nir import write_nir

    assert found.running is not None
    return write_nir(path, found.running)


def _write_onnx(path: Path, found: ExportContents) -> Written:
    from snnprune.export.onnx import write_onnx

    assert found.running is not None
    return Written(notes=write_onnx(path, found.running))


def _write_lava(path: Path, found: ExportContents) -> Written:
    from snnprune.export.lava import write_lava

    assert found.running is not None
    return write_lava(path, found.running)


def _write_c(path: Path, found: ExportContents) -> Written:
    from snnprune.export.c import write_c

    assert found.running is not None
    return write_c(path, found.running, found.integers)


def _require_in_numpy(key: str, tensor: Tensor) -> None:
    try:
        tensor[:0].numpy() if tensor.dim() else tensor.numpy()
    except TypeError:
        raise InputError(
            f"NumPy has no {str(tensor.dtype).removeprefix('torch.')}",
            field=key,
            hint="choose --to packed",
        ) from None


FORMATS = {
    "packed": Format(
        summary="safetensors without the zeros, which every command reads",
        suffixes=(".safetensors",),
        write=_write_packed,
    ),
    "dense": Format(
        summary="plain safetensors, also back from packed",
        suffixes=(".safetensors",),
        write=_write_dense,
    ),
    "pth": Format(
        summary="a state dict for torch.load",
        suffixes=(".pth", ".pt"),
        write=_write_torch,
    ),
    "csr": Format(
        summary="rows without their zeros in a NumPy archive, as SciPy takes them",
        suffixes=(".npz",),
        write=_write_rows,
    ),
    "nir": Format(
        summary="the graph of weights and neurons, as the library of the neurons makes it",
        suffixes=(".nir",),
        write=_write_nir,
        needs_network=True,
    ),
    "onnx": Format(
        summary="the whole network, time steps and all, for ONNX Runtime",
        suffixes=(".onnx",),
        write=_write_onnx,
        needs_network=True,
    ),
    "integers": Format(
        summary="integers of each weight and scales of their channels, as prune --bits has them",
        suffixes=(".safetensors",),
        write=_write_integers,
        bits="must",
    ),
    "c": Format(
        summary="a C header of tables without zeros and one function, for microcontrollers",
        suffixes=(".h",),
        write=_write_c,
        needs_network=True,
        bits="may",
    ),
    "lava": Format(
        summary="a chain in the integers of Loihi, for lava-dl's netx",
        suffixes=(".net", ".hdf5", ".h5"),
        write=_write_lava,
        needs_network=True,
    ),
}


GZIP = 31  # window bits of zlib that make a gzip stream
WHOLE = 2**23  # bytes: up to here gzip and zstd are tried on all of them
STEP = 2**24  # bytes that they are given at a time
PIECE, PIECES = 2**15, 64  # bytes of one piece, and how many of them stand for larger files


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of all tensors, without the header of a file."""

    dense: Natural
    """Zeros and all: what a plain file weighs."""
    gzip: Natural
    """Of all tensors one after the other, at the program's own level 6."""
    zstd: Natural
    """Likewise, at level 19."""
    tried: Natural
    """Bytes that gzip and zstd were tried on: all, or pieces from all over."""
    packed: Natural
    """As `export --to packed` stores them."""
    bound: Natural
    """What any packing takes at least: values, and the entropy of where they stand, if any places
    are as likely as any others."""

    @property
    def estimated(self) -> bool:
        """Whether `gzip` and `zstd` are what some pieces come to, times as many."""
        return self.tried < self.dense

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


class RawTensor(Protocol):
    """The bytes of a tensor, in memory or in a file; sliced as an array of them is."""

    @property
    def nbytes(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, where: slice, /) -> Bytes:
        """Some of them."""
        ...


def measure_sizes(
    tensors: Sequence[RawTensor], packing: Packing[Any], *, whole: float = WHOLE
) -> Sizes:
    """Measure all of them; `packing` is what was made of the same tensors.

    Of more than `whole` bytes gzip and zstd get evenly spaced pieces: at its level zstd takes some
    two MB a second.
    """
    dense = sum(tensor.nbytes for tensor in tensors)
    gzip = zlib.compressobj(level=6, wbits=GZIP)
    zstd = zstandard.ZstdCompressor(level=19).compressobj()
    tried = gzipped = zipped = 0
    for piece in _iter_all(tensors) if dense <= whole else _iter_pieces(tensors, dense):
        tried += piece.nbytes
        gzipped += len(gzip.compress(piece.data))
        zipped += len(zstd.compress(piece.data))
    gzipped, zipped = gzipped + len(gzip.flush()), zipped + len(zstd.flush())
    share = dense / tried if tried else 1.0
    return Sizes(
        dense=dense,
        gzip=round(gzipped * share),
        zstd=round(zipped * share),
        tried=tried,
        packed=packing.count_bytes(),
        bound=round(packing.bound),
    )


def _iter_all(tensors: Sequence[RawTensor]) -> Iterator[Bytes]:
    for tensor in tensors:
        for start in range(0, tensor.nbytes, STEP):
            yield tensor[start : start + STEP]


def _iter_pieces(tensors: Sequence[RawTensor], total: int) -> Iterator[Bytes]:
    """What is in `PIECES` pieces, evenly spaced over all bytes one after the other."""
    starts = [number * (total - PIECE) // (PIECES - 1) for number in range(PIECES)]
    before = 0
    for tensor in tensors:
        for start in starts:
            first, last = max(start - before, 0), min(start + PIECE - before, tensor.nbytes)
            if first < last:
                yield tensor[first:last]
        before += tensor.nbytes
