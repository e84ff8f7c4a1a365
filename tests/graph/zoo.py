"""What the tests of the neuron libraries share."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils._pytree import tree_leaves

from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.jobs.prune import methods
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.score import NetworkEvidence, Scores, score

Links = dict[str, tuple[list[str], list[str], list[str], bool]]
"""Layer: the neurons that it drives, the BatchNorms and operations on the way, if it encodes."""


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def lively(module: nn.Module) -> nn.Module:
    """BatchNorm that makes neurons fire in an untrained network, each channel in its own way."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 2.0)
            nn.init.uniform_(child.bias, 0.0, 1.0)
            assert child.running_var is not None
            child.running_var.uniform_(0.1, 0.5)
    return module.eval()


def links_of(network: Network) -> Links:
    """What was found, in the form in which a test writes it down."""
    return {
        key.removesuffix(".weight"): (
            [link.neuron for link in layer.links],
            [
                n.variance.removesuffix(".running_var")
                for link in layer.links
                for n in link.norms[0]
            ],
            [name.rstrip("_") for link in layer.links for name in link.through],
            layer.encoding,
        )
        for key, layer in network.layers.items()
    }


@torch.no_grad()
def outputs(network: Network, x: Tensor) -> list[Tensor]:
    """Every tensor that is put out for `x`, from rest."""
    with network.reset_between_batches() as reset:
        reset()
        found = tree_leaves(network.module(x))
        return [one.clone() for one in found if isinstance(one, Tensor)]


def output(network: Network, x: Tensor) -> Tensor:
    """The first of them."""
    return outputs(network, x)[0]


def seen(network: Network, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """u - u_th of every neuron, (T, N, ...), and its spikes as it puts them out."""
    membranes, spikes = dict[str, list[Tensor]](), dict[str, list[Tensor]]()

    def keep(kept: dict[str, list[Tensor]]) -> Callable[[str, Tensor], None]:
        return lambda name, tensor: kept.setdefault(name, []).append(tensor.clone())

    with observe(network, on_membrane=keep(membranes), on_spikes=keep(spikes)):
        output(network, x)
    joined = {name: torch.cat(found) for name, found in membranes.items()}
    return joined, {name: torch.cat(found) for name, found in spikes.items()}


def log_crisis(weight: Tensor, rate: Tensor, norm: nn.BatchNorm2d | None, u: Tensor) -> Tensor:
    """Log of Eq. 12 for a convolution, from distances `u` to the threshold, (T, N, C, H, W)."""
    u = u.double()
    mean, variance = u.mean((0, 1, 3, 4)), u.var((0, 1, 3, 4), correction=0)
    effect = Normal(mean, variance.sqrt()).log_prob(torch.zeros(())).exp()
    if norm is not None:
        assert norm.running_var is not None
        effect = effect * norm.weight.abs() / (norm.running_var.double() + norm.eps).sqrt()
    return (weight.double().abs() * rate[:, None, None] * effect[:, None, None, None]).log()


def calibrated(network: Network | nn.Module, x: Tensor) -> Calibration:
    """Statistics of one batch; a bare module is traced with it first."""
    known = network if isinstance(network, Network) else trace(network, x)
    return calibrate(known, [(x, None)])


def left_out(found: Calibration) -> list[str]:
    """The warnings about neurons whose spikes do not follow from what was seen."""
    return [warning for warning in found.warnings if "left out" in warning]


def scores_by(network: Network, found: Calibration) -> Scores:
    """Scores of every weight by the spiking-firing criterion."""
    weights = {key: network.weight(key) for key in network.layers}
    return score(
        weights, load_criterion("sf"), network=network, evidence=NetworkEvidence(calibration=found)
    )


def scored(network: Network, x: Tensor) -> Scores:
    """The same, calibrated on `x`."""
    return scores_by(network, calibrated(network, x))


class One(nn.Module):
    """One convolution, one neuron, three steps in a loop."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), spikes
        nn.init.constant_(self.bn.bias, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.spikes(self.bn(self.conv(x))).mean((2, 3)) for _ in range(3)])


OWN = """
from {module} import made


def build():
    return made({name!r})[0]


def batches():
    yield made({name!r})[1]
"""


def pruned_by_the_command(run: Callable[..., Any], module: str, name: str) -> dict[str, Tensor]:
    """What `prune` writes for the network `name` of a test's module, in the current folder."""
    Path("own.py").write_text(OWN.format(module=module, name=name))
    built = import_module(module).made(name)[0]
    torch.save(built.state_dict(), "own.pth")
    flags = ("--model", "own.py:build", "--data", "own.py:batches", "--sparsity", 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "STEPS", 14)  # a minute holds many of so small a network
        patch.setattr(methods, "LEAST", 9)
        done = run("prune", "own.pth", *flags, "-o", "pruned.safetensors")
    assert done.returncode == 0, done.stderr
    assert "criterion magnitude (the network and its data are at hand)" in done.stdout
    return load_file("pruned.safetensors")


def inner_state(module: nn.Module) -> dict[str, Any]:
    """Everything that a module holds: attributes, parameters, buffers and hooks."""
    return {
        f"{name}.{key}": tuple(value) if isinstance(value, dict) else value
        for name, child in module.named_modules()
        for key, value in vars(child).items()
    }
