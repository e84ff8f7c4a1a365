"""`snnprune inspect`: what is in a checkpoint; runs no code of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnprune.checkpoint import Checkpoint, files_of
from snnprune.jobs.subjects.layers import LayerRow, as_dicts, layer_rows, totals
from snnprune.jobs.subjects.opening import open_subject
from snnprune.jobs.subjects.options import SubjectOptions
from snnprune.jobs.subjects.reporting import report_on
from snnprune.jobs.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What was found."""

    checkpoint: Checkpoint
    rows: tuple[LayerRow, ...]
    totals: dict[str, int]
    skipped: tuple[str, ...]
    """Tensors that are no prunable weight."""
    made: Mapping[str, str]
    """Weights that are made of others as a whole and cannot be pruned, by what."""
    unlinked: str | None
    """Why the links are not known, where they are not."""
    report: dict[str, Any]


def inspect_checkpoint(options: SubjectOptions) -> Inspected:
    """Look into a checkpoint, and trace its network where the model is known."""
    subject = open_subject(options)
    tensors = subject.checkpoint.tensors
    rows = layer_rows(subject.weights, network=subject.network)
    tied = subject.prunable.tied
    weights = (*(row.weight for row in rows), *subject.prunable.excluded)
    prunable = {name for key in weights for name in tied.get(key, (key,))}
    skipped = tuple(key for key in tensors if key not in prunable)
    counted = totals(rows, tensors, subject.network)
    return Inspected(
        checkpoint=subject.checkpoint,
        rows=rows,
        totals=counted,
        skipped=skipped,
        made=subject.prunable.made,
        unlinked=subject.missing if subject.network is None else None,
        report=_report(subject, rows, counted),
    )


def _report(
    subject: Subject, rows: tuple[LayerRow, ...], counted: dict[str, int]
) -> dict[str, Any]:
    neurons = subject.network.neurons.values() if subject.network else ()
    return report_on(
        subject,
        "inspect",
        container=subject.checkpoint.container,
        size_bytes=sum(path.stat().st_size for path in files_of(subject.checkpoint.path)),
        metadata=subject.checkpoint.metadata,
        tensors=len(subject.checkpoint.tensors),
        totals=counted,
        layers=as_dicts(rows),
        made=dict(subject.prunable.made),
        unused=list(subject.prunable.unused),
        neurons=[
            {
                "name": neuron.name,
                "library": neuron.library.name,
                "feeders": list(neuron.feeders),
                "identities": list(neuron.identities),
            }
            for neuron in neurons
        ],
    )
