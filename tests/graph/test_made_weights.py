"""Weights that are not parameters themselves, and wrappers around networks."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.models import ModelSpec, build_model


def built() -> Any:
    torch.manual_seed(0)
    args = {"width": 4, "depth": 2, "size": 8, "in_channels": 1, "time_steps": 2}
    return build_model(ModelSpec(name="conv-snn", args=args)).eval()


def images() -> Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Mask(nn.Module):
    """Half of a weight, kept by a buffer."""

    kept: Tensor

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("kept", (torch.arange(shape.numel()) % 2).view(shape).float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.kept


def test_a_weight_under_a_mask_is_the_parameter_behind_it() -> None:
    module = built()
    prune.random_unstructured(module.blocks[0].conv, "weight", amount=0.5)
    parametrize.register_parametrization(
        module.encoder.conv, "weight", Mask(module.encoder.conv.weight.shape)
    )
    network = trace(module, images())
    assert set(network.layers) == {
        "encoder.conv.parametrizations.weight.original",
        "blocks.0.conv.weight_orig",
        "classifier.weight",
    }
    assert not network.made
    masked = network.layers["blocks.0.conv.weight_orig"]
    assert [link.neuron for link in masked.links] == ["blocks.0.neuron"]
    found = calibrate(network, [(images(), None)])
    assert found.layers["blocks.0.conv.weight_orig"].input_rate.shape == (4,)


def old_weight_norm(conv: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(conv)


def old_spectral_norm(conv: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.spectral_norm(conv)


MADE: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "weight norm": (parametrizations.weight_norm, "conv.parametrizations.weight.original1"),
    "old weight norm": (old_weight_norm, "conv.weight_v"),
    "spectral norm": (parametrizations.spectral_norm, "conv.parametrizations.weight.original"),
    "old spectral norm": (old_spectral_norm, "conv.weight_orig"),
    "orthogonal": (parametrizations.orthogonal, "conv.parametrizations.weight.original"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_weight_that_is_made_as_a_whole_is_no_layer_and_told_by_name(name: str) -> None:
    wrap, key = MADE[name]
    module = built()
    wrap(module.blocks[0].conv)
    network = trace(module.eval(), images())
    assert set(network.layers) == {"encoder.conv.weight", "classifier.weight"}
    assert f"blocks.0.{key}" in network.made


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda module: torch.compile(module, backend="eager"),
    "both": lambda module: nn.DataParallel(torch.compile(module, backend="eager")),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_taken_off(name: str) -> None:
    network = trace(WRAPPERS[name](built()), images())
    assert list(network.layers) == list(trace(built(), images()).layers)
    assert list(network.module.state_dict()) == list(built().state_dict())


def test_a_part_that_is_compiled_runs_as_it_is_written() -> None:
    module = built()
    module.blocks[0] = torch.compile(module.blocks[0], backend="eager")
    network = trace(module, images())
    found = calibrate(network, [(images(), None)])
    assert set(found.neurons) == {"encoder.neuron", "blocks.0._orig_mod.neuron"}
