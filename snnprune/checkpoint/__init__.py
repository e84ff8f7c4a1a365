"""Checkpoints: tensors and text metadata in a file, read without ever running what is in it.

`containers` has a package for each kind of file, with `read(path) -> Contents`, and tells by
content which one a file is; `read` and `write` are what the rest of snnprune calls.
"""

from snnprune.checkpoint.checkpoint import Checkpoint, renamed
from snnprune.checkpoint.hashes import require_sha256
from snnprune.checkpoint.mask_file import PARTNER, partner_of, read_masks, write_masks
from snnprune.checkpoint.packed import Packing, pack
from snnprune.checkpoint.packed_values import AS_THEY_ARE, PRECISIONS
from snnprune.checkpoint.read import Description, TensorInfo, describe, files_of, read_checkpoint
from snnprune.checkpoint.safetensors import bytes_of, write_safetensors
from snnprune.checkpoint.soundness import is_finite
from snnprune.checkpoint.weights import (
    effective,
    folded,
    is_prunable,
    parametrized,
    prunable_weights,
    saved_states,
    tied_tensors,
    whole_name,
)
from snnprune.checkpoint.write import read_back, require_plain, require_writable_as, write_like

__all__ = [
    "AS_THEY_ARE",
    "PARTNER",
    "PRECISIONS",
    "Checkpoint",
    "Description",
    "Packing",
    "TensorInfo",
    "bytes_of",
    "describe",
    "effective",
    "files_of",
    "folded",
    "is_finite",
    "is_prunable",
    "pack",
    "parametrized",
    "partner_of",
    "prunable_weights",
    "read_back",
    "read_checkpoint",
    "read_masks",
    "renamed",
    "require_plain",
    "require_sha256",
    "require_writable_as",
    "saved_states",
    "tied_tensors",
    "whole_name",
    "write_like",
    "write_masks",
    "write_safetensors",
]
