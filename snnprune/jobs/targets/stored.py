"""A target that is looked at in its file, piece by piece: a bare safetensors file, no network.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from snnprune.checkpoint.containers import hash_checkpoint
from snnprune.checkpoint.naming import (
    ValueCounts,
    find_parametrized,
    judge_values,
    list_prunable,
    strip_part_suffix,
)
from snnprune.checkpoint.stored import (
    RANKED,
    StoredCheckpoint,
    StoredTensor,
    count_piece,
    cut_into_pieces,
    map_pieces,
    merge_counts,
    open_stored,
)
from snnprune.files.reading import BackgroundHash
from snnprune.jobs.targets.options import TargetOptions, find_excluded
from snnprune.jobs.targets.provenance import read_data_spec, read_model_spec
from snnprune.jobs.targets.reporting import (
    LayerRow,
)
from snnprune.report import make_file_entry, make_report
from snnprune.runtime import SILENT, Progress

ON_CPU = ("auto", "cpu")
NO_MODEL = "the file does not say which model it is of"
LONG = 2**28  # bytes; a second or so


@dataclass(frozen=True, kw_only=True)
class StoredTarget:
    """A checkpoint in its file, and which of its weights may be pruned."""

    options: TargetOptions
    checkpoint: StoredCheckpoint
    weights: Mapping[str, StoredTensor]
    """By key, in the file's order."""
    excluded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StoredLook:
    """What one reading of a file told."""

    hash: BackgroundHash
    """Of the file; it may still be under way."""
    counts: Mapping[str, ValueCounts]
    """By key."""
    notes: tuple[str, ...]
    """What was done on the way in and what looks odd, one line each."""

    def count_zeros(self, weights: Mapping[str, StoredTensor]) -> dict[str, int]:
        """How many of each of `weights` are 0."""
        return {key: self.counts[key].zeros for key in weights}


def open_stored_target(options: TargetOptions) -> StoredTarget | None:
    """The target in its file; None where it takes torch to know it, or to say what is wrong.

    Raises:
        InputError: the file is no checkpoint or a damaged one, or `--exclude` fits none or all.
    """
    if not _names_no_network(options):
        return None
    checkpoint = open_stored(options.checkpoint)
    if checkpoint is None or _names_its_own(checkpoint.metadata):
        return None
    weights = {
        key: checkpoint.tensors[key]
        for key in list_prunable(checkpoint.tensors)
        if checkpoint.tensors[key].numel()
    }
    known = all(weight.dtype.name in RANKED for weight in weights.values())
    if not weights or not known or find_parametrized(checkpoint.tensors):
        return None
    excluded = find_excluded(
        {key: _list_names(key, checkpoint) for key in weights}, options.exclude
    )
    return StoredTarget(
        options=options,
        checkpoint=checkpoint,
        weights={key: weight for key, weight in weights.items() if key not in excluded},
        excluded=excluded,
    )


def _names_no_network(options: TargetOptions) -> bool:
    named = (options.model, options.forward, options.data, options.test_data, options.eval_data)
    plain = options.state_dict is None and not options.allow_nonfinite
    return not any(named) and plain and options.readout == "auto" and options.device in ON_CPU


def _names_its_own(metadata: Mapping[str, str]) -> bool:
    """Whether a file says which built-in model or data it is of."""
    return read_model_spec(metadata) is not None or read_data_spec(metadata) is not None


def _list_names(key: str, checkpoint: StoredCheckpoint) -> list[str]:
    names = [key, checkpoint.names[key]]
    return [*names, *map(strip_part_suffix, names)]


def look_at_values(target: StoredTarget, progress: Progress) -> StoredLook:
    """Read all of the file once: whether its values are sound; and begin with its hash.

    Raises:
        InputError: they are not, or the file changed meanwhile.
    """
    checkpoint = target.checkpoint
    path, container = checkpoint.path, checkpoint.container
    with checkpoint.steady.hold():
        sha256 = BackgroundHash(path, partial(hash_checkpoint, path, container))
        counts = count_values(checkpoint, progress)
        odd = judge_values(checkpoint.tensors, counts.__getitem__, path, allow_nonfinite=False)
    return StoredLook(hash=sha256, counts=counts, notes=checkpoint.describe_notes(odd))


def count_values(checkpoint: StoredCheckpoint, progress: Progress) -> dict[str, ValueCounts]:
    """What is to be known of the values of each tensor, by key."""
    counts = {key: ValueCounts() for key in checkpoint.tensors}
    key_of = {id(tensor): key for key, tensor in checkpoint.tensors.items()}
    pieces = list(chain.from_iterable(map(cut_into_pieces, checkpoint.tensors.values())))
    found = map_pieces(
        lambda piece, bits: count_piece(key_of[id(piece.tensor)], piece, bits), pieces
    )
    watched = progress if takes_long(checkpoint) else SILENT
    for piece, one in watched.track(found, label="reading", total=len(pieces)):
        key = key_of[id(piece.tensor)]
        counts[key] = merge_counts(counts[key], one)
    return counts


def takes_long(checkpoint: StoredCheckpoint) -> bool:
    """Whether anybody wants to know how far the reading of it is."""
    return sum(tensor.nbytes for tensor in checkpoint.tensors.values()) > LONG


def make_stored_rows(
    weights: Mapping[str, StoredTensor],
    kept: Mapping[str, int],
    *,
    criterion: str | None = None,
) -> tuple[LayerRow, ...]:
    """A row for each weight; `kept` says how many of each are not 0, where that is known."""
    return tuple(
        LayerRow(
            weight=key,
            shape=tensor.shape,
            weights=tensor.numel(),
            kept=kept.get(key),
            criterion=criterion,
        )
        for key, tensor in weights.items()
    )


def make_stored_report(
    target: StoredTarget,
    look: StoredLook | None,
    command: str,
    *,
    warnings: Sequence[str],
    **findings: Any,
) -> dict[str, Any]:
    """The report of a command that worked on the file alone, perhaps on no more than its header."""
    path, known = target.checkpoint.path, target.checkpoint.describe_notes()
    with target.checkpoint.steady.hold():
        inputs = [make_file_entry(path, look.hash.result()) if look else {"path": str(path)}]
    return make_report(
        command,
        device=None,
        seed=target.options.seed,
        inputs=inputs,
        warnings=(*(look.notes if look else known), *warnings),
        excluded=target.excluded,
        config=target.options.used,
        model=None,
        data=None,
        **findings,
    )
