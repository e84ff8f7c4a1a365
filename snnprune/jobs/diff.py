"""`snnprune diff`: what changed between two checkpoints of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.jobs.targets.opening import open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.other import read_other
from snnprune.jobs.targets.prunable import Prunable
from snnprune.jobs.targets.reporting import report_on
from snnprune.jobs.targets.target import Subject
from snnprune.measure.agreement import Agreement, Change, about_agreement, change, together
from snnprune.measure.agreement_pass import agreements
from snnprune.report.frame import doubts_on_both, file_entry
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A tensor of both checkpoints."""

    key: str
    shape: tuple[int, ...]
    change: Change


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What came of it; A is the first checkpoint, B the other."""

    layers: tuple[Changed, ...]
    """Every weight that can be pruned."""
    others: tuple[Changed, ...]
    """The other tensors that changed."""
    agreement: Agreement | None
    """None where there is no network or no data to run it on."""
    not_run: str | None
    """Why there is none."""
    report: dict[str, Any]

    def compute_total(self) -> Change:
        """Of all layers."""
        return together(one.change for one in self.layers)


def diff_checkpoints(
    options: SubjectOptions,
    other: Path,
    *,
    split: str | None,
    limit: int | None,
    progress: Progress,
) -> Diff:
    """Compare two checkpoints, and run both on the images of `split`, at most `limit` of them.

    The network is that of the first. Without network or data only tensors are compared.

    Raises:
        InputError: a checkpoint is unreadable, the two are of different architectures, or data was
            asked for by name and there is no network to run on it.
    """
    subject = open_subject(options)
    if options.data is not None:
        subject.require_runnable()
    second = read_other(subject, other)
    layers = _layers(subject, second)
    known = {one.key for one in layers}
    others = tuple(
        one
        for one in _compared(subject.checkpoint.tensors, second.tensors)
        if one.key not in known and one.change.changed
    )
    split = split or (subject.choose_split() if subject.runnable else "")
    found = _agreement(subject, second, split, limit, progress)
    diff = Diff(layers=layers, others=others, agreement=found, not_run=subject.missing, report={})
    return replace(diff, report=_report(subject, second, diff, split))


def _layers(subject: Subject, second: Checkpoint) -> tuple[Changed, ...]:
    """Weights as they are in the network, where a pruning mask lies beside them too."""
    same = Prunable(checkpoint=second, network=subject.network, exclude=subject.options.exclude)
    return tuple(_compared(subject.find_weights(), same.find_weights()))


def _compared(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[Changed]:
    return [
        Changed(key=key, shape=tuple(tensor.shape), change=change(tensor, other[key]))
        for key, tensor in first.items()
        if key in other and other[key].shape == tensor.shape
    ]


def _agreement(
    subject: Subject, second: Checkpoint, split: str, limit: int | None, progress: Progress
) -> Agreement | None:
    network = subject.runnable
    if network is None:
        return None
    batches = subject.batches(split, limit).track(progress, "comparing")
    return agreements(network, subject.checkpoint.tensors, [second.tensors], batches)[0]


def _report(subject: Subject, second: Checkpoint, diff: Diff, split: str) -> dict[str, Any]:
    report = report_on(
        subject,
        "diff",
        warnings=[
            *(note for note in second.notes if note not in subject.checkpoint.notes),
            *doubts_on_both(diff.agreement, (subject.checkpoint.path.name, second.path.name)),
        ],
        split=split if diff.agreement else None,
        not_run=diff.not_run if diff.agreement is None else None,
        totals=_about(diff.compute_total()),
        layers=[_about_tensor(one) for one in diff.layers],
        others=[_about_tensor(one) for one in diff.others],
        agreement=about_agreement(diff.agreement),
    )
    return {**report, "inputs": [*report["inputs"], file_entry(second.path, second.sha256)]}


def _about_tensor(one: Changed) -> dict[str, Any]:
    return {"key": one.key, "shape": list(one.shape), **_about(one.change)}


def _about(one: Change) -> dict[str, Any]:
    return {**asdict(one), "relative_change": one.relative, "overlap": one.overlap}
