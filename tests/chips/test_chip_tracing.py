"""What a run tells of a network's needs: pools, joins, neurons, and integers on a grid."""

import itertools

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snnprune.chips.needs import LayerNeeds, Pool
from snnprune.chips.tracing import find_bits, find_channel_bits, measure_needs
from snnprune.graph.trace import trace


@pytest.mark.parametrize(("most", "bits"), [(1, 2), (3, 3), (7, 4), (127, 8), (128, 9), (255, 9)])
def test_the_fewest_bits_of_integers_are_found_from_the_weights(most: int, bits: int) -> None:
    integers = torch.tensor([[most, -1, 0, most - 1], [1, most, 0, -most]])
    assert find_bits(integers * 0.0173) == bits
    assert find_bits(integers.float() * torch.tensor(0.3)) == bits


def test_floats_are_on_no_grid_and_zeros_on_any() -> None:
    torch.manual_seed(0)
    assert find_bits(torch.randn(4, 30)) is None
    assert find_bits(torch.zeros(4, 3)) == 2


def test_a_grid_may_have_a_scale_for_each_row() -> None:
    integers = torch.tensor([[127, 5, -3], [127, 64, 9]])
    rows = integers * torch.tensor([[0.31], [0.073]])
    assert find_bits(rows) is None
    assert find_channel_bits(rows) == 8


class Block(nn.Module):
    """Two convolutions of which the second's current is added to that of a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.second = nn.Conv2d(4, 4, 3, padding="same", bias=False)
        self.shortcut = nn.Conv2d(4, 4, 1, bias=False)
        self.one, self.two = neuron.IFNode(v_threshold=0.2), neuron.LIFNode(tau=4.0, v_reset=None)
        self.norm = nn.LayerNorm(16)
        self.last = nn.Linear(16, 3)

    def forward(self, events: Tensor) -> Tensor:
        spikes = self.one(self.first(events))
        more = self.two(self.second(spikes) + self.shortcut(spikes))
        pooled = torch.nn.functional.max_pool2d(more, 2, stride=2)
        return self.last(self.norm(pooled.flatten(1)))


def trace_block() -> dict[str, LayerNeeds]:
    events = (torch.rand(2, 2, 8, 8, generator=torch.manual_seed(0)) < 0.3).float()
    return {one.layer: one for one in measure_needs(trace(Block(), events), events)}


def test_what_joins_pools_and_stands_between_is_told() -> None:
    found = trace_block()
    first, second, last = found["first.weight"], found["second.weight"], found["last.weight"]
    assert (first.input_size, first.size, first.stride) == ((8, 8), (4, 4), (2, 2))
    assert first.whole_inputs
    assert first.bias
    assert [one.kind for one in first.neurons] == ["if"]
    assert [one.reset for one in first.neurons] == ["zero"]
    assert second.padding == (1, 1)
    assert second.beside == ("shortcut.weight",)
    assert second.sources == ("first.weight",)
    (leaky,) = second.neurons
    assert (leaky.kind, leaky.decay, leaky.reset) == ("lif", 0.75, "subtract")
    assert last.pools == (Pool(kind="max", sides=(2, 2), strides=(2, 2)),)
    assert last.obstacles == ("a LayerNorm before it, which the chip has not",)
    assert last.neurons == ()
    assert (last.inputs, last.kernel) == (4, (2, 2))


def test_a_convolution_that_is_called_with_its_weight_alone_has_no_padding() -> None:
    class Bare(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.conv2d(x, self.weight)

    module = nn.Sequential(Bare(2, 4, 3, bias=False), neuron.IFNode(), nn.Conv2d(4, 3, 4))
    events = torch.ones(2, 2, 6, 6)
    first, _ = measure_needs(trace(module, events), events)
    assert (first.stride, first.padding, first.dilation) == ((1, 1), (0, 0), (1, 1))
    assert first.size == (4, 4)


def test_connections_are_counted_at_each_place_that_a_weight_is_used_at() -> None:
    first = trace_block()["first.weight"]
    places = itertools.product(range(4), repeat=2)  # outputs; a kernel of 3, stride 2, padding 1
    inside = sum(
        (0 <= 2 * y + a - 1 < 8) and (0 <= 2 * x + b - 1 < 8)
        for y, x in places
        for a, b in itertools.product(range(3), repeat=2)
    )
    assert first.connections == 2 * 4 * inside
    assert first.alive == 2 * 4 * 9
