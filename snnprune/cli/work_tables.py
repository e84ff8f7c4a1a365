"""What a network does on a sample, in operations and energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.number_tables import number_table
from snnprune.notation import in_joules, layer_name, percent, whole

if TYPE_CHECKING:
    from snnprune.jobs.evaluate import Evaluated


def work_table(found: Evaluated, width: int) -> Table:
    """Synaptic operations for a sample, by layer."""
    samples = found.evaluation.samples
    rows = [
        [
            layer_name(key),
            per_sample(layer.dense, samples),
            per_sample(layer.macs, samples),
            per_sample(layer.acs, samples),
            percent((layer.macs + layer.acs) / layer.dense if layer.dense else None),
        ]
        for key, layer in found.workload.layers.items()
    ]
    return number_table(["a sample", "dense", "MACs", "ACs", "done"], rows, width)


def work_lines(found: Evaluated) -> list[str]:
    """Totals for a sample, energy, and how sparse activations are."""
    samples, total = found.evaluation.samples, found.workload.sum_layers()
    active, energy = found.workload.sum_neurons(), found.energy
    lines = [
        f"synaptic operations of a sample: {per_sample(total.macs, samples)} MACs, "
        f"{per_sample(total.acs, samples)} ACs; dense {per_sample(total.dense, samples)}",
        f"energy {in_joules(energy.of(total) / samples)} a sample at {energy.mac:g} pJ a MAC and "
        f"{energy.ac:g} pJ an AC, memory traffic left out",
    ]
    if active.outputs:
        lines.append(
            f"activation sparsity {1 - active.active / active.outputs:.2%}, "
            f"{per_sample(active.updates, samples)} membrane updates a sample"
        )
    return lines


def per_sample(count: int, samples: int) -> str:
    """A mean of counts."""
    return whole(count / samples)
