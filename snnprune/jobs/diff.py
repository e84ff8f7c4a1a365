"""`snnprune diff`: what changed between two checkpoints of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.jobs.options import DiffOptions
from snnprune.jobs.targets.opening import open_target, read_other
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.target import PrunableWeights, Target
from snnprune.measure.agreement import (
    Agreement,
    Change,
    describe_agreement,
    measure_change,
    sum_changes,
)
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.report import doubt_agreement, make_file_entry
from snnprune.runtime import Progress


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

    The network is that of the first. Without network or data only tensors are compared.

    Raises:
        InputError: a checkpoint is unreadable, the two are of different architectures, or data was
            asked for by name and there is no network to run on it.
    """
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
    same = PrunableWeights(
        checkpoint=second, network=target.network, exclude=target.options.exclude
    )
    return tuple(_compare_tensors(target.find_weights(), same.find_weights()))


def _compare_tensors(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[TensorDiff]:
    return [
        TensorDiff(key=key, shape=tuple(tensor.shape), change=measure_change(tensor, other[key]))
        for key, tensor in first.items()
        if key in other and other[key].shape == tensor.shape
    ]


def _measure_agreement(
    target: Target, second: Checkpoint, split: str, limit: int | None, progress: Progress
) -> Agreement | None:
    network = target.runnable
    if network is None:
        return None
    batches = target.batches(split, limit).track(progress, "comparing")
    return measure_agreements(network, target.checkpoint.tensors, [second.tensors], batches)[0]


def _make_report(
    target: Target, second: Checkpoint, diff: CheckpointDiff, split: str
) -> dict[str, Any]:
    report = make_target_report(
        target,
        "diff",
        warnings=[
            *(note for note in second.notes if note not in target.checkpoint.notes),
            *doubt_agreement(diff.agreement, (target.checkpoint.path.name, second.path.name)),
        ],
        split=split if diff.agreement else None,
        not_run=diff.not_run if diff.agreement is None else None,
        totals=_describe_change(diff.compute_total()),
        layers=[_describe_tensor(one) for one in diff.layers],
        others=[_describe_tensor(one) for one in diff.others],
        agreement=describe_agreement(diff.agreement),
    )
    return {**report, "inputs": [*report["inputs"], make_file_entry(second.path, second.sha256)]}


def _describe_tensor(one: TensorDiff) -> dict[str, Any]:
    return {"key": one.key, "shape": list(one.shape), **_describe_change(one.change)}


def _describe_change(one: Change) -> dict[str, Any]:
    return {**asdict(one), "relative_change": one.relative, "overlap": one.overlap}
