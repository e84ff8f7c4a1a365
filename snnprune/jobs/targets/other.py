"""A second checkpoint of the network that a target has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.read import read_checkpoint
from snnprune.checkpoint.weights import STATES, find_prunable_weights, fold_masks
from snnprune.errors import InputError
from snnprune.errors.text import format_names
from snnprune.jobs.targets.binding import bind_checkpoint, strip_network_prefix
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.target import Target, matches_pattern


def read_target(options: TargetOptions) -> Checkpoint:
    """Read the checkpoint of `options`.

    With `--allow-nonfinite`, a prunable weight that is NaN or infinite is taken for pruned: it is
    0 from here on, and a note says how many there were. Other tensors stay as they are.

    Raises:
        InputError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(
        options.checkpoint,
        allow_nonfinite=options.allow_nonfinite,
        entry=options.state_dict,
    )
    if not options.allow_nonfinite:
        return checkpoint
    lost = {
        key: ~torch.isfinite(checkpoint.tensors[key])
        for key in find_prunable_weights(checkpoint.tensors)
        if not any(
            matches_pattern([key, checkpoint.names.get(key, key)], pattern)
            for pattern in options.exclude
        )
    }
    count = sum(int(wrong.sum()) for wrong in lost.values())
    if not count:
        return checkpoint
    note = f"{count} weights that are NaN or infinite are taken for pruned"
    return replace(
        checkpoint,
        tensors={
            key: _zero_values(value, lost.get(key)) for key, value in checkpoint.tensors.items()
        },
        notes=(*checkpoint.notes, note),
    )


def _zero_values(tensor: Tensor, wrong: Tensor | None) -> Tensor:
    return tensor if wrong is None else torch.where(wrong, torch.zeros_like(tensor), tensor)


def read_other(target: Target, path: Path) -> Checkpoint:
    """The checkpoint at `path` by the keys of `target`, each of its tensors in the same shape.

    Raises:
        InputError: it is unreadable, or of another architecture; the first differences are named.
    """
    checkpoint = read_target(replace(target.options, checkpoint=path))
    mine = target.checkpoint.tensors
    if target.network is None:
        other = strip_network_prefix(fold_masks(checkpoint), mine, {})
        told = format_differences(mine, other.tensors)
    else:
        try:
            other = bind_checkpoint(target.network.module, checkpoint)
        except InputError as error:
            whole = strip_network_prefix(fold_masks(checkpoint), mine, {})
            told = format_differences(mine, whole.tensors) or error.message
        else:
            told = ""
    if told:
        raise InputError(
            f"is no checkpoint of the same network as {target.checkpoint.path.name}: {told}",
            file=path,
            hint="diff compares two checkpoints of one architecture",
        )
    return other


def format_differences(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """Which keys only one has, and which have another shape; nothing where none do.

    What neurons keep of a batch may be in either.
    """
    missing = [key for key in first if key not in other and not _is_state(key)]
    unexpected = [key for key in other if key not in first and not _is_state(key)]
    odd = [
        f"{key} {tuple(other[key].shape)} for {tuple(first[key].shape)}"
        for key in first
        if key in other and first[key].shape != other[key].shape and not _is_state(key)
    ]
    named = (("missing", missing), ("unexpected", unexpected), ("of another shape", odd))
    return "; ".join(f"{len(keys)} {what}: {format_names(keys, 3)}" for what, keys in named if keys)


def _is_state(key: str) -> bool:
    return key.rpartition(".")[2] in STATES
