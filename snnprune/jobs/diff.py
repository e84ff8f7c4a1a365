"""`snnprune diff`: what changed between two checkpoints of one network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from snnprune.checkpoint.stored import (
    RANKED,
    Bits,
    Piece,
    StoredTensor,
    cut_into_pieces,
    decode_values,
    map_together,
)
from snnprune.jobs.options import DiffOptions
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.stored import (
    NO_MODEL,
    StoredTarget,
    look_at_values,
    make_stored_report,
    open_stored_target,
    takes_long,
)
from snnprune.measure import Change, add_counts, sum_changes
from snnprune.report import doubt_agreement, make_file_entry
from snnprune.runtime import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.checkpoint.checkpoint import Checkpoint
    from snnprune.jobs.targets.target import Target
    from snnprune.measure.agreement import Agreement

BLOCK = 2**16  # values that are compared at once, as a cache holds what is made of them


@dataclass(frozen=True, kw_only=True)
class TensorDiff:
    """A tensor of both checkpoints."""

    key: str
    shape: tuple[int, ...]
    change: Change


@dataclass(frozen=True, kw_only=True)
class CheckpointDiff:
    """What came of it; A is the first checkpoint, B the other."""

    layers: tuple[TensorDiff, ...]
    """Every weight that can be pruned."""
    others: tuple[TensorDiff, ...]
    """The other tensors that changed."""
    agreement: Agreement | None
    """None where there is no network or no data to run it on."""
    not_run: str | None
    """Why there is none."""
    report: dict[str, Any]

    def compute_total(self) -> Change:
        """Of all layers."""
        return sum_changes(one.change for one in self.layers)


def diff_checkpoints(options: DiffOptions, progress: Progress) -> CheckpointDiff:
    """Compare two checkpoints, and run both on the images of a split.

    The network is that of the first. Without network or data only tensors are compared, those of
    bare files without torch and in pieces.

    Raises:
        InputError: a checkpoint is unreadable, the two are of different architectures, or data was
            asked for by name and there is no network to run on it.
    """
    pair = _open_stored_pair(options)
    return _diff_networks(options, progress) if pair is None else _diff_stored(*pair, progress)


def _open_stored_pair(options: DiffOptions) -> tuple[StoredTarget, StoredTarget] | None:
    """Both in their files; None where it takes torch to compare them or to say what is wrong."""
    if (first := open_stored_target(options)) is None:
        return None
    second = open_stored_target(replace(options, checkpoint=options.other, exclude=()))
    if second is None or not first.weights.keys() <= second.weights.keys():
        return None
    here, there = first.checkpoint.tensors, second.checkpoint.tensors
    alike = here.keys() == there.keys()
    known = alike and all(_are_comparable(one, there[key]) for key, one in here.items())
    return (first, second) if known else None


def _are_comparable(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors have one shape, and values that numpy compares as torch does."""
    kinds = {one.dtype.name, other.dtype.name}
    whole = len(kinds) == 1 and next(iter(kinds)).startswith(("int", "uint", "bool"))
    return one.shape == other.shape and (whole or kinds <= set(RANKED))


def _diff_stored(first: StoredTarget, second: StoredTarget, progress: Progress) -> CheckpointDiff:
    """Compare two bare files piece by piece, without torch."""
    looks = [look_at_values(one, progress) for one in (first, second)]
    with first.checkpoint.steady.hold(), second.checkpoint.steady.hold():
        changes = _measure_stored_changes(
            first.checkpoint.tensors,
            second.checkpoint.tensors,
            progress if takes_long(first.checkpoint) else SILENT,
        )
        entry = make_file_entry(second.checkpoint.path, looks[1].hash.result())
    compared = {
        key: TensorDiff(key=key, shape=tensor.shape, change=changes[key])
        for key, tensor in first.checkpoint.tensors.items()
    }
    diff = CheckpointDiff(
        layers=tuple(compared[key] for key in first.weights),
        others=tuple(
            one for key, one in compared.items() if key not in first.weights and one.change.changed
        ),
        agreement=None,
        not_run=NO_MODEL,
        report={},
    )
    warnings = _list_new_notes(looks[1].notes, looks[0].notes)
    report = make_stored_report(first, looks[0], "diff", warnings=warnings, **_describe(diff))
    return replace(diff, report={**report, "inputs": [*report["inputs"], entry]})


def _measure_stored_changes(
    first: Mapping[str, StoredTensor], other: Mapping[str, StoredTensor], progress: Progress
) -> dict[str, Change]:
    """As `measure_change` of each tensor; sums are added up piece by piece, so that their last
    digits may be others.
    """
    changes = dict.fromkeys(first, Change())
    key_of = {id(tensor): key for key, tensor in first.items()}
    groups = list(chain.from_iterable(_pair_pieces(one, other[key]) for key, one in first.items()))
    found = map_together(_measure_pieces, groups)
    for group, change in progress.track(found, label="comparing", total=len(groups)):
        key = key_of[id(group[0].tensor)]
        changes[key] = add_counts(changes[key], change)
    return changes


def _pair_pieces(one: StoredTensor, other: StoredTensor) -> Iterator[tuple[Piece, Piece]]:
    return zip(cut_into_pieces(one), cut_into_pieces(other), strict=True)


def _measure_pieces(group: Sequence[Piece], bits: Sequence[Bits]) -> Change:
    before, after = (
        decode_values(piece.tensor.dtype, some) for piece, some in zip(group, bits, strict=True)
    )
    blocks = (slice(first, first + BLOCK) for first in range(0, len(before), BLOCK))
    with np.errstate(over="ignore", invalid="ignore"):
        return sum_changes(_measure_block(before[block], after[block]) for block in blocks)


def _measure_block(first: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Change:
    """See `snnprune.measure.agreement.measure_change`."""
    same = (first == other) | ((first != first) & (other != other))
    kept, still = first != 0, other != 0
    before = first.astype(np.float64)
    change = other.astype(np.float64) - before
    return Change(
        values=len(first),
        changed=len(first) - int(np.count_nonzero(same)),
        zeros_first=len(first) - int(np.count_nonzero(kept)),
        zeros_other=len(first) - int(np.count_nonzero(still)),
        kept_by_both=int(np.count_nonzero(kept & still)),
        kept_by_either=int(np.count_nonzero(kept | still)),
        squared_change=float(np.square(change).sum()),
        squared_norm=float(np.square(before).sum()),
    )


def _diff_networks(options: DiffOptions, progress: Progress) -> CheckpointDiff:
    """Compare two checkpoints in memory, and run them where there are a network and data."""
    from snnprune.jobs.targets.opening import open_target, read_other

    target = open_target(options)
    if options.data is not None:
        target.require_runnable()
    second = read_other(target, options.other)
    layers = _compare_layers(target, second)
    known = {one.key for one in layers}
    others = tuple(
        one
        for one in _compare_tensors(target.checkpoint.tensors, second.tensors)
        if one.key not in known and one.change.changed
    )
    split = options.split or (target.choose_split() if target.runnable else "")
    found = _measure_agreement(target, second, split, options.limit, progress)
    diff = CheckpointDiff(
        layers=layers, others=others, agreement=found, not_run=target.missing, report={}
    )
    return replace(diff, report=_make_report(target, second, diff, split))


def _compare_layers(target: Target, second: Checkpoint) -> tuple[TensorDiff, ...]:
    """Weights as they are in the network, where a pruning mask lies beside them too."""
    from snnprune.jobs.targets.target import PrunableWeights

    same = PrunableWeights(
        checkpoint=second, network=target.network, exclude=target.options.exclude
    )
    return tuple(_compare_tensors(target.find_weights(), same.find_weights()))


def _compare_tensors(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[TensorDiff]:
    from snnprune.measure.agreement import measure_change

    return [
        TensorDiff(key=key, shape=tuple(tensor.shape), change=measure_change(tensor, other[key]))
        for key, tensor in first.items()
        if key in other and other[key].shape == tensor.shape
    ]


def _measure_agreement(
    target: Target, second: Checkpoint, split: str, limit: int | None, progress: Progress
) -> Agreement | None:
    from snnprune.measure.agreement_pass import measure_agreements

    network = target.runnable
    if network is None:
        return None
    batches = target.batches(split, limit).track(progress, "comparing")
    return measure_agreements(network, target.checkpoint.tensors, [second.tensors], batches)[0]


def _make_report(
    target: Target, second: Checkpoint, diff: CheckpointDiff, split: str
) -> dict[str, Any]:
    names = (target.checkpoint.path.name, second.path.name)
    report = make_target_report(
        target,
        "diff",
        warnings=[
            *_list_new_notes(second.notes, target.checkpoint.notes),
            *doubt_agreement(diff.agreement, names, noun=target.noun),
        ],
        **_describe(diff, split),
    )
    return {**report, "inputs": [*report["inputs"], make_file_entry(second.path, second.sha256)]}


def _list_new_notes(notes: Iterable[str], known: Sequence[str]) -> list[str]:
    return [note for note in notes if note not in known]


def _describe(diff: CheckpointDiff, split: str | None = None) -> dict[str, Any]:
    """What a report says of the differences."""
    agreement = None
    if diff.agreement is not None:
        from snnprune.measure.agreement import describe_agreement

        agreement = describe_agreement(diff.agreement)
    return {
        "split": split if diff.agreement else None,
        "not_run": diff.not_run if diff.agreement is None else None,
        "totals": _describe_change(diff.compute_total()),
        "layers": [_describe_tensor(one) for one in diff.layers],
        "others": [_describe_tensor(one) for one in diff.others],
        "agreement": agreement,
    }


def _describe_tensor(one: TensorDiff) -> dict[str, Any]:
    return {"key": one.key, "shape": list(one.shape), **_describe_change(one.change)}


def _describe_change(one: Change) -> dict[str, Any]:
    return {**asdict(one), "relative_change": one.relative, "overlap": one.overlap}
