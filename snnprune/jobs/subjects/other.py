"""A second checkpoint of the network that a subject has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint import Checkpoint, folded
from snnprune.checkpoint.naming import first_few
from snnprune.checkpoint.states import STATES
from snnprune.errors import InputError
from snnprune.jobs.subjects.binding import bound
from snnprune.jobs.subjects.reading import read_subject
from snnprune.jobs.subjects.renaming import without_prefix
from snnprune.jobs.subjects.subject import Subject


def read_other(subject: Subject, path: Path) -> Checkpoint:
    """The checkpoint at `path` by the keys of `subject`, each of its tensors in the same shape.

    Raises:
        InputError: it is unreadable, or of another architecture; the first differences are named.
    """
    checkpoint = read_subject(replace(subject.options, checkpoint=path))
    mine = subject.checkpoint.tensors
    if subject.network is None:
        other = without_prefix(folded(checkpoint), mine, {})
        told = differences(mine, other.tensors)
    else:
        try:
            other = bound(subject.network.module, checkpoint)
        except InputError as error:
            whole = without_prefix(folded(checkpoint), mine, {})
            told = differences(mine, whole.tensors) or error.message
        else:
            told = ""
    if told:
        raise InputError(
            f"is no checkpoint of the same network as {subject.checkpoint.path.name}: {told}",
            file=path,
            hint="diff compares two checkpoints of one architecture",
        )
    return other


def differences(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
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
    return "; ".join(f"{len(keys)} {what}: {first_few(keys, 3)}" for what, keys in named if keys)


def _is_state(key: str) -> bool:
    return key.rpartition(".")[2] in STATES
