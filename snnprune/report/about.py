"""What was measured, as the parts of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnprune.agreement import Agreement
    from snnprune.evaluation import Evaluation
    from snnprune.workload import Energy, Workload


def about_workload(work: Workload, samples: int, energy: Energy) -> dict[str, Any]:
    """What was done, as counts over all samples, and the energy of one sample."""
    total = work.sum_layers()
    return {
        "samples": samples,
        **asdict(total),
        **asdict(work.sum_neurons()),
        "energy_pj": energy.of(total) / samples,
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
    """What an evaluation hints at: neurons without a spike, one answer or one label for all."""
    if evaluation is None or evaluation["samples"] < FEW:
        return []
    found = _silent(evaluation["firing_rates"], evaluation["samples"], of)
    if evaluation.get("answers") == 1 and evaluation.get("classes", 0) > 1:
        found.append(
            f"{of} answers one class for all {evaluation['labelled']:,} images, which have "
            f"{evaluation['classes']} classes"
        )
    if evaluation.get("classes") == 1:
        found.append(
            f"all {evaluation['labelled']:,} images are of one class: "
            "their accuracy tells nothing of the others"
        )
    return found


def doubts_on_both(agreement: Agreement | None, names: tuple[str, str]) -> list[str]:
    """What an agreement hints at, of the networks that are called by `names`."""
    if agreement is None or agreement.samples < FEW:
        return []
    found = []
    for which, (name, classes) in enumerate(zip(names, agreement.classes, strict=True)):
        rates = {neuron: spikes.rates[which] for neuron, spikes in agreement.spikes.items()}
        found += _silent(rates, agreement.samples, name)
        if classes == 1:
            found.append(f"{name} answers one class for all {agreement.samples:,} images")
    return found


def _silent(rates: Mapping[str, float], samples: int, of: str) -> list[str]:
    silent = [name for name, rate in rates.items() if rate == 0]
    if not silent:
        return []
    named = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
    return [f"{named}: no spike on {samples:,} images of {of}"]
