"""Membrane potentials about the threshold, before and after."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.calibration import Calibration, NeuronStatistics


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Of the neurons of one name."""

    channels: int
    silent: tuple[int, int]
    """Channels that never spike, before and after."""
    saturated: tuple[int, int]
    """Channels that spike everywhere at every step, before and after."""
    firing_rates: tuple[float, float]
    """Spikes per neuron per time step, before and after."""
    histograms: tuple[tuple[int, ...], tuple[int, ...]]
    """Counts of u - u_th over all channels, before and after; the first and last bin take what lies
    outside the edges."""


def membranes(before: Calibration, after: Calibration) -> dict[str, Membrane]:
    """By the names of neurons that both have statistics of."""
    return {
        name: _membrane(before.neurons[name], after.neurons[name])
        for name in before.neurons
        if name in after.neurons
    }


def _membrane(*both: NeuronStatistics) -> Membrane:
    first, second = both
    return Membrane(
        channels=len(first.firing_rate),
        silent=(_silent(first), _silent(second)),
        saturated=(_saturated(first), _saturated(second)),
        firing_rates=(float(first.firing_rate.mean()), float(second.firing_rate.mean())),
        histograms=(_counts(first), _counts(second)),
    )


def _silent(neuron: NeuronStatistics) -> int:
    return int((neuron.firing_rate == 0).sum())


def _saturated(neuron: NeuronStatistics) -> int:
    return int((neuron.firing_rate >= 1).sum())


def _counts(neuron: NeuronStatistics) -> tuple[int, ...]:
    return tuple(neuron.membrane_histogram.sum(0).tolist())
