"""Checkpoints: tensors and text metadata in a file, read without ever running what is in it.

`containers` has a package for each kind of file, with `read(path) -> Contents`, and tells by
content which one a file is; `read` and `write` are what the rest of snnprune calls.
"""

from snnprune.checkpoint.checkpoint import Checkpoint, renamed
from snnprune.checkpoint.containers.packed.file import Packing, pack
from snnprune.checkpoint.containers.packed.values import AS_THEY_ARE, PRECISIONS
from snnprune.checkpoint.containers.raw import bytes_of
from snnprune.checkpoint.containers.safetensors.file import write_safetensors
from snnprune.checkpoint.folding import effective, folded, parametrized, whole_name
from snnprune.checkpoint.hashes import require_sha256
from snnprune.checkpoint.masks import PARTNER, partner_of, read_masks, write_masks
from snnprune.checkpoint.prunable import is_prunable, prunable_weights, tied_tensors
from snnprune.checkpoint.read import (
    Description,
    TensorInfo,
    describe,
    files_of,
    read_checkpoint,
)
from snnprune.checkpoint.soundness import is_finite
from snnprune.checkpoint.states import saved_states
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
