"""Checkpoints: tensors and text metadata in a file, read without ever running what is in it.

One module per container (`safetensors_file`, `torch_file`), each with `read(path) -> Contents`;
`sniff` tells by content which one a file belongs to, `read` is what the rest of snnprune calls.
"""

from snnprune.checkpoint.masks import read_masks, write_masks
from snnprune.checkpoint.prunable import is_prunable, prunable_weights
from snnprune.checkpoint.read import (
    Checkpoint,
    Description,
    TensorInfo,
    describe,
    read_checkpoint,
)
from snnprune.checkpoint.safetensors_file import write_safetensors

__all__ = [
    "Checkpoint",
    "Description",
    "TensorInfo",
    "describe",
    "is_prunable",
    "prunable_weights",
    "read_checkpoint",
    "read_masks",
    "write_masks",
    "write_safetensors",
]
