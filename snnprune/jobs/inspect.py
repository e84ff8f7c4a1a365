"""`snnprune inspect`: what is in a checkpoint; runs no code of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.containers import files_of
from snnprune.checkpoint.naming import note_left_alone
from snnprune.jobs.options import InspectOptions
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    count_totals,
    make_layer_rows,
    make_target_report,
)
from snnprune.jobs.targets.stored import (
    NO_MODEL,
    StoredTarget,
    look_at_values,
    make_stored_report,
    make_stored_rows,
    open_stored_target,
)
from snnprune.measure import Natural
from snnprune.runtime import Progress

if TYPE_CHECKING:
    from snnprune.checkpoint.checkpoint import Checkpoint
    from snnprune.checkpoint.stored import StoredCheckpoint
    from snnprune.graph.samples_and_steps import StepCounts
    from snnprune.jobs.targets.target import Target

LARGE = 2**28
"""Bytes of a file whose values are read by `--statistics` alone: it takes a second and more."""


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

    checkpoint: Checkpoint | StoredCheckpoint
    rows: tuple[LayerRow, ...]
    totals: dict[str, Any]
    skipped: tuple[str, ...]
    """Tensors that are no prunable weight."""
    made: Mapping[str, str]
    """Weights that are made of others as a whole and cannot be pruned, by what."""
    unlinked: str | None
    """Why the links are not known, where they are not."""
    report: dict[str, Any]


def inspect_checkpoint(options: InspectOptions, progress: Progress) -> InspectResult:
    """Look into a checkpoint, and trace its network where the model is known.

    A bare safetensors file is read without torch, a large one no further than its header.

    Raises:
        InputError: it is none, or a damaged one, or does not fit the model.
    """
    stored = open_stored_target(options)
    return _inspect_network(options) if stored is None else _inspect_stored(stored, progress)


def _inspect_stored(target: StoredTarget, progress: Progress) -> InspectResult:
    checkpoint, options = target.checkpoint, target.options
    size = sum(path.stat().st_size for path in checkpoint.files)
    asked = isinstance(options, InspectOptions) and options.statistics
    look = look_at_values(target, progress) if asked or size <= LARGE else None
    zeros = {} if look is None else look.count_zeros(target.weights)
    kept = {key: one.numel() - zeros[key] for key, one in target.weights.items() if key in zeros}
    rows = make_stored_rows(target.weights, kept)
    totals = count_totals(rows, checkpoint.tensors, None)
    unread = [f"values not read: --statistics reads all {size:,} bytes"] if look is None else []
    return InspectResult(
        checkpoint=checkpoint,
        rows=rows,
        totals=totals,
        skipped=_list_skipped(checkpoint.tensors, (*target.weights, *target.excluded)),
        made={},
        unlinked=NO_MODEL,
        report=make_stored_report(
            target,
            look,
            "inspect",
            warnings=[*([] if look else note_left_alone(checkpoint.tensors)), *unread],
            container=checkpoint.container,
            size_bytes=size,
            metadata=checkpoint.metadata,
            tensors=len(checkpoint.tensors),
            totals=totals,
            layers=as_dicts(rows),
            made={},
            unused=[],
            neurons=[],
        ),
    )


def _list_skipped(tensors: Iterable[str], prunable: Iterable[str]) -> tuple[str, ...]:
    known = set(prunable)
    return tuple(key for key in tensors if key not in known)


def _inspect_network(options: InspectOptions) -> InspectResult:
    from snnprune.jobs.targets.opening import open_target

    target = open_target(options)
    tensors = target.checkpoint.tensors
    rows = make_layer_rows(target.find_weights(), network=target.network)
    tied = target.prunable.find_tied()
    weights = (*(row.weight for row in rows), *target.prunable.find_excluded())
    counted = count_totals(rows, tensors, target.network)
    paces = _count_paces(target)
    return InspectResult(
        checkpoint=target.checkpoint,
        rows=rows,
        totals=counted,
        skipped=_list_skipped(tensors, (name for key in weights for name in tied.get(key, (key,)))),
        made=target.prunable.find_made(),
        unlinked=target.missing if target.network is None else None,
        report=_make_report(target, rows, counted, paces),
    )


def _count_paces(target: Target) -> StepCounts | None:
    """How many steps the neurons make on two samples, where the links are known."""
    from snnprune.data.batches import describe_batch
    from snnprune.graph.samples_and_steps import count_steps
    from snnprune.jobs.targets.opening import read_example
    from snnprune.plugins.user_code import guard_user_code

    if target.network is None or target.spec is None:
        return None
    example = read_example(target.spec, target.data, target.device)
    if example is None:
        return None
    what = f"running the model on {describe_batch(example.x)}"
    with guard_user_code(what, field="--model"):
        return count_steps(target.network, example.x)


def _make_report(
    target: Target, rows: tuple[LayerRow, ...], counted: dict[str, Any], paces: StepCounts | None
) -> dict[str, Any]:
    from snnprune.graph.samples_and_steps import list_doubts

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
