"""The checkpoint that a command works on, with what the flags say of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from snnprune.checkpoint import Checkpoint, prunable_weights, read_checkpoint
from snnprune.jobs.subjects.excluding import fits
from snnprune.jobs.subjects.options import SubjectOptions


def read_subject(options: SubjectOptions) -> Checkpoint:
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
        for key in prunable_weights(checkpoint.tensors)
        if not any(
            fits([key, checkpoint.names.get(key, key)], pattern) for pattern in options.exclude
        )
    }
    count = sum(int(wrong.sum()) for wrong in lost.values())
    if not count:
        return checkpoint
    note = f"{count} weights that are NaN or infinite are taken for pruned"
    return replace(
        checkpoint,
        tensors={key: _zeroed(value, lost.get(key)) for key, value in checkpoint.tensors.items()},
        notes=(*checkpoint.notes, note),
    )


def _zeroed(tensor: Tensor, wrong: Tensor | None) -> Tensor:
    return tensor if wrong is None else torch.where(wrong, torch.zeros_like(tensor), tensor)
