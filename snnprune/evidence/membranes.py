"""Membrane potentials about the threshold, and how much fires."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.calibration import Calibration, NeuronStatistics
from snnprune.quantities import Natural


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Of the neurons of one name."""

    channels: Natural
    silent: Natural
    """Channels that never spike."""
    saturated: Natural
    """Channels that spike everywhere at every step."""
    firing_rate: float
    """Spikes per neuron per time step."""
    histogram: tuple[Natural, ...]
    """Counts of u - u_th over all channels, (bins + 2,); the first and last bin take what lies
    outside the edges."""


def membranes(calibration: Calibration) -> dict[str, Membrane]:
    """By neuron name."""
    return {name: _membrane(neuron) for name, neuron in calibration.neurons.items()}


def _membrane(neuron: NeuronStatistics) -> Membrane:
    return Membrane(
        channels=len(neuron.firing_rate),
        silent=int((neuron.firing_rate == 0).sum()),
        saturated=int((neuron.firing_rate >= 1).sum()),
        firing_rate=float(neuron.firing_rate.mean()),
        histogram=tuple(neuron.membrane_histogram.sum(0).tolist()),
    )
