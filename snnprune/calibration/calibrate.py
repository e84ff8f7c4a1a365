"""The calibration pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.calibration.alignment import aligned, membrane_axis
from snnprune.calibration.factors import NormFactors
from snnprune.calibration.moments import (
    ChannelHistogram,
    ChannelMean,
    ChannelMoments,
    blocks,
)
from snnprune.calibration.statistics import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.errors import InputError, NonFiniteError
from snnprune.network import (
    Batch,
    Layer,
    Link,
    Network,
    Neuron,
    at_rest,
    batch_length,
    evaluating,
    fed,
    watching,
)

MIN_SAMPLES = 1024  # below this many images rates and variances are too rough to rank by
HISTOGRAM = (-4.0, 4.0, 128)  # u - u_th from, to, bins

UNEXPLAINED = "its spikes do not follow from the membrane that was seen"
NO_AXIS = "its membrane has no axis that is surely that of its channels"
UNSEEN = "its membrane was not seen"


@torch.no_grad()
def calibrate(
    network: Network,
    batches: Iterable[Batch],
    *,
    run: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x),
    source: Mapping[str, str] | None = None,
) -> Calibration:
    """Statistics of a network in eval mode over `batches` of training images, x or (x, y).

    Everything is streamed: memory does not grow with the number of batches, and their size and
    order do not matter beyond rounding in float64.

    Raises:
        InputError: there is no batch.
        NonFiniteError: a membrane is NaN or infinite.
    """
    collector = _Collector(network)
    samples = 0
    watched = watching(
        network,
        on_input=collector.on_input,
        on_membrane=collector.on_membrane,
        on_spikes=collector.on_spikes,
        on_norm=collector.factors.on_norm,
    )
    with evaluating(network.module), at_rest(network) as reset:
        with collector.factors.keeping(), watched:
            for x, y in fed(batches, network.module):
                reset()
                run(network.module, x)
                samples += batch_length(x, y)
                collector.batches += 1
        collector.factors.probe()
    if not samples:
        raise InputError("no samples to calibrate on", field="--data")
    return collector.result(samples, dict(source or {}))


class _Collector:
    """Keeps the sums of what is observed, never the activations."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.factors = NormFactors(network)
        self.inputs: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.membranes: dict[str, ChannelMoments] = defaultdict(ChannelMoments)
        self.histograms = defaultdict[str, ChannelHistogram](lambda: ChannelHistogram(*HISTOGRAM))
        self.spikes: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.unchecked: dict[str, list[Tensor]] = defaultdict(list)
        self.refused: dict[str, str] = {}
        self.steps = 0
        self.batches = 0
        self.first = next(iter(network.neurons), None)

    def on_input(self, weight: str, x: Tensor) -> None:
        for block in blocks(x, self.network.layers[weight].channel_axis):
            self.inputs[weight].add(block)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.steps += len(distance)
        pieces = blocks(distance, self._axis(neuron, distance.shape))
        for block in pieces:
            self.membranes[neuron].add(block)
        if not bool(self.membranes[neuron].squares.isfinite().all()):
            raise NonFiniteError("membrane potential is not finite", field=neuron)
        for block in pieces:
            self.histograms[neuron].add(block)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        fires = _fires(torch.cat(seen), self.network.neurons[neuron]) if seen else None
        spikes_then = None if fires is None else aligned(spikes, fires)
        if spikes_then is None:
            self.refused[neuron] = UNEXPLAINED
            return
        for block in blocks(spikes_then, self._axis(neuron, spikes_then.shape)):
            self.spikes[neuron].add(block)

    def _axis(self, neuron: str, shape: torch.Size) -> int:
        """Where the channels of the neuron are; -1 and no statistics where nobody can say."""
        layers = [self.network.layers[key] for key in self.network.neurons[neuron].feeders]
        # a layer of other outputs, such as one between all places, does not say
        axes = {
            axis
            for layer in layers
            if (axis := membrane_axis(layer, shape, moved=_moved(layer, neuron))) is not None
        }
        if len(axes) == 1:
            return axes.pop()
        if layers:
            self.refused[neuron] = NO_AXIS
        return -1

    def result(self, samples: int, source: dict[str, str]) -> Calibration:
        neurons = {
            name: self._neuron(neuron)
            for name, neuron in self.network.neurons.items()
            if name in self.membranes and name not in self.refused
        }
        gains = _time_gains(self.network, self.steps // self.batches)
        layers = {
            key: self._layer(layer, neurons, gains)
            for key, layer in self.network.layers.items()
            if key in self.inputs
        }
        return Calibration(
            layers=layers,
            neurons=neurons,
            samples=samples,
            time_steps=self.steps // self.batches,
            histogram_edges=ChannelHistogram(*HISTOGRAM).edges,
            source=source,
            warnings=(*_activity_warnings(neurons), *_refusals(self.refused)),
        )

    def _neuron(self, neuron: Neuron) -> NeuronStatistics:
        moments = self.membranes[neuron.name]
        threshold = torch.as_tensor(neuron.constants.threshold, dtype=torch.float64)
        return NeuronStatistics(
            firing_rate=self.spikes[neuron.name].mean.cpu(),
            membrane_mean=moments.mean.cpu() + threshold.cpu(),
            membrane_var=moments.variance.cpu(),
            membrane_histogram=self.histograms[neuron.name].counts.cpu(),
            threshold=threshold.cpu().expand(len(moments.mean)).clone(),
        )

    def _layer(
        self, layer: Layer, neurons: dict[str, NeuronStatistics], gains: dict[str, float]
    ) -> LayerStatistics:
        refused = next(
            filter(None, (self._refusal(layer, link, neurons) for link in layer.links)), None
        )
        return LayerStatistics(
            input_rate=self.inputs[layer.weight].mean.cpu(),
            input_values=self.inputs[layer.weight].values,
            drives=()
            if refused
            else tuple(
                DriveStatistics(
                    name=link.neuron,
                    neuron=neurons[link.neuron],
                    bn_scale=self.factors.of(layer, link),
                    time_gain=gains.get(link.neuron, 1.0),
                )
                for link in layer.links
            ),
            refused=refused,
        )

    def _refusal(
        self, layer: Layer, link: Link, neurons: dict[str, NeuronStatistics]
    ) -> str | None:
        """Why nothing can be said of a layer's effect on that neuron."""
        if link.obstacle:
            return f"{link.obstacle} stands between it and {link.neuron}"
        if link.neuron not in neurons:
            return f"{link.neuron}: {self.refused.get(link.neuron, UNSEEN)}"
        if len(neurons[link.neuron].threshold) != layer.shape[0]:
            return f"{link.neuron}: {NO_AXIS}"
        return self.factors.refused(link)


def _fires(distance: Tensor, neuron: Neuron) -> Tensor:
    """Where u - u_th, (T, N, ...), is a spike."""
    return distance >= 0 if neuron.constants.fires_at_threshold else distance > 0


def _moved(layer: Layer, neuron: str) -> bool:
    return any(link.moved for link in layer.links if link.neuron == neuron)


def _time_gains(network: Network, steps: int) -> dict[str, float]:
    """(1 - beta^T) / (1 - beta) per neuron where decay differs between neurons, else nothing.

    A factor that all layers share changes no ranking and is left out.
    """
    constants = {name: neuron.constants for name, neuron in network.neurons.items()}
    decays = {(known.beta, known.decay_input) for known in constants.values()}
    if len(decays) < 2 or any(known.beta is None for known in constants.values()):
        return {}
    return {
        name: _time_gain(known.beta, steps, decay_input=known.decay_input)
        for name, known in constants.items()
        if known.beta is not None
    }


def _time_gain(beta: float, steps: int, *, decay_input: bool) -> float:
    """How much of a constant error of the input has gathered in the membrane after `steps`."""
    gathered = float(steps) if beta == 1 else (1 - beta**steps) / (1 - beta)
    return gathered * (1 - beta) if decay_input else gathered


def _refusals(refused: Mapping[str, str]) -> Iterable[str]:
    for name, reason in refused.items():
        yield f"{name}: {reason}; it is left out"


def _activity_warnings(neurons: Mapping[str, NeuronStatistics]) -> Iterable[str]:
    for name, statistics in neurons.items():
        if bool((statistics.firing_rate == 0).all()):
            yield f"{name} never spikes on the calibration data"
        elif bool((statistics.firing_rate == 1).all()):
            yield f"{name} spikes at every step on the calibration data"
