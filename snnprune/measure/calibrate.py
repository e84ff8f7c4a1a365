"""The calibration pass: what it is told while it goes on, and what of it is kept."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.calls import LayerCall, NormCall
from snnprune.graph.forward import Batch, Forward
from snnprune.graph.hooks import observe
from snnprune.graph.network import Gain, Layer, Link, Network, Neuron, Norm
from snnprune.graph.samples_and_steps import read_length
from snnprune.graph.state import use_eval_mode
from snnprune.measure.calibration import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.measure.channel_sums import (
    HISTOGRAM,
    CalibrationSums,
    ChannelHistogram,
    find_channel_axis,
)
from snnprune.measure.sweeps import add_inputs, add_membrane, add_spikes

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
                samples = network.count_samples(x, y)
                collector.sums.samples += samples
                collector.sums.batches += 1
                collector.sums.lengths.update(read_length(x, samples))
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
            warnings=(
                *_list_activity_warnings(neurons),
                *_format_refusals(self.seen.refused),
                *_note_lengths(self.seen.lengths, self.steps),
            ),
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


def _note_lengths(lengths: set[int], steps: int) -> Iterable[str]:
    if len(lengths) > 1:
        yield (
            f"batches have {min(lengths)} to {max(lengths)} time steps; T = {steps} is the mean of "
            "the batches, rounded down"
        )


def _format_refusals(refused: Mapping[str, str]) -> Iterable[str]:
    for name, reason in refused.items():
        yield f"{name}: {reason}; it is left out"


def _list_activity_warnings(neurons: Mapping[str, NeuronStatistics]) -> Iterable[str]:
    for name, statistics in neurons.items():
        if bool((statistics.firing_rate == 0).all()):
            yield f"{name} never spikes on the calibration data"
        elif bool((statistics.firing_rate == 1).all()):
            yield f"{name} spikes at every step on the calibration data"


TOLERANCE = 1e-3  # of a factor between two places, that is float32's rounding
UNEVEN = "it is scaled by what is not the same everywhere in a channel"
NOT_AFFINE = "what normalises it is not the same factor everywhere in a channel"


class NormFactors:
    """The factor of every normalisation that is met, per channel, float64.

    Those of `batch_norm` calls are read off the call. A normalisation that a module computes by
    hand, as many write their threshold-dependent BatchNorm, is probed: how much more comes out of
    the module where 1 more goes in.
    """

    def __init__(self, network: Network, factors: dict[str, Tensor]) -> None:
        """`factors` is where they go, by the key of their running variance."""
        self.module = network.module
        links = [link for layer in network.layers.values() for link in layer.links]
        norms = [norm for link in links for chain in link.norms for norm in chain]
        self.by_hand = {norm.variance for norm in norms if norm.eps is None}
        self.factors = factors
        self.inputs: dict[str, tuple[Any, ...]] = {}

    def on_norm(self, variance: str, call: NormCall) -> None:
        """Take the factor from a call."""
        if variance in self.factors or call.variance is None:
            return
        sigma = (call.variance.detach().double() + call.eps).sqrt()
        gamma = torch.ones_like(sigma) if call.scale is None else call.scale.detach().double()
        self.factors[variance] = (gamma.abs() / sigma).cpu()

    @contextlib.contextmanager
    def keep_inputs(self) -> Iterator[None]:
        """Keep the first input of each normalisation that is computed by hand, to probe with."""
        handles = [
            self.module.get_submodule(key.rpartition(".")[0]).register_forward_pre_hook(
                lambda _, args, key=key: self.inputs.setdefault(key, args) and None
            )
            for key in self.by_hand
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def probe(self) -> None:
        """Find the factors of what was kept, once nobody watches."""
        for key, args in self.inputs.items():
            gain = _measure_gain(self.module.get_submodule(key.rpartition(".")[0]), *args)
            factor = _find_channel_gain(gain, self.module.get_buffer(key).numel())
            if factor is not None:
                self.factors[key] = factor.cpu()
        self.inputs.clear()

    def of(self, layer: Layer, link: Link) -> Tensor:
        """The factor of a link, (C_out,) float64; the mean over chains where time steps differ."""
        chains = [self._multiply_factors(layer.shape[0], chain) for chain in link.norms]
        factor = torch.stack(chains).mean(0)
        for gain in link.gains:
            value = _shape_gain(gain, layer.shape[0])
            assert value is not None  # as `refused` has made sure
            factor = factor / value if gain.divides else factor * value
        return factor

    def explain_refusal(self, layer: Layer, link: Link) -> str | None:
        """Why a link has no factor."""
        unknown = [n for chain in link.norms for n in chain if n.variance not in self.factors]
        if unknown:
            return f"{unknown[0].variance}: {NOT_AFFINE}"
        odd = any(_shape_gain(gain, layer.shape[0]) is None for gain in link.gains)
        return f"on the way to {link.neuron}: {UNEVEN}" if odd else None

    def _multiply_factors(self, channels: int, chain: tuple[Norm, ...]) -> Tensor:
        product = torch.ones(channels, dtype=torch.float64)
        for norm in chain:
            product = product * self.factors[norm.variance]
        return product


def _shape_gain(gain: Gain, channels: int) -> Tensor | None:
    """The absolute value of a constant factor, () or (C,) float64; None if it is another shape."""
    value = torch.as_tensor(gain.value).detach().double().abs().cpu()
    lengths = [length for length in value.shape if length > 1]
    if lengths not in ([], [channels]):
        return None
    return value.reshape(lengths)


def _measure_gain(module: nn.Module, x: Any, *others: Any) -> Tensor:
    """How much more comes out of a normalisation where 1 more goes in; empty if nothing fits."""
    if others or not isinstance(x, Tensor):
        return torch.empty(0)
    here, elsewhere = (module(y + 1) - module(y) for y in (x, 2 * x))
    same = here.shape == x.shape and torch.allclose(here, elsewhere, rtol=TOLERANCE, atol=1e-5)
    return here.double().abs() if same else torch.empty(0)


def _find_channel_gain(gain: Tensor, channels: int) -> Tensor | None:
    """(C,), along the one dimension after the first in whose places it is the same everywhere."""
    places = [axis for axis in range(1, gain.dim()) if gain.shape[axis] == channels]
    even: list[Tensor] = []
    for axis in places:
        rows = gain.movedim(axis, 0).flatten(1)
        mean = rows.mean(1)
        if bool((rows - mean[:, None]).abs().max() <= TOLERANCE * mean.max()):
            even.append(mean)
    # where it is one number for all channels, every dimension says so
    alike = all(torch.allclose(one, even[0], rtol=TOLERANCE) for one in even)
    return even[0] if even and alike else None


UNEXPLAINED = "its spikes do not follow from the membrane that was seen"
HIDDEN = f"{UNEXPLAINED}: none was, as where a kernel makes them (choose a back end of plain torch)"
GATED = "something else decides with its membrane whether it spikes"
NO_AXIS = "its membrane has no axis that is surely that of its channels"


class Collector:
    """Takes what observers of a pass are told."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.sums = CalibrationSums()
        self.sums.refused = {n.name: GATED for n in network.neurons.values() if n.gated}
        self.factors = NormFactors(network, self.sums.factors)
        self.unchecked: dict[str, list[Tensor]] = defaultdict(list)
        self.first = next(iter(network.neurons), None)
        self.steps: dict[str, int] = {}  # that neurons have made of this batch

    def begin(self) -> None:
        """Another batch comes: time starts anew."""
        self.steps = dict.fromkeys(self.network.neurons, 0)

    def gather(self, ranks: Ranks) -> None:
        """Take in what all ranks have been told, in their order: then all know the same."""
        if ranks.size == 1:
            return
        self.sums, *others = ranks.gather(self.sums)
        for other in others:
            self.sums.merge(other)
        self.factors.factors = self.sums.factors

    def on_input(self, weight: str, x: Tensor) -> None:
        add_inputs(self.sums.inputs[weight], x, self.network.layers[weight].channel_axis)

    def on_layer(self, weight: str, call: LayerCall) -> None:
        if self.network.layers[weight].shaped and weight not in self.sums.weights:
            self.sums.weights[weight] = call.weight.detach().to("cpu", copy=True)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.sums.steps += len(distance)
        axis = self._channel_axis(neuron, distance.shape)
        with torch._C.DisableTorchFunction():  # nobody is to follow what is done here
            if axis is not None:
                self._take_membrane(neuron, distance, axis)
        self.steps[neuron] += len(distance)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        if not seen:
            self.sums.refused[neuron] = HIDDEN
            return
        axis = self._channel_axis(neuron, seen[0].shape)
        at_threshold = self.network.neurons[neuron].constants.fires_at_threshold
        with torch._C.DisableTorchFunction():
            found = self.sums.spikes[neuron]
            if not add_spikes(found, spikes, seen, axis, at_threshold=at_threshold):
                self.sums.refused[neuron] = UNEXPLAINED

    def _take_membrane(self, neuron: str, distance: Tensor, axis: int) -> None:
        moments, histogram = self.sums.membranes[neuron], self.sums.histograms[neuron]
        if not add_membrane(moments, histogram, distance, axis, first=self.steps[neuron]):
            raise NonFiniteError("membrane potential is not finite", field=neuron)

    def _channel_axis(self, neuron: str, shape: torch.Size) -> int | None:
        """As `channel_axis`; a neuron of which nobody can say has no statistics."""
        axis = find_channel_axis(self.network, neuron, shape)
        if axis is None:
            self.sums.refused.setdefault(neuron, NO_AXIS)
        return axis
