"""A network read as a chain.

What it does between its weights and neurons is seen in a pass over a batch; what its neurons do is
fitted to their membranes. The chain is then held against that pass, stage by stage: from the
spikes before it each membrane has to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from snnprune.errors import InputError, format_names
from snnprune.export import ChainCheck
from snnprune.export.chain import (
    Chain,
    ChainError,
    ExtractedChain,
    Pool,
    Reset,
    Spiking,
    Stage,
    Weights,
    apply_stage,
)
from snnprune.export.chain_pass import (
    ChainPass,
    NeuronFired,
    fold_round,
    record_loud_pass,
    record_pass,
)
from snnprune.export.exporters import RecordedNetwork
from snnprune.graph.libraries import NeuronConstants
from snnprune.graph.network import Layer, Network

TIMES = 6  # a network that goes one step a call is called so often
NEAR = 1e-4  # of the largest membrane: what float32 may do to a sum of many
MOST_OTHERS = 0.01  # of the spikes, that may come otherwise when the chain runs by itself


@torch.no_grad()
def extract_chain(seen: RecordedNetwork) -> ExtractedChain:
    """The chain that does on the batch of `seen` what its network does.

    Raises:
        InputError: there is no data.
        ChainError: the network is none, or no chain of known parts comes to the same membranes.
    """
    if seen.blank:
        raise InputError("nothing to hold the chain against", field="--data", hint="give --data")
    network, x = seen.network, seen.fed
    _require_chain(network)
    first = record_pass(network, x)
    times = 1 if first.count_steps() > 1 else TIMES
    passes = (record_pass(network, x, times), record_loud_pass(network, x, times))
    walk = _Walk(network, passes)
    for plan in zip(*(fold_round(one.events) for one in passes), strict=True):
        walk.take(*plan)
    chain = Chain(stages=tuple(walk.stages), shapes=tuple(walk.shapes))
    return _check_alone(chain, walk)


def _check_alone(chain: Chain, walk: _Walk) -> ExtractedChain:
    """Run by itself: a spike that rounding decides otherwise may bring others about."""
    found = chain.run(walk.entered)
    alone = [found[i] for i, stage in enumerate(chain.stages) if isinstance(stage, Spiking)]
    pairs = list(zip(alone, walk.spikes, strict=True))
    others = sum(int((one - other).abs().sum()) for one, other in pairs)
    spikes = sum(int(one.sum()) for one in walk.spikes)
    if others > MOST_OTHERS * max(spikes, 1):
        raise ChainError(
            f"run by itself it puts out {others:,} spikes otherwise than the network's {spikes:,}"
        )
    steps, samples = walk.entered.shape[:2]
    check = ChainCheck(
        samples=samples,
        time_steps=steps,
        folded=sum(bool((layer.factor != 1).any()) for layer in chain.layers),
        deviation=walk.deviation,
        spikes=spikes,
        other_spikes=others,
    )
    return ExtractedChain(chain=chain, check=check, inputs=walk.entered, spikes=tuple(walk.spikes))


def _require_chain(network: Network) -> None:
    for key in network.made:
        raise ChainError("is made of other parameters as a whole", where=key)
    for layer in network.layers.values():
        _require_plain_link(layer)
    for name, neuron in network.neurons.items():
        if len(neuron.feeders) != 1 or neuron.identities:
            driven = format_names([*neuron.feeders, *neuron.identities])
            raise ChainError(f"is driven by several ({driven}), as in a residual block", where=name)
        if neuron.gated:
            raise ChainError("something else decides with it whether it spikes", where=name)


def _require_plain_link(layer: Layer) -> None:
    if layer.kind not in ("linear", "conv2d") or layer.unseen:
        raise ChainError(layer.unseen or f"is a {layer.kind}", where=layer.weight)
    if len(layer.links) > 1 or layer.side_by_side or len(layer.sources) > 1:
        raise ChainError("has several ways in or out", where=layer.weight)
    for link in layer.links:
        if len(link.norms) > 1:
            raise ChainError("each time step has a BatchNorm of its own", where=layer.weight)
        if link.obstacle or link.gains:
            between = link.obstacle or "a factor"
            raise ChainError(f"{between} stands before {link.neuron}", where=layer.weight)


class _Walk:
    """Two passes side by side, from stage to stage: as the network is, and with loud weights."""

    def __init__(self, network: Network, passes: Sequence[ChainPass]) -> None:
        self.network, self.passes = network, passes
        self.stages: list[Stage] = []
        self.spikes: list[Tensor] = []
        self.deviation = 0.0
        first = next(iter(network.neurons))
        self.steps, self.samples = torch.cat(passes[0].distances[first]).shape[:2]
        self.x = [
            self._align(one.entered, network.layers[next(iter(network.layers))]) for one in passes
        ]
        self.entered = self.x[0]
        self.shapes: list[tuple[int, ...]] = [tuple(self.entered.shape[2:])]

    def take(self, stage: Weights | Pool | NeuronFired, loud: Weights | Pool | NeuronFired) -> None:
        """Go on over the next stage, which both passes have."""
        if isinstance(stage, NeuronFired):
            self._take_neuron(stage.name)
        else:
            assert not isinstance(loud, NeuronFired)
            self.stages.append(stage)
            try:
                self.x = [apply_stage(one, x) for one, x in zip((stage, loud), self.x, strict=True)]
            except RuntimeError as error:
                raise ChainError(
                    "what enters it has another shape than what comes before it puts out",
                    where=stage.key if isinstance(stage, Weights) else "a pool",
                ) from error
            if isinstance(stage, Weights) and stage.key in self.passes[0].currents:
                self._require_output(stage)
        self.shapes.append(tuple(self.x[0].shape[2:]))

    def _take_neuron(self, name: str) -> None:
        membranes = []
        for one, x in zip(self.passes, self.x, strict=True):
            distance = torch.cat(one.distances.get(name, [torch.empty(0)])).float().cpu()
            if distance.shape[:2] != x.shape[:2] or distance.numel() != x.numel():
                raise ChainError(
                    f"takes in {tuple(x.shape)} and has membranes {tuple(distance.shape)} "
                    "(steps, samples, ...)",
                    where=name,
                )
            membranes.append(distance.reshape(x.shape))
        put_out = [torch.cat([part.flatten() for part in one.put_out[name]]) for one in self.passes]
        constants = self.network.neurons[name].constants
        spiking = fit_neuron(
            name, constants, torch.cat(self.x, 1), torch.cat(membranes, 1), put_out
        )
        fired = []
        for x, distance, given in zip(self.x, membranes, put_out, strict=True):
            u = distance.double() + spiking.threshold  # or rounding moves some over it
            left = spiking.follow(x.double(), u) - u
            apart = float(left.abs().max() / u.abs().max().clamp(min=1e-9))
            if not apart <= NEAR:
                raise _not_followed_error(name, apart)
            self.deviation = max(self.deviation, apart)
            fired.append(spiking.fire(u).float())
            if float(fired[-1].sum()) != float(given.double().sum()):
                raise ChainError("puts out something else than its spikes", where=name)
        self.stages.append(spiking)
        self.spikes.append(fired[0])
        self.x = fired

    def _require_output(self, stage: Weights) -> None:
        layer = self.network.layers[stage.key]
        wanted = self._align(self.passes[0].currents[stage.key], layer)
        apart = float((wanted - self.x[0]).abs().max() / wanted.abs().max().clamp(min=1e-9))
        if not apart <= NEAR:
            raise _not_followed_error(stage.key, apart)
        self.deviation = max(self.deviation, apart)

    def _align(self, parts: Sequence[Tensor], layer: Layer) -> Tensor:
        """(T, N, ...) of what entered or left a layer, call by call."""
        steps, samples, own = self.steps, self.samples, len(layer.shape) - 1
        rows = torch.cat([part.flatten(0, part.dim() - 1 - own) for part in parts]).float().cpu()
        if len(rows) == samples:  # the same at every step, so once
            return rows.unsqueeze(0).expand(steps, *rows.shape)
        if len(rows) != steps * samples:
            raise ChainError(
                f"takes {len(rows)} inputs for {samples} samples of {steps} steps",
                where=layer.weight,
            )
        libraries = [neuron.library for neuron in self.network.neurons.values()]
        written = parts[0].shape[:2] == (samples, steps) and steps != samples
        if len(parts) == 1 and (written or any(one.batch_first for one in libraries)):
            return rows.unflatten(0, (samples, steps)).transpose(0, 1)
        return rows.unflatten(0, (steps, samples))


def _not_followed_error(name: str, apart: float) -> ChainError:
    return ChainError(
        f"is off by {apart:.1g} of the largest from what comes before it: something is done there "
        "that is no layer, BatchNorm or pool, or it is another neuron than integrate-and-fire",
        where=name,
    )


def fit_neuron(
    name: str,
    constants: NeuronConstants,
    x: Tensor,
    distance: Tensor,
    put_out: Sequence[Tensor],
) -> Spiking:
    """The neurons that make u - u_th (T, N, ...) of currents `x` (T, N, ...), from rest.

    Raises:
        ChainError: they have no one threshold or decay, or never fire.
    """
    if len(x) < 2:
        raise ChainError("runs for one time step, which does not tell what it keeps", where=name)
    x, distance = x.double(), distance.double()
    gain, threshold = _fit_first_step(constants, x[0], distance[0])
    u = distance + threshold
    spiking = Spiking(
        name=name,
        beta=0.0,
        gain=gain,
        threshold=threshold,
        inclusive=constants.fires_at_threshold,
        reset="to",
        amount=0.0,
        several=max(float(one.max()) for one in put_out) > 1,
    )
    spikes = spiking.fire(u[:-1])
    if not bool(spikes.any()):
        raise ChainError("never fires, so that its reset cannot be seen", where=name)
    quiet, before = spikes == 0, u[:-1]
    left = u[1:] - gain * x[1:]
    power = float((before[quiet] ** 2).sum())
    beta = float((before[quiet] * left[quiet]).sum()) / power if power else 0.0
    spiking = replace(spiking, beta=_snap(beta, constants.beta, 0.0, 1.0))
    return _fit_reset(spiking, spikes[~quiet], before[~quiet], left[~quiet], u[1:][~quiet])


def _fit_first_step(constants: NeuronConstants, x: Tensor, distance: Tensor) -> tuple[float, float]:
    """Gain and threshold, counted from rest: u - u_th = gain x - threshold."""
    centred = x - x.mean()
    power = float((centred**2).sum())
    known = 1 - constants.beta if constants.decay_input and constants.beta is not None else 1.0
    gain = _snap(float((centred * distance).sum()) / power if power else known, known, 1.0)
    given = torch.as_tensor(constants.threshold).flatten()
    threshold = float((gain * x - distance).median())
    return gain, _snap(threshold, float(given[0]), 1.0)


def _snap(value: float, *known: float | None) -> float:
    """The first of `known` that it is but for rounding, or itself."""
    near = (
        one for one in known if one is not None and abs(one - value) <= 1e-5 * max(abs(one), 1e-2)
    )
    return next(near, value)


def _fit_reset(
    spiking: Spiking, spikes: Tensor, before: Tensor, left: Tensor, after: Tensor
) -> Spiking:
    """With the reset that describes best what is left after `spikes` (n,) of `before`."""
    beta, threshold = spiking.beta, spiking.threshold
    lost = (beta * before - left) / spikes
    choices: tuple[tuple[Reset, Tensor, Tensor], ...] = (
        ("to", left, torch.ones_like(spikes)),
        ("by", lost, spikes),
        ("skip", after, torch.ones_like(spikes)),
    )
    found = []
    for reset, values, times in choices:
        amount = _snap(float(values.median()), 0.0, threshold, beta * threshold)
        found.append((float(((values - amount) * times).abs().max()), reset, amount))
    _, reset, amount = min(found, key=lambda one: one[0])
    return replace(spiking, reset=reset, amount=amount)
