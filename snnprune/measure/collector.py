"""What a calibration pass is told while it goes on, and what of it is kept."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.distributed.ranks import Ranks
from snnprune.errors import NonFiniteError
from snnprune.graph.calls import LayerCall, NormCall
from snnprune.graph.network import Gain, Layer, Link, Network, Neuron, Norm
from snnprune.measure.alignment import ONE_CHANNEL, align_spikes, find_channel_axis
from snnprune.measure.sums import CalibrationSums, reshape_to_blocks

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
        for block in reshape_to_blocks(x, self.network.layers[weight].channel_axis):
            self.sums.inputs[weight].add(block)

    def on_layer(self, weight: str, call: LayerCall) -> None:
        if self.network.layers[weight].shaped and weight not in self.sums.weights:
            self.sums.weights[weight] = call.weight.detach().to("cpu", copy=True)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.sums.steps += len(distance)
        axis = self._channel_axis(neuron, distance.shape)
        if axis is not None:
            self._take_membrane(neuron, distance, axis)
        self.steps[neuron] += len(distance)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        fires = _detect_spikes(torch.cat(seen), self.network.neurons[neuron]) if seen else None
        spikes_then = None if fires is None else align_spikes(spikes, fires)
        if spikes_then is None:
            self.sums.refused[neuron] = UNEXPLAINED if seen else HIDDEN
            return
        axis = self._channel_axis(neuron, spikes_then.shape)
        for block in () if axis is None else _split_channels(spikes_then, axis):
            self.sums.spikes[neuron].add(block)

    def _take_membrane(self, neuron: str, distance: Tensor, axis: int) -> None:
        moments = self.sums.membranes[neuron]
        for step, u in enumerate(distance, start=self.steps[neuron]):
            for block in _split_channels(u, axis):
                moments.at(step).add(block)
        # once for all channels and steps: each look at the values waits for the device
        if not bool(moments.compute_variance().isfinite().all()):
            raise NonFiniteError("membrane potential is not finite", field=neuron)
        for block in _split_channels(distance, axis):
            self.sums.histograms[neuron].add(block)

    def _channel_axis(self, neuron: str, shape: torch.Size) -> int | None:
        """As `channel_axis`; a neuron of which nobody can say has no statistics."""
        axis = find_channel_axis(self.network, neuron, shape)
        if axis is None:
            self.sums.refused.setdefault(neuron, NO_AXIS)
        return axis


def _split_channels(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Blocks (A, C, S) of what has its channels at `axis`, counted from the end."""
    return (
        reshape_to_blocks(x.reshape(-1, 1), -1)
        if axis == ONE_CHANNEL
        else reshape_to_blocks(x, axis)
    )


def _detect_spikes(distance: Tensor, neuron: Neuron) -> Tensor:
    """Where u - u_th, (T, N, ...), is a spike."""
    return distance >= 0 if neuron.constants.fires_at_threshold else distance > 0
