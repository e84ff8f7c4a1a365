"""A sub-network of a random network that puts out what a given network does, spike for spike.

Yao et al. 2023, arXiv 2305.12148, section 4 and appendix C. Both V and W~ are masked: each virtual
neuron keeps the one input of its block, each weight of the target the one virtual neuron whose
outgoing weight is nearest. The neuron is that of Eq. 2 to 4, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import UsageError
from snnprune.measure import Natural, Share
from snnprune.runtime import make_generator


@dataclass(frozen=True, kw_only=True)
class NeuronDynamics:
    """A leaky integrate-and-fire neuron: u = h + x, s = [u >= u_th], h = V_reset or beta u."""

    threshold: float = 0.5
    """u_th"""
    beta: Share = 0.5
    """Decay, in [0, 1)."""
    reset: float | None = 0.0
    """V_reset, h = V_reset after a spike; None for soft reset, h = beta (u - u_th)."""

    def run(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and u before reset, each as the currents (T, ...); at rest at first."""
        h = torch.zeros_like(currents[0])
        spikes, membranes = torch.empty_like(currents), torch.empty_like(currents)
        for step, x in enumerate(currents):
            u = h + x
            s = (u >= self.threshold).to(u.dtype)
            h = self._after(u, s)
            spikes[step], membranes[step] = s, u
        return spikes, membranes

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        if self.reset is None:
            return self.beta * (u - self.threshold * s)
        return self.reset * s + self.beta * u * (1 - s)


def require_memoryless(dynamics: NeuronDynamics, span: float) -> None:
    """Refuse dynamics under which a virtual neuron may do otherwise than its input.

    With v in [u_th, span]: after a hard reset h = V_reset must be in [0, u_th), as h + v >= u_th
    and h < u_th are needed. After a soft reset h never exceeds beta (span - u_th) / (1 - beta),
    which is below u_th as long as u_th > beta span.

    Raises:
        UsageError: they are such.
    """
    threshold, reset = dynamics.threshold, dynamics.reset
    if reset is not None and not 0 <= reset < threshold:
        raise UsageError(
            f"after a reset to {reset:g} a virtual neuron "
            + ("fires again without input" if reset >= threshold else "may miss its next input"),
            field="--reset",
            hint=f"choose one in [0, {threshold:g})",
        )
    if reset is None and threshold <= dynamics.beta * span:
        raise UsageError(
            f"what a soft reset leaves, up to {dynamics.beta * (span - threshold):g} and more with "
            f"every spike, can reach the threshold {threshold:g} without input",
            field="--threshold",
            hint=f"choose one above beta times the span, {dynamics.beta * span:g}",
        )


CHUNK = 2**16  # virtual neurons at a time
MOST_WEIGHTS = 2**21  # outgoing weights at a time


@dataclass(frozen=True, kw_only=True)
class ChosenNeurons:
    """Of one layer: the virtual neuron kept for each weight (N, N), output by input."""

    place: Tensor
    """Its index within the block of the input, int64; -1 where none of the block fires."""
    incoming: Tensor
    """v, float64."""
    outgoing: Tensor
    """w~, float64; 0 where there is none."""

    def errors(self, target: Tensor) -> Tensor:
        """|w~ - w^|, (N, N); infinite where there is none."""
        return torch.where(self.place >= 0, (self.outgoing - target).abs(), torch.inf)


def choose_neurons(
    target: Tensor, block: int, threshold: float, *, span: float, key: tuple[object, ...]
) -> ChosenNeurons:
    """The masks of one layer: for each weight the nearest of the virtual neurons that fire.

    `target` is (N, N), output by input; `block` virtual neurons belong to each input. All weights
    are from U[-span, span], by generators that `key` seeds, a chunk at a time: memory does not grow
    with `block`. Outgoing weights are drawn where the virtual neuron fires; those of the others are
    never looked at.
    """
    columns = [
        _choose_in_block(target[:, i], block, threshold, span=span, key=(*key, i))
        for i in range(target.shape[1])
    ]
    place, incoming, outgoing = (torch.stack(each, 1) for each in zip(*columns, strict=True))
    return ChosenNeurons(place=place, incoming=incoming, outgoing=outgoing)


def _choose_in_block(
    wanted: Tensor, block: int, threshold: float, *, span: float, key: tuple[object, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """For the weights (N,) from one input: place, v and w~ of the nearest in its block."""
    outputs = len(wanted)
    place = torch.full((outputs,), -1)
    incoming, outgoing = torch.zeros(2, outputs, dtype=torch.float64)
    nearest = torch.full((outputs,), torch.inf, dtype=torch.float64)
    size = min(CHUNK, max(1, MOST_WEIGHTS // outputs))
    for number, start in enumerate(range(0, block, size)):
        draws = make_generator(*key, number)
        v = _draw_uniform(draws, (min(size, block - start),), span)
        fires = (v >= threshold).nonzero().squeeze(1)
        if not len(fires):
            continue
        w = _draw_uniform(draws, (len(fires), outputs), span)
        error, best = (w - wanted).abs().min(0)
        closer = error < nearest
        nearest = torch.where(closer, error, nearest)
        place = torch.where(closer, start + fires[best], place)
        incoming = torch.where(closer, v[fires[best]], incoming)
        outgoing = torch.where(closer, w.gather(0, best.unsqueeze(0)).squeeze(0), outgoing)
    return place, incoming, outgoing


def _draw_uniform(draws: torch.Generator, shape: tuple[int, ...], span: float) -> Tensor:
    return (2 * torch.rand(*shape, generator=draws, dtype=torch.float64) - 1) * span


MOST_MEMBRANES = 2**22  # membranes of virtual neurons at a time


@dataclass(frozen=True, kw_only=True)
class SmallNetwork:
    """A small network: L layers of N neurons."""

    weights: Tensor
    """(L, N, N), output by input, float64, each in [-1/sqrt(N), 1/sqrt(N)]."""
    dynamics: NeuronDynamics

    def run(self, spikes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Spikes and membranes of each layer, (T, samples, N), on input spikes of that shape."""
        made, membranes = [], []
        for weight in self.weights:
            spikes, u = self.dynamics.run(spikes @ weight.T)
            made.append(spikes)
            membranes.append(u)
        return made, membranes


def draw_target(
    neurons: int, layers: int, dynamics: NeuronDynamics, key: Sequence[object]
) -> SmallNetwork:
    """Weights from U[-1/sqrt(N), 1/sqrt(N)]."""
    draws = make_generator(*key, "target")
    unit = torch.rand(layers, neurons, neurons, generator=draws, dtype=torch.float64)
    return SmallNetwork(weights=(2 * unit - 1) / neurons**0.5, dynamics=dynamics)


def draw_spikes(
    steps: int, samples: int, neurons: int, rate: float, key: Sequence[object]
) -> Tensor:
    """Independent spikes of that rate, (T, samples, N) float64."""
    draws = make_generator(*key, "spikes")
    unit = torch.rand(steps, samples, neurons, generator=draws, dtype=torch.float64)
    return (unit < rate).double()


def enumerate_spikes(steps: int, neurons: int) -> Tensor:
    """Every input there is, (T, 2^(T N), N) float64."""
    codes = torch.arange(2 ** (steps * neurons)).unsqueeze(1)
    bits = (codes >> torch.arange(steps * neurons)) & 1
    return bits.double().view(-1, steps, neurons).transpose(0, 1).contiguous()


@dataclass(frozen=True, kw_only=True)
class EquivalentNetwork:
    """The equivalent network, and how near its weights came."""

    layers: tuple[ChosenNeurons, ...]
    worst: float
    """The largest |w~ - w^|; infinite where a block has no virtual neuron that fires."""
    kept: int
    """Virtual neurons that are kept, over all layers."""


def build_equivalent(
    target: SmallNetwork, block: int, *, span: float, key: Sequence[object]
) -> EquivalentNetwork:
    """Draw the big network with `block` virtual neurons for each input, and find its masks."""
    threshold = target.dynamics.threshold
    layers = tuple(
        choose_neurons(weight, block, threshold, span=span, key=(*key, layer))
        for layer, weight in enumerate(target.weights)
    )
    errors = [chosen.errors(w) for chosen, w in zip(layers, target.weights, strict=True)]
    places = [chosen.place + torch.arange(len(chosen.place)) * block for chosen in layers]
    return EquivalentNetwork(
        layers=layers,
        worst=float(torch.stack(errors).max()),
        kept=sum(len(p[c.place >= 0].unique()) for p, c in zip(places, layers, strict=True)),
    )


def run_equivalent(
    built: EquivalentNetwork, dynamics: NeuronDynamics, spikes: Tensor
) -> list[Tensor]:
    """Spikes of each layer of the equivalent network, virtual neurons simulated as neurons too."""
    made = []
    for chosen in built.layers:
        # (T, samples, N outputs, N inputs): of each weight the virtual neuron that it keeps
        virtual, _ = dynamics.run(spikes.unsqueeze(2) * chosen.incoming)
        spikes, _ = dynamics.run((virtual * chosen.outgoing).sum(3))
        made.append(spikes)
    return made


@dataclass(frozen=True, kw_only=True)
class NetworkComparison:
    """Two networks on the same data."""

    places: Natural
    """Neurons times samples times steps, over all layers."""
    flipped: Natural
    """Of them, those with another spike."""
    samples: Natural
    struck: Natural
    """Of them, those in which any spike is another."""
    struck_one: bool
    """Whether the one sample is that somebody asked about."""
    margin: float
    """min |u - u_th| of the target over data, time and neurons."""

    @property
    def same(self) -> bool:
        """Whether every spike is."""
        return self.flipped == 0


def compare_networks(
    target: SmallNetwork, built: EquivalentNetwork, spikes: Tensor, one: int = 0
) -> NetworkComparison:
    """Run both, some of the samples at a time; `one` is a sample to tell apart."""
    steps, samples, neurons = spikes.shape
    others, margin = [], math.inf
    for part in spikes.split(max(1, MOST_MEMBRANES // (steps * neurons**2)), dim=1):
        wanted, membranes = target.run(part)
        made = run_equivalent(built, target.dynamics, part)
        distance = torch.stack(membranes) - target.dynamics.threshold
        others.append((torch.stack(wanted) != torch.stack(made)).sum((0, 1, 3)))
        margin = min(margin, float(distance.abs().min()))
    flips = torch.cat(others)
    return NetworkComparison(
        places=len(target.weights) * spikes.numel(),
        flipped=int(flips.sum()),
        samples=samples,
        struck=int((flips > 0).sum()),
        struck_one=bool(flips[one] > 0),
        margin=margin,
    )
