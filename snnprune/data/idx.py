"""IDX, the format of MNIST and its successors: a big-endian header and then the bytes."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.readable import reading

PARTS = ("train", "t10k")
NAMES = tuple(f"{part}-{what}-ubyte" for part in PARTS for what in ("images-idx3", "labels-idx1"))
"""The four files of a set, each also accepted with `.gz` behind it."""

UNSIGNED_BYTES = 0x08


def located(folder: Path, name: str) -> Path | None:
    """The file `name` or `name.gz` in `folder`, if there is one."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_part(folder: Path, part: str, *, hint: str) -> tuple[Tensor, Tensor]:
    """The images (N, 1, H, W), uint8, and labels (N,), int64, of `part`.

    Raises:
        InputError: a file is missing or damaged, or they do not belong together; ends in `hint`.
    """
    images, labels = (
        _read(folder, f"{part}-{what}-ubyte", dimensions, hint)
        for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
    )
    if len(images) != len(labels):
        raise InputError(
            f"{part} has {len(images)} images and {len(labels)} labels", file=folder, hint=hint
        )
    return images.unsqueeze(1), labels.long()


def written(values: Tensor) -> bytes:
    """The IDX file of a uint8 tensor."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UNSIGNED_BYTES, values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def _read(folder: Path, name: str, dimensions: int, hint: str) -> Tensor:
    path = located(folder, name)
    if path is None:
        raise InputError("no such file", file=folder / f"{name}.gz", hint=hint)
    try:
        return _parsed(_contents(path), dimensions)
    except (OSError, EOFError, zlib.error, ValueError, struct.error) as error:
        raise InputError(f"damaged: {error}", file=path, hint=hint) from error


def _contents(path: Path) -> bytes:
    with reading(path) as file:
        data = file.read()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _parsed(data: bytes, dimensions: int) -> Tensor:
    zero, kind, found = struct.unpack_from(">HBB", data)
    if (zero, kind, found) != (0, UNSIGNED_BYTES, dimensions):
        raise ValueError(f"not an IDX file of bytes in {dimensions} dimensions")
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if len(data) - start != math.prod(shape) or not math.prod(shape):
        raise ValueError(f"holds {len(data) - start} values where {shape} are announced")
    # A bytearray, because torch warns of tensors over memory that cannot be written.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)
