"""Synaptic operations against NeuroBench's own numbers and against counting one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import snntorch
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel
from snntorch import surrogate
from spikingjelly.activation_based import functional as spikingjelly
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import Tensor, nn

from snnprune.graph.calls import LayerCall
from snnprune.graph.network import LayerKind
from snnprune.graph.trace import trace
from snnprune.measure import Energy
from snnprune.measure.evaluation import evaluate
from snnprune.measure.workload import (
    LayerWork,
    NeuronWork,
    Workload,
    count_operations,
    measure_footprint,
)
from snnprune.models import ModelSpec, build_model

T, N = 4, 5


def images(kind: str) -> Tensor:
    """(N, T, 1, 12, 12), events or grey."""
    drawn = torch.Generator().manual_seed(3)
    x = torch.rand(N, T, 1, 12, 12, generator=drawn)
    return (x < 0.3).float() if kind == "events" else x.masked_fill(x < 0.2, 0)


def pruned(module: nn.Module, sparsity: float = 0.7) -> nn.Module:
    drawn = torch.Generator().manual_seed(4)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            gone = torch.rand(layer.weight.shape, generator=drawn) < sparsity
            layer.weight.data[gone] = 0
            layer.weight.data *= 3
    return module.eval()


class Snn(nn.Module):
    """A step of a network of snnTorch, as its tutorials have it for NeuroBench."""

    def __init__(self) -> None:
        super().__init__()
        spike, beta = surrogate.fast_sigmoid(), 0.9
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, stride=2)
        self.lif1 = snntorch.Leaky(beta=beta, spike_grad=spike, init_hidden=True)
        self.conv2 = nn.Conv2d(6, 8, 3, groups=2, bias=False)
        self.lif2 = snntorch.Leaky(beta=beta, init_hidden=True, reset_mechanism="zero")
        self.fc = nn.Linear(8 * 16, 10)
        self.lif3 = snntorch.Leaky(beta=beta, init_hidden=True, output=True)

    def forward(self, x: Tensor) -> Any:
        spikes = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        return self.lif3(self.fc(spikes.flatten(1)))


class Jelly(nn.Module):
    """A step of a network of SpikingJelly, with a pooling that makes other values than spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 6, 3, padding="same"), neuron.LIFNode(tau=1.5)
        self.pool = nn.AvgPool2d(2)
        self.conv2, self.lif2 = nn.Conv2d(6, 8, 3, dilation=2), neuron.LIFNode(v_reset=None)
        self.fc = nn.Linear(8 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif2(self.conv2(self.pool(self.lif1(self.conv1(x)))))
        return self.fc(spikes.flatten(1))


def steps_of(module: nn.Module, x: Tensor) -> Tensor:
    """Outputs (T, N, 10) of (N, T, ...)."""
    made = [module(step) for step in x.transpose(0, 1)]
    return torch.stack([one[0] if isinstance(one, tuple) else one for one in made])


def counted(module: nn.Module, x: Tensor) -> Workload:
    """By snnprune, in two batches."""
    network = trace(module, x[:2], run=steps_of)
    found = Workload()
    y = torch.zeros(len(x), dtype=torch.long)
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    evaluate(network, batches, run=steps_of, workload=found)
    return found


@pytest.fixture
def by_neurobench() -> Callable[[nn.Module, Tensor], dict[str, Any]]:
    """What NeuroBench says, whose hooks see the same passes."""

    def measure(module: nn.Module, x: Tensor) -> dict[str, Any]:
        model = SNNTorchModel(module)
        model.add_activation_module(neuron.LIFNode)
        model.register_hooks()
        if isinstance(module, Snn):
            predictions = model(x)
        else:
            spikingjelly.reset_net(module)
            predictions = steps_of(module, x)
        data = (x, torch.zeros(len(x)))
        found = {
            **SynapticOperations()(model, predictions, data),
            "activation_sparsity": ActivationSparsity()(model, predictions, data),
            "membrane_updates": MembraneUpdates()(model, predictions, data),
            "connection_sparsity": ConnectionSparsity()(model),
            "footprint": Footprint()(model),
        }
        model.cleanup_hooks()
        return found

    return measure


@pytest.mark.parametrize("kind", ["events", "grey"])
@pytest.mark.parametrize("make", [Snn, Jelly])
def test_operations_are_those_of_neurobench(
    make: Callable[[], nn.Module],
    kind: str,
    by_neurobench: Callable[[nn.Module, Tensor], dict[str, Any]],
) -> None:
    torch.manual_seed(0)
    module, x = pruned(make()), images(kind)
    found, expected = counted(module, x), by_neurobench(module, x)
    total = found.sum_layers()
    assert total.dense / N == expected["Dense"]
    assert total.macs / N == expected["Effective_MACs"]
    assert total.acs / N == expected["Effective_ACs"]
    assert 0 < total.acs + total.macs < total.dense / 3
    assert (total.macs == 0) == (kind == "events" and make is Snn)
    if make is Snn:  # of other neurons NeuroBench takes the first sample's spikes, and no membranes
        active = found.sum_neurons()
        assert 1 - active.active / active.outputs == pytest.approx(
            expected["activation_sparsity"], rel=1e-12
        )
        assert 0 < active.updates / N == expected["membrane_updates"]


def by_spikingjelly(layer: nn.Module, spikes: Tensor) -> int:
    counter = SynOpCounter()
    with DispatchCounterMode([counter]):
        layer(spikes)
    return int(counter.get_total())


def test_spikingjelly_counts_the_same_but_for_weights_that_are_zero() -> None:
    """Its counter takes zero weights for work, so that pruning seems to save nothing."""
    torch.manual_seed(2)
    layer = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    spikes = (torch.rand(3, 4, 8, 8) < 0.2).float()
    call = LayerCall(
        kind="conv2d", input=spikes, weight=layer.weight, groups=1, geometry={"padding": 1}
    )
    ones = torch.ones_like(layer.weight)
    whole = count_operations(call, spikes != 0, ones)
    assert by_spikingjelly(layer, spikes) == whole
    with torch.no_grad():
        layer.weight[torch.rand(layer.weight.shape) < 0.9] = 0
    assert by_spikingjelly(layer, spikes) == whole
    assert count_operations(call, spikes != 0, layer.weight != 0) < whole / 5


def test_a_padded_grouped_convolution_is_counted_one_by_one() -> None:
    drawn = torch.Generator().manual_seed(5)
    x = torch.rand(2, 4, 5, 6, generator=drawn).round()
    weight = torch.rand(6, 2, 3, 2, generator=drawn).round()
    geometry = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    call = LayerCall(kind="conv2d", input=x, weight=weight, groups=2, geometry=geometry)
    found = count_operations(call, x != 0, weight != 0)
    assert found == sum(pairs(x, weight))


def pairs(x: Tensor, weight: Tensor) -> Iterator[int]:
    """Each multiplication whose factors are not 0, of the call above."""
    height, width = (5 + 2 - 3) // 2 + 1, 6 - 3 + 1
    for n in range(2):
        for out in range(6):
            for i in range(height):
                for j in range(width):
                    for c, a, b in ((c, a, b) for c in range(2) for a in range(3) for b in (0, 1)):
                        row, column = 2 * i + a - 1, j + 2 * b
                        if 0 <= row < 5:
                            value = x[n, 2 * (out // 3) + c, row, column]
                            yield int(bool(value) and bool(weight[out, c, a, b]))


def test_time_in_the_batch_and_a_layer_run_at_once_count_as_every_step() -> None:
    torch.manual_seed(1)
    args = {"width": 4, "depth": 3, "size": 12, "time_steps": T}
    module = pruned(build_model(ModelSpec(name="conv-snn", args=args)), 0.5)
    x = images("grey")[:, 0]
    network, found = trace(module, x[:2]), Workload()
    evaluate(network, [(x, torch.zeros(N, dtype=torch.long))], workload=found)
    first, *others = found.layers.values()
    assert first.acs == 0 < first.macs
    assert all(layer.macs == 0 < layer.acs for layer in others)
    # the first layer sees each image once; the classifier every step
    assert first.dense == N * operations_of_ones(1, 4, 12)
    weights = module.get_parameter("classifier.weight").numel()
    assert others[-1].dense == N * T * weights


def operations_of_ones(inputs: int, outputs: int, size: int) -> int:
    """Of a 3 x 3 convolution with padding 1: the border meets fewer inputs."""
    return inputs * outputs * (3 * size - 2) ** 2


def test_layers_of_one_shape_that_take_other_strides_have_other_operations() -> None:
    x, weight, work = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3), Workload()
    for stride in (1, 2, 1):
        geometry = {"stride": stride}
        call = LayerCall(kind="conv2d", input=x, weight=weight, groups=1, geometry=geometry)
        work.on_layer(f"stride {stride}", call)
    assert work.layers["stride 1"].dense == 2 * (2 * 6 * 6 * weight.numel())
    assert work.layers["stride 2"].dense == 2 * 3 * 3 * weight.numel()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("space", [0, 1, 2, 3])
def test_each_place_of_each_sample_takes_every_weight_whatever_stands_before_the_channels(
    space: int, groups: int
) -> None:
    kinds: tuple[LayerKind, ...] = ("linear", "conv1d", "conv2d", "conv3d")
    weight, work, samples = torch.ones(6, 4 // groups, *[3] * space), Workload(), 0
    for before in ((2,), (3,), (2, 5), ()):
        x = torch.ones(*before, 4, *[5] * space)
        call = LayerCall(kind=kinds[space], input=x, weight=weight, groups=groups)
        work.on_layer("layer", call)
        samples += torch.Size(before).numel()
        operations = samples * 3**space * weight.numel()
        assert work.layers["layer"] == LayerWork(dense=operations, acs=operations)


@pytest.mark.parametrize(
    ("values", "macs", "acs"),
    [((1, 0, -1), 0, 4), ((1, 0, 1), 0, 4), ((2, 0, -1), 4, 0), ((-2, 0, 0), 2, 0)],
)
def test_inputs_of_plus_and_minus_one_are_only_added_and_others_multiplied(
    values: tuple[int, ...], macs: int, acs: int
) -> None:
    layer = nn.Linear(3, 2, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.tensor([values], dtype=torch.float32)
    work = Workload()
    module = nn.Sequential(layer, snntorch.Leaky(beta=0.5, init_hidden=True))
    evaluate(trace(module, x), [(x, torch.tensor([0]))], workload=work)
    (found,) = work.layers.values()
    assert (found.macs, found.acs, found.dense) == (macs, acs, 6)


def test_membranes_count_at_first_and_where_they_differ_from_the_step_before() -> None:
    work = Workload()
    u = torch.tensor([[[0.0, 1.0]], [[0.0, 2.0]], [[1.0, 2.0]]])  # (T, N, C)
    counts = []
    for distance in (u, u[-1:], u[:1], torch.zeros(2, 2, 2)):
        work.on_membrane("neuron", distance)
        counts.append(work.neurons["neuron"].updates)
    # the first step, one at each of the next; as before; both; as many as there are in a new shape
    assert counts == [2 + 1 + 1, 4, 4 + 2, 6 + 4]
    work.begin()
    work.on_membrane("neuron", torch.zeros(1, 2, 2))
    assert work.neurons["neuron"].updates == 10 + 4
    assert work.neurons["neuron"].outputs == 0


def test_what_several_count_is_added_up_by_layer_and_neuron() -> None:
    one, other = Workload(), Workload()
    one.layers["a"] = LayerWork(dense=9, macs=1, acs=2)
    one.neurons["n"] = NeuronWork(outputs=7, active=3, updates=4)
    other.layers.update({"a": LayerWork(dense=20, macs=3), "b": LayerWork(dense=1, acs=1)})
    other.neurons.update({"n": NeuronWork(outputs=1), "m": NeuronWork(outputs=5, active=5)})
    one.add(other)
    assert one.layers == {
        "a": LayerWork(dense=29, macs=4, acs=2),
        "b": LayerWork(dense=1, acs=1),
    }
    assert one.sum_layers() == LayerWork(dense=30, macs=4, acs=3)
    assert one.sum_neurons() == NeuronWork(outputs=13, active=8, updates=4)
    one.clear()
    assert (one.sum_layers(), one.sum_neurons()) == (LayerWork(), NeuronWork())


def test_energy_is_that_of_the_operations() -> None:
    work = LayerWork(dense=100, macs=10, acs=1000)
    assert Energy().of(work) == pytest.approx(46 + 900)
    assert Energy(mac=2, ac=1).of(work) == 1020


def test_a_footprint_is_that_of_neurobench_zeros_and_all() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False).half())
    nn.init.zeros_(module[0].get_parameter("weight"))
    assert measure_footprint(module) == 4 * (6 + 2 + 4 * 2) + 8 + 2 * 4
    assert measure_footprint(module) == Footprint()(SNNTorchModel(module))
