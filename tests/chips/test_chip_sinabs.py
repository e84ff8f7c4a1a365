"""Speck as snnprune describes it, held against sinabs' own constraints, formulas and matching."""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from without_samna import without_drivers

from snnprune.chips import load_chip
from snnprune.chips.check import check_design
from snnprune.chips.needs import change_channels
from snnprune.chips.placement import find_fitting, list_cores, measure_memory, place, plan_channels
from snnprune.chips.tracing import measure_needs
from snnprune.graph.trace import trace

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports
    import sinabs.layers as sl

SPECK = load_chip("speck")
Widths = tuple[int, ...]


@pytest.fixture(scope="module")
def sinabs() -> Iterator[Any]:
    """sinabs' backend for these chips, with its modules' names in one place."""
    with without_drivers("sinabs.backend"):
        from sinabs.backend import dynapcnn
        from sinabs.backend.dynapcnn import mapping
        from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder

        dynapcnn.mapping, dynapcnn.builder = mapping, DynapcnnConfigBuilder
        yield dynapcnn


def make_network(widths: Widths, *, bias: bool = False, classes: int = 10) -> nn.Sequential:
    """Convolutions with IAF neurons and average pooling, and a linear layer, of 2 x 32 x 32."""
    torch.manual_seed(1)
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((2, *widths)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), sl.IAFSqueeze(batch_size=1)]
        parts += [nn.AvgPool2d(2)]
    side = 32 // 2 ** len(widths)
    parts += [nn.Flatten(), nn.Linear(widths[-1] * side**2, classes, bias=bias)]
    return nn.Sequential(*parts, sl.IAFSqueeze(batch_size=1))


def trace_needs(module: nn.Module) -> tuple[Any, ...]:
    events = (torch.rand(2, 2, 32, 32, generator=torch.manual_seed(0)) < 0.2).float()
    return measure_needs(trace(module, events), events)


def test_speck_has_the_cores_of_sinabs(sinabs: Any) -> None:
    theirs = sinabs.builder.get_constraints()
    ours = [(core.weights, core.neurons, core.biases) for core in list_cores(SPECK)]
    assert ours == [(one.kernel_memory, one.neuron_memory, one.bias_memory) for one in theirs]


CASES = [((40, 33, 17), True), ((16, 24), False), ((8,), True), ((64, 64, 64, 64), False)]


@pytest.mark.many(1)
@pytest.mark.parametrize(("widths", "bias"), CASES)
def test_a_layer_takes_what_sinabs_says_and_goes_on_the_same_cores(
    widths: Widths, bias: bool, sinabs: Any
) -> None:
    module = make_network(widths, bias=bias)
    theirs = sinabs.DynapcnnNetwork(module, input_shape=(2, 32, 32), discretize=True)
    layers = theirs.dynapcnn_layers
    needs = trace_needs(make_network(widths, bias=bias))
    assert len(needs) == len(layers)
    constraints = sinabs.builder.get_constraints()
    for one, layer in zip(needs, layers.values(), strict=True):
        ours, summary = measure_memory(one, SPECK), layer.memory_summary()
        assert (ours.weights, ours.neurons) == (summary["kernel"], summary["neuron"])
        assert ours.biases == summary["bias"]
        assert [*find_fitting(one, SPECK)] == sinabs.mapping.find_chip_layers(layer, constraints)


def is_mapped(layers: Any, sinabs: Any) -> bool:
    """Whether sinabs finds a core for each layer."""
    try:
        sinabs.mapping.get_valid_mapping(layers, sinabs.builder.get_constraints())
    except ValueError:
        return False
    return True


WIDTHS = [
    (65,),
    (64, 64, 64, 64),
    (8, 8),
    (64, 80, 64, 64),
    (16, 128, 32),
    (32, 64, 64, 64),
    (33, 64, 64, 64),
    (16, 16, 300, 16),
]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.many(1)
def test_all_layers_have_a_core_where_sinabs_finds_one_for_each(
    widths: Widths, sinabs: Any
) -> None:
    theirs = sinabs.DynapcnnNetwork(make_network(widths), input_shape=(2, 32, 32), discretize=True)
    needs = trace_needs(make_network(widths))
    assert is_mapped(theirs.dynapcnn_layers, sinabs) == (not place(needs, SPECK).left)


def test_channels_that_a_plan_keeps_are_mapped_by_sinabs_and_were_not_before(sinabs: Any) -> None:
    widths = (65, 20)
    needs = trace_needs(make_network(widths))
    plan = plan_channels(needs, SPECK)
    assert plan is not None
    assert not place(change_channels(needs, plan), SPECK).left
    mapped = []
    for tried in (widths, tuple(plan.values())):
        module = make_network(tried)
        network = sinabs.DynapcnnNetwork(module, input_shape=(2, 32, 32), discretize=True)
        mapped.append(is_mapped(network.dynapcnn_layers, sinabs))
    assert mapped == [False, True]


def test_what_sinabs_has_no_edge_for_does_not_fit() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        sl.IAFSqueeze(batch_size=1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        sl.LIFSqueeze(tau_mem=4.0, batch_size=1),
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 5),
    )
    fit = check_design(trace_needs(module), SPECK, "speck")
    found = {(one.layer, one.rule) for one in fit.misfits if one.rule != "bits"}
    assert found == {("3.weight", "pooling"), ("3.weight", "neuron"), ("6.weight", "output")}
