"""Miniature networks that differ in how their neurons are written, and what must not differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.score import NetworkEvidence, score

DECAY, THRESHOLD, STEPS, SAMPLES, WIDTH = 0.5, 0.5, 4, 6, 7

Over = Callable[[Tensor], Tensor]
"""From currents (T, N, C) to spikes (T, N, C)."""
Spike = Callable[[Tensor], Tensor]
"""From membranes (N, C) to spikes."""


def frames(samples: int = SAMPLES, steps: int = STEPS) -> Tensor:
    """(N, T, 9)"""
    return torch.rand(samples, steps, 9, generator=torch.Generator().manual_seed(3))


def hard(u: Tensor) -> Tensor:
    return (u >= THRESHOLD).float()


def spiking(spike: Spike) -> Over:
    """A neuron that loops over time inside; its membrane is set to zero by a spike."""

    def over(x: Tensor) -> Tensor:
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = DECAY * u + current
            s = spike(u)
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)

    return over


plain = spiking(hard)


class Neuron(nn.Module):
    """A module around a function."""

    def __init__(self, over: Over) -> None:
        super().__init__()
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        return self.over(x)


class Residual(nn.Module):
    """Two layers with norms; spikes of the first neuron also reach the second past its layer."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1, self.lif1 = nn.Linear(9, WIDTH), nn.BatchNorm1d(WIDTH), make()
        self.second, self.norm2, self.lif2 = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), make()
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        s = self.lif1(_each(self.norm1, self.first(x)))
        s = self.lif2(_each(self.norm2, self.second(s)) + s)
        return self.out(s).sum(0)


def _each(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def lively(build: Callable[[], nn.Module]) -> nn.Module:
    """The network with the same parameters in the same places, such that it spikes."""
    torch.manual_seed(0)
    module = build()
    torch.manual_seed(1)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d):
            nn.init.uniform_(child.weight, 0.5, 2.0)
            nn.init.uniform_(child.bias, 0.0, 0.6)
            assert child.running_var is not None
            child.running_var.uniform_(0.1, 0.5)
        elif isinstance(child, nn.Linear):
            nn.init.uniform_(child.weight, -0.5, 0.7)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
    return module.eval()


def residual(over: Over) -> nn.Module:
    return lively(lambda: Residual(lambda: Neuron(over)))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a network."""

    network: Network
    calibration: Calibration
    links: dict[str, Any]
    neurons: dict[str, Any]
    statistics: dict[str, Tensor]
    """Of each neuron mu, var and rate, and of each layer its scores by `sf`."""

    @property
    def gated(self) -> list[str]:
        """Neurons that something else holds back."""
        return [name for name, neuron in self.network.neurons.items() if neuron.gated]

    def sources(self, layer: str) -> set[str]:
        """Neurons whose spikes enter a layer."""
        return set(self.network.layers[f"{layer}.weight"].sources)

    def drives(self, layer: str) -> list[str]:
        """Neurons that a layer drives."""
        return [link.neuron for link in self.network.layers[f"{layer}.weight"].links]


def facts(module: nn.Module, x: Tensor | None = None, *, run: Any = None) -> Facts:
    """Everything that a network is asked."""
    x = frames() if x is None else x
    run = run or (lambda module, x: module(x))
    network = trace(module, x, run=run)
    found = calibrate(network, [(x, None)], run=run)
    weights = {key: network.weight(key) for key in network.layers}
    values = score(
        weights, load_criterion("sf"), network=network, evidence=NetworkEvidence(calibration=found)
    )
    statistics = {
        f"{name} {field}": getattr(one, field)
        for name, one in found.neurons.items()
        for field in ("membrane_mean", "membrane_var", "firing_rate")
    }
    scores = {key: values.values[key] for key in weights if key not in values.fallback}
    return Facts(
        network=network,
        calibration=found,
        links={key: _links(layer) for key, layer in network.layers.items()},
        neurons={
            name: (one.feeders, one.identities, one.gated, one.constants)
            for name, one in network.neurons.items()
        },
        statistics=statistics | scores,
    )


def _links(layer: Any) -> Any:
    ways = [
        (link.neuron, link.norms, [torch.as_tensor(g.value).tolist() for g in link.gains])
        for link in layer.links
    ]
    return ways, layer.sources, layer.encoding, [link.obstacle for link in layer.links]


def same(found: Facts, expected: Facts) -> None:
    """Both know the same, whatever the neurons are written like."""
    assert found.links == expected.links
    assert found.neurons == expected.neurons
    assert found.network.outputs == expected.network.outputs
    assert found.calibration.time_steps == expected.calibration.time_steps
    assert found.calibration.warnings == expected.calibration.warnings
    assert found.statistics.keys() == expected.statistics.keys()
    for key, value in expected.statistics.items():
        torch.testing.assert_close(found.statistics[key], value, rtol=1e-5, atol=1e-5, msg=key)


Step = Callable[[Tensor, Any], tuple[Tensor, Tensor, Any]]
"""From a current and a state, None at first, to u - u_th, spikes and the next state; float64."""


def leaky(current: Tensor, u: Any) -> tuple[Tensor, Tensor, Any]:
    """The neuron of `plain`, written by its equation."""
    u = current if u is None else DECAY * u + current
    spikes = (u >= THRESHOLD).double()
    return u - THRESHOLD, spikes, u * (1 - spikes)


@torch.no_grad()
def simulated(module: Any, step: Step) -> dict[str, Tensor]:
    """Statistics of a `Residual` network by itself: float64, from its parameters alone."""
    found: dict[str, Tensor] = {}
    x, before = frames().double().transpose(0, 1), torch.zeros(())
    parts = [(module.first, module.norm1, "lif1"), (module.second, module.norm2, "lif2")]
    for layer, norm, name in parts:
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        y = x @ layer.weight.double().T + layer.bias.double() - norm.running_mean.double()
        current = y * scale + norm.bias.double() + before
        rate, state, distances, spikes = x.mean((0, 1)), None, [], []
        for now in current:
            distance, spike, state = step(now, state)
            distances.append(distance)
            spikes.append(spike)
        u, x = torch.stack(distances), torch.stack(spikes)
        mean, var = u.mean((0, 1)), u.var((0, 1), correction=0)
        found |= {f"{name} membrane_mean": mean, f"{name} membrane_var": var}
        found[f"{name} firing_rate"] = x.mean((0, 1))
        density = torch.exp(-(mean**2) / (2 * var)) / (2 * torch.pi * var).sqrt()
        chance = layer.weight.double().abs() * rate * (scale * density)[:, None]
        found[f"{'first' if name == 'lif1' else 'second'}.weight"] = chance.log()
        before = x
    return found


def agrees(found: Facts, module: nn.Module, step: Step) -> None:
    """What is known of a `Residual` network is what a simulation says."""
    expected = simulated(module, step)
    assert found.calibration.time_steps == STEPS
    assert set(expected) - set(found.statistics) == {"first.weight"}  # it encodes
    for key, value in found.statistics.items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-5, msg=key)
