"""`snnprune inspect`: what is in a checkpoint; runs no code of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.containers import files_of
from snnprune.data.batches import describe_batch
from snnprune.graph.samples_and_steps import StepCounts, count_steps, list_doubts
from snnprune.jobs.options import InspectOptions
from snnprune.jobs.targets.opening import open_target, read_example
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    count_totals,
    make_layer_rows,
    make_target_report,
)
from snnprune.jobs.targets.target import Target
from snnprune.measure import Natural
from snnprune.plugins.user_code import guard_user_code


@dataclass(frozen=True, kw_only=True)
class NeuronRow:
    """Neurons of one name."""

    name: str
    library: str
    steps: Natural | None
    """That they make on a sample; None where that is not known."""
    feeders: Sequence[str]
    identities: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class InspectResult:
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


def inspect_checkpoint(options: InspectOptions) -> InspectResult:
    """Look into a checkpoint, and trace its network where the model is known."""
    target = open_target(options)
    tensors = target.checkpoint.tensors
    rows = make_layer_rows(target.find_weights(), network=target.network)
    tied = target.prunable.find_tied()
    weights = (*(row.weight for row in rows), *target.prunable.find_excluded())
    prunable = {name for key in weights for name in tied.get(key, (key,))}
    skipped = tuple(key for key in tensors if key not in prunable)
    counted = count_totals(rows, tensors, target.network)
    paces = _count_paces(target)
    return InspectResult(
        checkpoint=target.checkpoint,
        rows=rows,
        totals=counted,
        skipped=skipped,
        made=target.prunable.find_made(),
        unlinked=target.missing if target.network is None else None,
        report=_make_report(target, rows, counted, paces),
    )


def _count_paces(target: Target) -> StepCounts | None:
    """How many steps the neurons make on two samples, where the links are known."""
    if target.network is None or target.spec is None:
        return None
    example = read_example(target.spec, target.data, target.device)
    if example is None:
        return None
    what = f"running the model on {describe_batch(example.x)}"
    with guard_user_code(what, field="--model"):
        return count_steps(target.network, example.x)


def _make_report(
    target: Target, rows: tuple[LayerRow, ...], counted: dict[str, int], paces: StepCounts | None
) -> dict[str, Any]:
    network = target.network
    neurons = network.neurons.values() if network else ()
    return make_target_report(
        target,
        "inspect",
        warnings=[*list_doubts(network, paces)] if network and paces else [],
        container=target.checkpoint.container,
        size_bytes=sum(path.stat().st_size for path in files_of(target.checkpoint.path)),
        metadata=target.checkpoint.metadata,
        tensors=len(target.checkpoint.tensors),
        totals=counted,
        layers=as_dicts(rows),
        made=dict(target.prunable.find_made()),
        unused=list(target.prunable.find_unused()),
        neurons=[
            asdict(
                NeuronRow(
                    name=neuron.name,
                    library=neuron.library.name,
                    steps=paces.steps.get(neuron.name) if paces else None,
                    feeders=list(neuron.feeders),
                    identities=list(neuron.identities),
                )
            )
            for neuron in neurons
        ],
    )
