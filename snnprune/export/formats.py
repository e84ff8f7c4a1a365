"""The files that a checkpoint can be exported to. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnprune.checkpoint.naming import is_prunable
from snnprune.errors import InputError
from snnprune.files.writing import replace_file

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.checkpoint.packing import Packing
    from snnprune.export.exporters import RecordedNetwork


@dataclass(frozen=True, kw_only=True)
class ExportContents:
    """What is to be written: tensors by the keys of the file, in its order."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    packing: Packing[Tensor]
    running: RecordedNetwork | None = None
    """The network with these weights, for a format that needs it."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file."""

    summary: str
    suffixes: tuple[str, ...]
    write: Callable[[Path, ExportContents], tuple[str, ...] | None]
    """Gives what is to be told of the file."""
    needs_network: bool = False
    """Whether tensors are not enough."""


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


def _write_nir(path: Path, found: ExportContents) -> tuple[str, ...]:
    from snnprune.export.nir import write_nir

    assert found.running is not None
    return write_nir(path, found.running)


def _write_onnx(path: Path, found: ExportContents) -> tuple[str, ...]:
    from snnprune.export.onnx import write_onnx

    assert found.running is not None
    return write_onnx(path, found.running)


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
}
