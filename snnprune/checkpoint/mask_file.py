"""Files beside a pruned one: its masks, and the integers of a quantized network.

A mask file is a safetensors file with one uint8 tensor per weight under the weight's key: the mask
flattened, True = kept, eight positions a byte, the first in the lowest bit. The shapes are in the
metadata as JSON. An integer file has the integers of each weight under its key and in its shape,
int8 or beyond 8 bits int16, and under `KEY.scale` the float32 scale of each output channel, in a
shape that broadcasts against them.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.containers import sniff_container
from snnprune.checkpoint.header import PARTNER, SHAPES, MalformedJsonError, is_shape, parse
from snnprune.errors import InputError


def write_masks(path: Path, masks: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write masks, True = kept, packed eight to a byte.

    Raises:
        OutputError: `path` cannot be written.
    """
    shapes = json.dumps({name: list(mask.shape) for name, mask in masks.items()})
    packed = {name: _pack_mask(mask) for name, mask in masks.items()}
    safetensors.write_safetensors(path, packed, {**metadata, SHAPES: shapes})


def read_masks(path: Path) -> dict[str, Tensor]:
    """The masks of a file that `write_masks` wrote, True = kept, in the shapes of their weights.

    Raises:
        InputError: it is not a mask file, or a tensor does not have the size of its mask.
    """
    if sniff_container(path) != "safetensors":
        raise _not_a_mask_file_error(path)
    contents = safetensors.read(path)
    shapes = _read_shapes(contents, path)
    return {
        name: _unpack_mask(name, packed, shapes[name], path)
        for name, packed in contents.tensors.items()
    }


def read_partner(path: Path) -> str | None:
    """The SHA-256 of the file that a mask file was written with; None where it does not say.

    Raises:
        InputError: it is damaged.
    """
    return safetensors.read_outline(path).metadata.get(PARTNER)


def _pack_mask(mask: Tensor) -> Tensor:  # (...) bool -> (bytes,) uint8
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little"))


def _unpack_mask(name: str, packed: Tensor, shape: list[int], path: Path) -> Tensor:
    count = math.prod(shape)
    needed = -(-count // 8)
    if packed.dtype != torch.uint8 or packed.shape != (needed,):
        raise InputError(
            f"a mask of shape {shape} is {needed:,} bytes, "
            f"the file has {packed.dtype} of shape {list(packed.shape)}",
            file=path,
            field=name,
        )
    bits = np.unpackbits(packed.numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_)).reshape(shape)


def _read_shapes(contents: Contents, path: Path) -> dict[str, list[int]]:
    """The shape of every mask; one for each tensor of the file."""
    if SHAPES not in contents.metadata:
        raise _not_a_mask_file_error(path)
    try:
        shapes = parse(contents.metadata[SHAPES].encode("utf-8"))
    except MalformedJsonError as error:
        raise InputError(f"the text {error}", file=path, field=SHAPES) from None
    if not isinstance(shapes, dict) or not all(map(is_shape, shapes.values())):
        raise InputError("is not a table of shapes", file=path, field=SHAPES)
    for name in sorted(shapes.keys() ^ contents.tensors.keys()):
        lack = "no tensor" if name in shapes else "no shape"
        raise InputError(f"has {lack}", file=path, field=name)
    return shapes


def _not_a_mask_file_error(path: Path) -> InputError:
    return InputError(
        "is not a mask file", file=path, hint="snnprune prune writes one beside its output"
    )


BITS = "snnprune.bits"
"""Metadata of a quantized file, and of its integers."""
SCALE = ".scale"


def write_integers(
    path: Path, weights: Mapping[str, tuple[Tensor, Tensor]], metadata: Mapping[str, str]
) -> None:
    """Write integers and scales of each weight, by its key.

    Raises:
        InputError: a weight has the name of another one's scale.
        OutputError: `path` cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for key, (integers, scale) in weights.items():
        if f"{key}{SCALE}" in weights:
            raise InputError("is a weight's name and another one's scale", field=f"{key}{SCALE}")
        tensors |= {key: integers.contiguous(), f"{key}{SCALE}": scale.contiguous()}
    safetensors.write_safetensors(path, tensors, metadata)


def read_integers(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Integers and scales of each weight, by its key, of a file that `write_integers` wrote.

    Raises:
        InputError: it is no such file.
    """
    tensors = safetensors.read(path).tensors if sniff_container(path) == "safetensors" else {}
    found = {
        key: (tensor, tensors[f"{key}{SCALE}"])
        for key, tensor in tensors.items()
        if f"{key}{SCALE}" in tensors
    }
    whole = all(
        one.dtype in (torch.int8, torch.int16) and scale.dim() == one.dim()
        for one, scale in found.values()
    )
    if not whole or 2 * len(found) != len(tensors):
        raise InputError(
            "is no file of integers", file=path, hint="snnprune prune --bits and export write them"
        )
    return found
