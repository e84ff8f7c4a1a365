"""The calibration pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import InputError
from snnprune.graph.forward import Batch, Forward
from snnprune.graph.hooks import observe
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Layer, Link, Network, Neuron
from snnprune.measure.calibration import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.measure.collector import NO_AXIS, Collector
from snnprune.measure.sums import HISTOGRAM, ChannelHistogram

MIN_SAMPLES = 1024  # below this many images rates and variances are too rough to rank by
UNSEEN = "its membrane was not seen"


@torch.no_grad()
def calibrate(
    network: Network,
    batches: Iterable[Batch],
    *,
    run: Forward | None = None,
    source: Mapping[str, str] | None = None,
    ranks: Ranks = ALONE,
) -> Calibration:
    """Statistics of a network in eval mode over `batches` of training images, x or (x, y).

    Everything is streamed: memory does not grow with the number of batches, and their size and
    order do not matter beyond rounding in float64. Several `ranks` are given the same batches, run
    a share each, and all return the statistics of the whole. `run` is how a batch is run, where it
    is not run as the network was traced.

    Raises:
        InputError: there is no batch.
        NonFiniteError: a membrane is NaN or infinite.
    """
    network = network.with_forward(run)
    collector = Collector(network)
    watched = observe(
        network,
        on_input=collector.on_input,
        on_layer=collector.on_layer,
        on_membrane=collector.on_membrane,
        on_spikes=collector.on_spikes,
        on_norm=collector.factors.on_norm,
    )
    with use_eval_mode(network.module):
        with collector.factors.keep_inputs(), watched as start:
            for x, y in network.feed(ranks.deal(batches)):
                start()
                collector.begin()
                network.run(x)
                collector.sums.samples += network.count_samples(x, y)
                collector.sums.batches += 1
        collector.factors.probe()
    collector.gather(ranks)
    if not collector.sums.samples:
        raise InputError("no samples to calibrate on", field="--data")
    return _CollectedStatistics(collector).calibration(dict(source or {}))


class _CollectedStatistics:
    """What a collector has seen, put together."""

    def __init__(self, collector: Collector) -> None:
        self.network, self.factors = collector.network, collector.factors
        self.seen = collector.sums
        self.steps = self.seen.steps // self.seen.batches
        self.edges = ChannelHistogram(*HISTOGRAM).compute_edges()

    def calibration(self, source: dict[str, str]) -> Calibration:
        """What all of it says."""
        neurons = {
            name: self._neuron(neuron)
            for name, neuron in self.network.neurons.items()
            if name in self.seen.membranes and name not in self.seen.refused
        }
        gains = _compute_time_gains(self.network, self.steps)
        layers = {
            key: self._layer(layer, neurons, gains)
            for key, layer in self.network.layers.items()
            if key in self.seen.inputs
        }
        return Calibration(
            layers=layers,
            neurons=neurons,
            samples=self.seen.samples,
            time_steps=self.steps,
            histogram_edges=self.edges,
            source=source,
            warnings=(*_list_activity_warnings(neurons), *_format_refusals(self.seen.refused)),
        )

    def _neuron(self, neuron: Neuron) -> NeuronStatistics:
        by_step = self.seen.membranes[neuron.name]
        moments = by_step.together()
        channels = len(moments.mean)
        threshold = torch.as_tensor(neuron.constants.threshold, dtype=torch.float64).cpu()
        threshold = threshold.reshape(-1)  # one by channel may have the form (C, 1, 1)
        if threshold.numel() not in (1, channels):  # of a neuron that no layer drives
            threshold = threshold.mean()
        return NeuronStatistics(
            firing_rate=self.seen.spikes[neuron.name].compute_mean().cpu(),
            membrane_mean=moments.mean.cpu() + threshold,
            membrane_var=moments.compute_variance().cpu(),
            membrane_histogram=self.seen.histograms[neuron.name].counts.cpu(),
            threshold=threshold.expand(channels).clone(),
            membrane_mean_step=by_step.compute_mean().cpu() + threshold,
            membrane_var_step=by_step.compute_variance().cpu(),
            histogram_edges=self.edges,
        )

    def _layer(
        self, layer: Layer, neurons: dict[str, NeuronStatistics], gains: dict[str, float]
    ) -> LayerStatistics:
        refused = next(
            filter(None, (self._explain_refusal(layer, link, neurons) for link in layer.links)),
            None,
        )
        inputs = self.seen.inputs[layer.weight]
        return LayerStatistics(
            input_rate=inputs.compute_mean().cpu(),
            input_mean=inputs.compute_signed_mean().cpu(),
            input_square=inputs.compute_mean_square().cpu(),
            input_values=inputs.values,
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
            weight=self.seen.weights.get(layer.weight),
        )

    def _explain_refusal(
        self, layer: Layer, link: Link, neurons: dict[str, NeuronStatistics]
    ) -> str | None:
        """Why nothing can be said of a layer's effect on that neuron."""
        if link.obstacle:
            return f"{link.obstacle} stands between it and {link.neuron}"
        if link.neuron not in neurons:
            return f"{link.neuron}: {self.seen.refused.get(link.neuron, UNSEEN)}"
        if len(neurons[link.neuron].threshold) != layer.shape[0]:
            return f"{link.neuron}: {NO_AXIS}"
        return self.factors.explain_refusal(layer, link)


def _compute_time_gains(network: Network, steps: int) -> dict[str, float]:
    """(1 - beta^T) / (1 - beta) per neuron where decay differs between neurons, else nothing.

    A factor that all layers share changes no ranking and is left out.
    """
    constants = {name: neuron.constants for name, neuron in network.neurons.items()}
    decays = {(known.beta, known.decay_input) for known in constants.values()}
    if len(decays) < 2 or any(known.beta is None for known in constants.values()):
        return {}
    return {
        name: _compute_time_gain(known.beta, steps, decay_input=known.decay_input)
        for name, known in constants.items()
        if known.beta is not None
    }


def _compute_time_gain(beta: float, steps: int, *, decay_input: bool) -> float:
    """How much of a constant error of the input has gathered in the membrane after `steps`."""
    gathered = float(steps) if beta == 1 else (1 - beta**steps) / (1 - beta)
    return gathered * (1 - beta) if decay_input else gathered


def _format_refusals(refused: Mapping[str, str]) -> Iterable[str]:
    for name, reason in refused.items():
        yield f"{name}: {reason}; it is left out"


def _list_activity_warnings(neurons: Mapping[str, NeuronStatistics]) -> Iterable[str]:
    for name, statistics in neurons.items():
        if bool((statistics.firing_rate == 0).all()):
            yield f"{name} never spikes on the calibration data"
        elif bool((statistics.firing_rate == 1).all()):
            yield f"{name} spikes at every step on the calibration data"
