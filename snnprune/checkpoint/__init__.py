"""Checkpoints: tensors and text metadata in a file, read without ever running what is in it.

Each container has a file, as `safetensors.py`, or for torch files a package, with
`read(path) -> Contents`; `containers.py` tells by content which one a file is, and reads and writes
whichever it is.
"""

from snnprune.checkpoint.checkpoint import (
    Checkpoint,
    compute_effective_weight,
    find_parametrized,
    find_prunable_weights,
    find_saved_states,
    find_tied_tensors,
    fold_masks,
    is_finite,
    is_prunable,
    strip_part_suffix,
    strip_prefix,
)
from snnprune.checkpoint.containers import (
    Description,
    TensorInfo,
    describe_checkpoint,
    files_of,
    read_back,
    read_checkpoint,
    require_plain,
    require_sha256,
    require_writable_as,
    write_like,
)
from snnprune.checkpoint.mask_file import PARTNER, read_masks, read_partner, write_masks
from snnprune.checkpoint.packed import AS_THEY_ARE, PRECISIONS, Packing, pack
from snnprune.checkpoint.safetensors import bytes_of, write_safetensors

__all__ = [
    "AS_THEY_ARE",
    "PARTNER",
    "PRECISIONS",
    "Checkpoint",
    "Description",
    "Packing",
    "TensorInfo",
    "bytes_of",
    "compute_effective_weight",
    "describe_checkpoint",
    "files_of",
    "find_parametrized",
    "find_prunable_weights",
    "find_saved_states",
    "find_tied_tensors",
    "fold_masks",
    "is_finite",
    "is_prunable",
    "pack",
    "read_back",
    "read_checkpoint",
    "read_masks",
    "read_partner",
    "require_plain",
    "require_sha256",
    "require_writable_as",
    "strip_part_suffix",
    "strip_prefix",
    "write_like",
    "write_masks",
    "write_safetensors",
]
