"""An agreement as JSON: counts, and the shares that follow from them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snnprune.agreement.counts import Agreement, Spikes


def about_agreement(agreement: Agreement | None) -> dict[str, Any] | None:
    """For a report."""
    if agreement is None:
        return None
    outputs, answers = agreement.outputs, agreement.answers
    return {
        "samples": agreement.samples,
        "spike_agreement": agreement.share(),
        "neurons": {name: _about(spikes) for name, spikes in agreement.spikes.items()},
        "outputs": outputs
        and {
            **asdict(outputs),
            "mean_difference": outputs.mean_difference,
            "mean_cosine": outputs.mean_cosine,
            "mean_divergence": outputs.mean_divergence,
            "same_class_share": outputs.share,
        },
        "answers": answers
        and {
            **asdict(answers),
            "labelled": answers.labelled,
            "accuracies": list(answers.accuracies),
        },
    }


def _about(spikes: Spikes) -> dict[str, Any]:
    return {
        "places": list(spikes.places),
        "same": list(spikes.same),
        "spikes": [list(spikes.first), list(spikes.other)],
        "timed": spikes.timed,
        "firing_rates": list(spikes.rates),
        "agreement": spikes.share,
        "agreement_by_step": list(spikes.shares),
    }
