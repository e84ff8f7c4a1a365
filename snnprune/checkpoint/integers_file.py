"""Integer files: what a chip takes of a quantized network.

A safetensors file with the integers of each weight under the weight's key and in its shape, int8 or
beyond 8 bits int16, and under `KEY.scale` the float32 scale of each output channel, in a shape that
broadcasts against them.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.errors import InputError

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
