"""`snnprune inspect`: what is in a checkpoint; runs no code of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.read import files_of
from snnprune.data.batches import described
from snnprune.graph.steps import Paces, doubts, paces_of
from snnprune.jobs.targets.layers import LayerRow, as_dicts, layer_rows, totals
from snnprune.jobs.targets.opening import example_of, open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.reporting import report_on
from snnprune.jobs.targets.target import Subject
from snnprune.plugins.user_code import calling_user_code


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
    rows = layer_rows(subject.find_weights(), network=subject.network)
    tied = subject.prunable.find_tied()
    weights = (*(row.weight for row in rows), *subject.prunable.find_excluded())
    prunable = {name for key in weights for name in tied.get(key, (key,))}
    skipped = tuple(key for key in tensors if key not in prunable)
    counted = totals(rows, tensors, subject.network)
    paces = _paces(subject)
    return Inspected(
        checkpoint=subject.checkpoint,
        rows=rows,
        totals=counted,
        skipped=skipped,
        made=subject.prunable.find_made(),
        unlinked=subject.missing if subject.network is None else None,
        report=_report(subject, rows, counted, paces),
    )


def _paces(subject: Subject) -> Paces | None:
    """How many steps the neurons make on two samples, where the links are known."""
    if subject.network is None or subject.spec is None:
        return None
    example = example_of(subject.spec, subject.data, subject.device)
    if example is None:
        return None
    what = f"running the model on {described(example.x)}"
    with calling_user_code(what, field="--model"):
        return paces_of(subject.network, example.x)


def _report(
    subject: Subject, rows: tuple[LayerRow, ...], counted: dict[str, int], paces: Paces | None
) -> dict[str, Any]:
    network = subject.network
    neurons = network.neurons.values() if network else ()
    return report_on(
        subject,
        "inspect",
        warnings=[*doubts(network, paces)] if network and paces else [],
        container=subject.checkpoint.container,
        size_bytes=sum(path.stat().st_size for path in files_of(subject.checkpoint.path)),
        metadata=subject.checkpoint.metadata,
        tensors=len(subject.checkpoint.tensors),
        totals=counted,
        layers=as_dicts(rows),
        made=dict(subject.prunable.find_made()),
        unused=list(subject.prunable.find_unused()),
        neurons=[
            {
                "name": neuron.name,
                "library": neuron.library.name,
                "steps": paces.steps.get(neuron.name) if paces else None,
                "feeders": list(neuron.feeders),
                "identities": list(neuron.identities),
            }
            for neuron in neurons
        ],
    )
