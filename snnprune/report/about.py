"""What was measured, as the parts of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnprune.evaluation import Evaluation
    from snnprune.workload import Energy, Workload


def about_workload(work: Workload, samples: int, energy: Energy) -> dict[str, Any]:
    """What was done, as counts over all samples, and the energy of one sample."""
    return {
        "samples": samples,
        **asdict(work.total),
        **asdict(work.active),
        "energy_pj": energy.of(work.total) / samples,
        "energy_per_mac_pj": energy.mac,
        "energy_per_ac_pj": energy.ac,
        "layers": {key: asdict(layer) for key, layer in work.layers.items()},
        "neurons": {name: asdict(neuron) for name, neuron in work.neurons.items()},
    }


def about_evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """An evaluation as counts, with accuracy and loss beside them."""
    if evaluation is None:
        return None
    return {
        "samples": evaluation.samples,
        "labelled": evaluation.labelled,
        "correct": evaluation.correct,
        "loss_sum": evaluation.loss_sum,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "firing_rates": evaluation.firing_rates,
        "activity": {
            name: {
                "channels": found.channels,
                "silent": found.silent,
                "saturated": found.saturated,
            }
            for name, found in evaluation.activity.items()
        },
        "readout": evaluation.readout,
        "time_steps": evaluation.time_steps,
        "answers": evaluation.answers,
        "classes": evaluation.classes,
        "images": evaluation.images,
    }


FEW = 20
"""On fewer images a silent neuron or one answer is no sign of anything."""


def doubts_on(evaluation: Mapping[str, Any] | None, *, of: str = "the network") -> list[str]:
    """What an evaluation as above hints at: neurons without a spike, one answer for everything."""
    if evaluation is None or evaluation["samples"] < FEW:
        return []
    rates = evaluation["firing_rates"]
    silent = [name for name, rate in rates.items() if rate == 0]
    found = []
    if silent:
        named = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
        found.append(f"{named}: no spike on {evaluation['samples']:,} images of {of}")
    if evaluation.get("answers") == 1 and evaluation.get("classes", 0) > 1:
        found.append(
            f"{of} answers one class for all {evaluation['labelled']:,} images, which have "
            f"{evaluation['classes']} classes"
        )
    return found
