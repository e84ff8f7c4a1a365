"""Links against lists read off the architectures by hand."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError
from snnprune.graph.links import is_input_scale
from snnprune.graph.network import Gain
from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics


def built(name: str, **args: object) -> nn.Module:
    return build_model(ModelSpec(name=name, args=args))


def test_a_plain_network_links_each_convolution_through_its_norm_to_its_neuron() -> None:
    network = trace(built("conv-snn", width=4, depth=3), torch.rand(2, 1, 28, 28))
    found = {
        key: (
            layer.kind,
            layer.encoding,
            [norm.scale for link in layer.links for norm in link.norms[0]],
            [link.neuron for link in layer.links],
        )
        for key, layer in network.layers.items()
    }
    assert found == {
        "encoder.conv.weight": ("conv2d", True, ["encoder.norm.weight"], ["encoder.neuron"]),
        "blocks.0.conv.weight": ("conv2d", False, ["blocks.0.norm.weight"], ["blocks.0.neuron"]),
        "blocks.1.conv.weight": ("conv2d", False, ["blocks.1.norm.weight"], ["blocks.1.neuron"]),
        "classifier.weight": ("linear", False, [], []),
    }


def test_both_branches_of_a_residual_block_drive_the_neuron_after_the_addition() -> None:
    network = trace(built("res-snn-19", time_steps=2), torch.rand(1, 3, 16, 16))
    changed = [3, 6]  # blocks that change the shape and so have a shortcut convolution
    for block in range(8):
        layer = network.layers[f"blocks.{block}.conv.weight"]
        neuron = network.neurons[f"blocks.{block}.neuron"]
        (link,) = layer.links
        assert link.neuron == neuron.name
        assert link.through == ("add",)
        assert [[n.variance for n in c] for c in link.norms] == [
            [f"blocks.{block}.norm.running_var"]
        ]
        if block in changed:
            shortcut = network.layers[f"blocks.{block}.shortcut.conv.weight"]
            (way,) = shortcut.links
            assert way.neuron == neuron.name
            assert [n.scale for n in way.norms[0]] == [f"blocks.{block}.shortcut.norm.weight"]
            assert set(neuron.feeders) == {layer.weight, shortcut.weight}
            assert neuron.identities == ()
        else:
            before = f"blocks.{block - 1}.neuron" if block else "encoder.neuron"
            assert neuron.feeders == (layer.weight,)
            assert neuron.identities == (before,)


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("res-snn-19", 32, 21),
        ("res-snn-19-light", 32, 22),
        ("snn-vgg-16", 32, 14),
        ("6conv2fc", 16, 8),
    ],
)
def test_every_weight_of_a_built_in_network_is_found_once(name: str, size: int, count: int) -> None:
    module = built(name, time_steps=1, size=size)
    network = trace(module, torch.rand(1, 3, size, size))
    weights = {key for key, value in module.state_dict().items() if value.dim() > 1}
    assert set(network.layers) == weights
    assert len(weights) == count
    assert [layer.weight for layer in network.layers.values() if layer.encoding] == [
        "encoder.conv.weight"
    ]


class Functional(nn.Module):
    """No layer modules: parameters in functional calls, pooling, in-place addition, views."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.matrix = nn.Parameter(torch.randn(5, 4 * 9))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.first, self.second = LIF(Dynamics()), LIF(Dynamics())

    mean: Tensor
    var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, weight=self.kernel, padding=1)
        y = functional.batch_norm(y, self.mean, self.var)
        y += 0.5
        spikes = self.first(y[None])[0]
        spikes = functional.adaptive_avg_pool2d(spikes, 3).reshape(len(x), -1)
        return self.second(functional.linear(spikes, self.matrix)[None])[0]


def test_functional_code_without_layer_modules_is_linked() -> None:
    network = trace(Functional(), torch.rand(2, 1, 6, 6))
    kernel, matrix = network.layers["kernel"], network.layers["matrix"]
    (link,) = kernel.links
    assert (link.neuron, kernel.encoding) == ("first", True)
    assert [(norm.scale, norm.variance) for norm in link.norms[0]] == [(None, "var")]
    assert len(link.through) == 1
    assert "add" in link.through[0]
    (other,) = matrix.links
    assert (other.neuron, matrix.encoding, other.norms) == ("second", False, ((),))


def test_a_network_without_spiking_neurons_is_refused_with_its_module_types() -> None:
    with pytest.raises(InputError, match=r"no spiking neuron.*ReLU"):
        trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.rand(2, 3))


class Shared(nn.Module):
    """One weight that drives two neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.first, self.second = LIF(Dynamics()), LIF(Dynamics())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.layer(self.first(self.layer(x[None]))))


def test_a_weight_that_drives_two_neurons_is_linked_to_both() -> None:
    network = trace(Shared(), torch.rand(2, 3))
    assert [link.neuron for link in network.layers["layer.weight"].links] == ["first", "second"]
    assert network.neurons["second"].feeders == ("layer.weight",)


def test_somebody_may_say_which_of_two_neurons_counts() -> None:
    network = trace(Shared(), torch.rand(2, 3), links={"layer": "second"})
    assert [link.neuron for link in network.layers["layer.weight"].links] == ["second"]
    assert (
        not trace(Shared(), torch.rand(2, 3), links={"layer": "none"}).layers["layer.weight"].links
    )


def test_a_choice_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        InputError, match=r"--link: layer drives no third. there are: first, second"
    ):
        trace(Shared(), torch.rand(2, 3), links={"layer": "third"})
    with pytest.raises(InputError, match=r"--link: no layer other. there are: layer.weight"):
        trace(Shared(), torch.rand(2, 3), links={"other": "first"})


class TwoUses(nn.Module):
    """One parameter as a matrix and as a kernel of one point."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.spikes = nn.Parameter(torch.rand(3, 3, 1)), LIF(Dynamics())

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv1d(x, self.matrix) + functional.conv1d(x, self.matrix, groups=1)
        z = functional.conv2d(x.unsqueeze(-1), self.matrix.unsqueeze(-1)).squeeze(-1)
        return self.spikes((y + z)[None])


def test_a_weight_that_is_used_in_two_ways_is_refused() -> None:
    with pytest.raises(InputError, match=r"matrix: is used in two ways: .*conv1d.*conv2d"):
        trace(TwoUses(), torch.rand(2, 3, 5))


def test_tracing_changes_neither_the_mode_nor_the_output_nor_leaves_hooks() -> None:
    module = built("conv-snn", width=4, depth=2).train()
    x = torch.rand(2, 1, 28, 28)
    module.eval()
    before = module(x)
    module.train()
    trace(module, x)
    assert module.training
    module.eval()
    assert torch.equal(module(x), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_network_can_be_traced_again_after_a_pass_of_real_data() -> None:
    module = built("conv-snn", width=4, depth=2)
    x = torch.rand(2, 1, 28, 28)
    first = trace(module, x)
    module(x)
    second = trace(module, x)
    assert first.layers == second.layers


@pytest.mark.slow
def test_tracing_does_not_import_torch_s_compiler() -> None:
    """Which would add a second to each command; torch does so for a plain dispatch mode."""
    script = """
import sys
import torch
from snnprune.models import ModelSpec, build_model
from snnprune.graph.trace import trace
trace(build_model(ModelSpec(name="conv-snn", args={"width": 2})), torch.rand(1, 1, 28, 28))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "False\n"


def test_a_quotient_by_tau_is_how_a_neuron_takes_its_input_as_a_product_is() -> None:
    scale = torch.tensor(0.25)  # 1 - beta
    assert is_input_scale(Gain(value=4.0, divides=True), scale)
    assert is_input_scale(Gain(value=0.25), scale)
    assert not is_input_scale(Gain(value=0.25, divides=True), scale)
    assert not is_input_scale(Gain(value=4.0), scale)


class OnTheWay(nn.Module):
    """Something between a convolution and the neuron that it drives."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 4, 3), LIF(Dynamics(threshold=0.2))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.change(self.conv(x)).expand(2, -1, -1, -1, -1)).flatten(2)


PASSING: dict[str, Callable[[Tensor], Tensor]] = {
    "max_pool2d": lambda y: functional.max_pool2d(y, 2),
    "max_pool2d_with_indices": lambda y: functional.max_pool2d(y, 2, return_indices=True)[0],
    "max_pool3d_with_indices": lambda y: functional.max_pool3d(y, 2, 2, 1, return_indices=True)[0],
    "avg_pool2d": lambda y: functional.avg_pool2d(y, 2),
    "adaptive_max_pool2d": lambda y: functional.adaptive_max_pool2d(y, 2),
    "adaptive_avg_pool2d": lambda y: functional.adaptive_avg_pool2d(y, 2),
    "lp_pool2d": lambda y: functional.lp_pool2d(y, 2, 2),
    "interpolate": lambda y: functional.interpolate(y, scale_factor=2.0),
    "pad": lambda y: functional.pad(y, (1, 1)),
    "dropout": lambda y: functional.dropout(y, 0.5, training=False),
    "dropout2d": lambda y: functional.dropout2d(y, 0.5, training=False),
    "clamp": lambda y: y.clamp(-1, 1),
    "clamp_min": lambda y: y.clamp_min(0),
    "clip": lambda y: y.clip(-1, 1),
    "hardtanh": functional.hardtanh,
    "relu": torch.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "threshold": lambda y: functional.threshold(y, 0.1, 0.0),
    "maximum": lambda y: torch.maximum(y, torch.zeros(())),
    "minimum": lambda y: torch.minimum(y, torch.ones(())),
    "amax": lambda y: y.amax(-1, keepdim=True),
    "masked_fill": lambda y: y.masked_fill(torch.eye(6).bool(), 0.0),
    "add": lambda y: y + 0.1,
    "sub": lambda y: y - 0.1,
    "rsub": lambda y: 0.1 - y,
    "lerp": lambda y: torch.lerp(y, torch.zeros(()), 0.5),
    "mean": lambda y: y.mean(-1, keepdim=True),
    "sum": lambda y: y.sum(-1, keepdim=True),
}
STOPPING: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "abs": torch.abs,
    "square": torch.square,
    "softmax": lambda y: y.softmax(1),
}


@pytest.mark.parametrize("name", [*PASSING, *STOPPING])
def test_an_operation_lets_small_changes_through_as_they_are_or_is_an_obstacle(name: str) -> None:
    module = OnTheWay((PASSING | STOPPING)[name]).eval()
    (link,) = trace(module, torch.rand(3, 2, 8, 8)).layers["conv.weight"].links
    assert (link.neuron, link.through) == ("lif", (name,))
    assert link.obstacle == (name if name in STOPPING else None)
