"""Real networks of SpikingJelly and snnTorch: links, membranes, scores, and nothing left behind."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import (
    ms_resnet,
    parametric_lif_net,
    sew_resnet,
    spikformer,
    spiking_resnet,
    spiking_vgg,
)
from torch import Tensor, nn

from snnprune.calibration import calibrate
from snnprune.criteria import load_criterion
from snnprune.network import Network, trace, watching
from snnprune.network.capture import Observer
from snnprune.network.libraries import LIBRARIES, library_of
from snnprune.scoring import score

LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def lively(module: nn.Module) -> nn.Module:
    """BatchNorm that makes neurons fire in an untrained network."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 2.0)
            nn.init.uniform_(child.bias, 0.0, 1.0)
            assert child.running_var is not None
            child.running_var.fill_(0.1)
    return module.eval()


def multi_step(module: nn.Module) -> nn.Module:
    functional.set_step_mode(module, "m")
    return lively(module)


def resnet18() -> nn.Module:
    made = spiking_resnet.spiking_resnet18(
        pretrained=False, spiking_neuron=neuron.LIFNode, num_classes=10, **LIF
    )
    return multi_step(made)


def sew18() -> nn.Module:
    made = sew_resnet.sew_resnet18(
        pretrained=False, cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10, **LIF
    )
    return multi_step(made)


def vgg11() -> nn.Module:
    made = spiking_vgg.spiking_vgg11_bn(
        pretrained=False, spiking_neuron=neuron.LIFNode, num_classes=10, tau=1.5, **LIF
    )
    return multi_step(made)


def plif() -> nn.Module:
    made = parametric_lif_net.MNISTNet(
        channels=8, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0, **LIF
    )
    return multi_step(made)


def transformer() -> nn.Module:
    made = spikformer.Spikformer(
        T=2,
        img_size_h=32,
        img_size_w=32,
        num_classes=10,
        embed_dims=32,
        num_heads=4,
        mlp_ratio=2,
        depths=1,
        spiking_neuron=neuron.LIFNode,
        v_threshold=0.1,
        **LIF,
    )
    return lively(made)


def ms18() -> nn.Module:
    made = ms_resnet.ms_resnet18(T=2, num_classes=10, spiking_neuron=neuron.LIFNode, **LIF)
    return multi_step(made)


class StepByStep(nn.Module):
    """SpikingJelly in single-step mode, in a loop of the user's own; soft reset."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = layer.Conv2d(3, 4, 3, padding=1), layer.BatchNorm2d(4)
        self.spikes = neuron.LIFNode(v_reset=None, decay_input=False, **LIF)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.fc(self.spikes(self.bn(self.conv(x))).flatten(1)) for _ in range(3)]


class Tutorial(nn.Module):
    """snnTorch's tutorial style: state handed round, (spikes, membranes) over time put out."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif1 = snntorch.Leaky(beta=0.8, threshold=0.7, **options)
        self.fc = nn.Linear(4 * 64, 10)
        self.lif2 = snntorch.Synaptic(alpha=0.9, beta=0.8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1 = self.lif1.init_leaky()
        syn2, mem2 = self.lif2.init_synaptic()
        spikes, membranes = [], []
        for _ in range(3):
            spk1, mem1 = self.lif1(self.bn(self.conv(x)), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc(spk1.flatten(1)), syn2, mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Hidden(nn.Module):
    """snnTorch with hidden state: neurons that give spikes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif1 = snntorch.Leaky(beta=0.8, init_hidden=True, reset_delay=False)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = [self.fc(self.lif1(self.bn(self.conv(x))).flatten(1)) for _ in range(3)]
        return torch.stack(steps)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "spiking_resnet18": (resnet18, images(2, 2, 3, 32, 32)),
    "sew_resnet18": (sew18, images(2, 2, 3, 32, 32)),
    "spiking_vgg11_bn": (vgg11, images(2, 1, 3, 32, 32)),
    "PLIF net": (plif, images(3, 2, 1, 28, 28)),
    "spikformer": (transformer, images(2, 3, 32, 32)),
    "ms_resnet18": (ms18, images(2, 3, 32, 32)),
    "single step": (lambda: lively(StepByStep()), images(2, 3, 8, 8)),
    "snntorch tutorial": (lambda: lively(Tutorial()), images(2, 3, 8, 8)),
    "snntorch reset to zero": (
        lambda: lively(Tutorial(reset_mechanism="zero", graded_spikes_factor=2.0)),
        images(2, 3, 8, 8),
    ),
    "snntorch hidden": (lambda: lively(Hidden()), images(2, 3, 8, 8)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    build, x = NETWORKS[request.param]
    return trace(build(), x), x


@torch.no_grad()
def output(network: Network, x: Tensor) -> Tensor:
    network.reset()
    found = network.module(x)
    if isinstance(found, list):
        return torch.stack(found)
    return found[0] if isinstance(found, tuple) else found


def test_the_output_is_bit_identical_while_watched_and_after_and_nothing_is_left(
    case: tuple[Network, Tensor],
) -> None:
    network, x = case
    before, keys = output(network, x), list(network.module.state_dict())
    seen: list[str] = []
    with watching(network, on_membrane=lambda name, u: seen.append(name)):
        assert torch.equal(output(network, x), before)
    assert set(seen) == set(network.neurons)
    assert torch.equal(output(network, x), before)
    assert list(network.module.state_dict()) == keys
    for one in network.neurons.values():
        assert "fire" not in vars(one.module)
        assert not one.module._forward_hooks


def test_spikes_follow_from_the_membranes_that_are_seen(case: tuple[Network, Tensor]) -> None:
    network, x = case
    found = calibrate(network, [(x, None)])
    assert not [warning for warning in found.warnings if "do not follow" in warning]
    assert set(found.neurons) == set(network.neurons)
    rates = [float(one.firing_rate.mean()) for one in found.neurons.values()]
    assert max(rates) > 0.05  # or the check would compare nothing but silence


def test_every_layer_with_norm_between_spikes_is_scored_by_the_formula(
    case: tuple[Network, Tensor],
) -> None:
    network, x = case
    found = calibrate(network, [(x, None)])
    weights = {key: network.weight(key) for key in network.layers}
    scores = score(weights, load_criterion("sf"), network=network, calibration=found)
    for key, layer_ in network.layers.items():
        inside = not layer_.encoding and bool(layer_.links)
        assert (key not in scores.fallback) == (inside and (layer_.kind != "linear"))


LINKS = {
    "conv1.weight": ("sn1", ["bn1"], (), True),
    "layer1.0.conv1.weight": ("layer1.0.sn1", ["layer1.0.bn1"], (), False),
    "layer1.0.conv2.weight": ("layer1.0.sn2", ["layer1.0.bn2"], ("add_",), False),
    "layer2.0.conv2.weight": ("layer2.0.sn2", ["layer2.0.bn2"], ("add_",), False),
    "layer2.0.downsample.0.weight": ("layer2.0.sn2", ["layer2.0.downsample.1"], ("add_",), False),
    "layer4.1.conv2.weight": ("layer4.1.sn2", ["layer4.1.bn2"], ("add_",), False),
    "fc.weight": (None, [], (), False),
}


def test_links_of_a_spiking_resnet_are_those_read_off_its_code() -> None:
    network = trace(resnet18(), images(2, 1, 3, 32, 32))
    assert len(network.layers) == 21
    for key, (spikes, norms, through, encoding) in LINKS.items():
        found = network.layers[key]
        assert [link.neuron for link in found.links] == ([spikes] if spikes else [])
        for link in found.links:
            assert [n.variance.removesuffix(".running_var") for n in link.norms[0]] == norms
            assert [name.rstrip("_") for name in link.through] == [n.rstrip("_") for n in through]
        assert found.encoding is encoding
    assert set(network.neurons["layer2.0.sn2"].feeders) == {
        "layer2.0.conv2.weight",
        "layer2.0.downsample.0.weight",
    }
    assert network.neurons["layer1.0.sn2"].identities == ("sn1",)


def linked(network: Network) -> dict[str, list[str]]:
    """The neurons that each layer drives."""
    return {
        key.removesuffix(".weight"): [link.neuron for link in layer.links]
        for key, layer in network.layers.items()
    }


def test_links_of_a_spiking_transformer_are_those_read_off_its_code() -> None:
    network = trace(transformer(), images(2, 3, 32, 32))
    stem = {
        f"patch_embed.stages.{index}.conv_bn.block.0": [f"patch_embed.stages.{index}.neuron"]
        for index in range(4)
    }
    assert linked(network) == {
        **stem,
        "patch_embed.positional_encoding.conv_bn.block.0": [
            "patch_embed.positional_encoding.neuron"
        ],
        "blocks.0.attn.qkv_conv_bn.0": ["blocks.0.attn.qkv_lif"],
        "blocks.0.attn.proj_conv_bn.0": ["blocks.0.attn.proj_lif"],
        "blocks.0.mlp.fc1.0": ["blocks.0.mlp.neuron1"],
        "blocks.0.mlp.fc2.0": ["blocks.0.mlp.neuron2"],
        "head": [],
    }
    attention = network.neurons["blocks.0.attn.attn_lif"]  # driven by a product of spikes
    assert (attention.feeders, attention.identities) == ((), ("blocks.0.attn.qkv_lif",))


def test_a_residual_path_of_currents_links_a_layer_to_every_neuron_behind_it() -> None:
    found = linked(trace(ms18(), images(2, 3, 32, 32)))
    assert found["stem.0"] == ["layer1.0.spike1"]
    assert found["layer1.0.conv1"] == ["layer1.0.spike2"]
    assert found["layer1.0.conv2"] == ["layer1.1.spike1", "layer2.0.spike1"]
    assert found["layer1.0.downsample.0"] == ["layer1.1.spike1", "layer2.0.spike1"]
    assert found["layer1.1.conv2"] == ["layer2.0.spike1"]
    assert found["layer4.1.conv2"] == ["head_lif"]


def distances(network: Network, x: Tensor, name: str) -> Tensor:
    seen: list[Tensor] = []

    def keep(neuron_name: str, distance: Tensor) -> None:
        if neuron_name == name:
            seen.append(distance.clone())

    observer: Observer = keep
    with watching(network, on_membrane=observer):
        output(network, x)
    return torch.cat(seen)


@torch.no_grad()
def test_a_spikingjelly_membrane_equals_an_independent_simulation() -> None:
    network = trace(lively(StepByStep()), images(2, 3, 8, 8))
    module: Any = network.module
    current = module.bn(module.conv(images(2, 3, 8, 8))).double()
    v, expected = torch.zeros_like(current), []
    for _ in range(3):  # tau 2, plain input, soft reset at 1
        u = v / 2 + current
        v = u - (u >= 1).double()
        expected.append(u - 1)
    found = distances(network, images(2, 3, 8, 8), "spikes")
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_snntorch_membrane_equals_an_independent_simulation() -> None:
    network = trace(lively(Tutorial()), images(2, 3, 8, 8))
    module: Any = network.module
    current = module.bn(module.conv(images(2, 3, 8, 8))).double()
    u, expected = torch.zeros_like(current), []
    for _ in range(3):  # the reset by subtraction comes one step later
        fired = (u > 0.7).double()
        u = 0.8 * u + current - 0.7 * fired
        expected.append(u - 0.7)
    found = distances(network, images(2, 3, 8, 8), "lif1")
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=0, atol=1e-5)


def test_constants_are_read_off_the_neurons() -> None:
    lif, plif_ = neuron.LIFNode(tau=4.0), neuron.ParametricLIFNode(init_tau=2.0)
    found = [LIBRARIES[1].constants(one) for one in (lif, plif_, neuron.IFNode(v_threshold=0.5))]
    assert [one.beta for one in found] == [0.75, pytest.approx(0.5), 1.0]
    assert [one.threshold for one in found] == [1.0, 1.0, 0.5]
    assert [one.decay_input for one in found] == [True, True, False]
    leaky = LIBRARIES[2].constants(snntorch.Leaky(beta=0.8, threshold=0.7))
    assert (leaky.beta, float(leaky.threshold)) == pytest.approx((0.8, 0.7))
    per_neuron = LIBRARIES[2].constants(snntorch.Leaky(beta=torch.rand(3)))
    assert per_neuron.beta is None


def test_layers_that_are_no_neurons_are_not_taken_for_one() -> None:
    for module in (nn.Linear(1, 1), layer.Conv2d(1, 1, 1), surrogate.ATan()):
        assert library_of(module) is None


@contextmanager
def lying(module: Any, sink: Any) -> Iterator[None]:
    """A membrane that has nothing to do with the spikes."""
    handle = module.register_forward_hook(lambda _, __, out: sink(torch.full_like(out, -1.0)))
    yield
    handle.remove()


def test_a_neuron_whose_membrane_cannot_be_seen_is_left_to_magnitude_with_a_warning() -> None:
    network = trace(multi_step(plif()), images(3, 2, 1, 28, 28))
    name = "conv_fc.6"
    neurons = dict(network.neurons)
    honest = neurons[name]
    library = copy.copy(honest.library)
    object.__setattr__(library, "recording", lying)
    neurons[name] = copy.copy(honest)
    object.__setattr__(neurons[name], "library", library)
    network = Network(module=network.module, layers=network.layers, neurons=neurons)
    found = calibrate(network, [(images(3, 2, 1, 28, 28), None)])
    assert f"{name}: its spikes do not follow" in " ".join(found.warnings)
    weights = {key: network.weight(key) for key in network.layers}
    scores = score(weights, load_criterion("sf"), network=network, calibration=found)
    assert "do not follow" in scores.fallback["conv_fc.4.weight"]


def test_a_membrane_statistic_is_of_the_membrane_and_not_of_the_distance() -> None:
    network = trace(lively(Tutorial()), images(2, 3, 8, 8))
    found = calibrate(network, [(images(2, 3, 8, 8), None)]).neurons["lif1"]
    mean = distances(network, images(2, 3, 8, 8), "lif1").double().mean((0, 1, 3, 4)) + 0.7
    torch.testing.assert_close(found.membrane_mean, mean, rtol=1e-5, atol=1e-6)
    assert found.threshold.tolist() == pytest.approx([0.7] * 4)
    assert math.isfinite(float(found.membrane_var.sum()))


class One(nn.Module):
    """One convolution, one neuron, three steps in a loop or at once."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), spikes
        nn.init.constant_(self.bn.bias, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.spikes(self.bn(self.conv(x))).mean((2, 3)) for _ in range(3)])


EXPLAINED: dict[str, Callable[[], nn.Module]] = {
    **{
        name: getattr(neuron, name)
        for name in ("IFNode", "LIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode")
    },
    "Lapicque": lambda: snntorch.Lapicque(beta=0.9, threshold=0.1, init_hidden=True),
    "Alpha": lambda: snntorch.Alpha(alpha=0.9, beta=0.8, threshold=0.1, init_hidden=True),
    "RLeaky": lambda: snntorch.RLeaky(beta=0.9, all_to_all=False, init_hidden=True),
    "RSynaptic": lambda: snntorch.RSynaptic(
        alpha=0.9, beta=0.8, all_to_all=False, init_hidden=True
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    found = calibrate(trace(One(EXPLAINED[name]()).eval(), x), [(x, None)])
    assert "spikes" in found.neurons
    assert not [warning for warning in found.warnings if "left out" in warning]


class AtOnce(nn.Module):
    """The same for neurons that see all time steps at once."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), spikes
        nn.init.constant_(self.bn.bias, 1.5)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes(self.bn(self.conv(x.expand(3, *x.shape)))).mean((3, 4))


SEEN_BY_COMPARISON: dict[str, Callable[[], nn.Module]] = {
    "PSN": lambda: neuron.PSN(T=3, surrogate_function=surrogate.ATan()),
    "MaskedPSN": lambda: neuron.MaskedPSN(k=2, T=3, surrogate_function=surrogate.ATan()),
    "SlidingPSN": lambda: neuron.SlidingPSN(k=2, surrogate_function=surrogate.ATan()),
    "DSRIFNode": lambda: neuron.DSRIFNode(T=3),
    "GatedLIFNode": lambda: neuron.GatedLIFNode(T=3),
}


@pytest.mark.parametrize("name", SEEN_BY_COMPARISON)
def test_a_neuron_of_no_known_class_is_seen_where_it_compares(name: str) -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    module = AtOnce(SEEN_BY_COMPARISON[name]()).eval()
    with torch.no_grad():
        expected = module(x)
    functional.reset_net(module)
    network = trace(module, x)
    assert network.neurons["spikes"].library.name == "comparison"
    outputs: list[Tensor] = []
    found = calibrate(network, [(x, None)], run=lambda m, x: outputs.append(m(x)))
    assert torch.equal(outputs[0], expected)
    (drive,) = found.layers["conv.weight"].drives
    # an independent count of the same spikes
    torch.testing.assert_close(drive.neuron.firing_rate, rate_of(module, x))


def rate_of(module: Any, x: Tensor) -> Tensor:
    """Spikes per neuron and step by channel, counted in the output of the neuron's module."""
    seen: list[Tensor] = []
    handle = module.spikes.register_forward_hook(lambda _, __, out: seen.append(out != 0))
    with torch.no_grad():
        functional.reset_net(module)
        module(x)
    handle.remove()
    return seen[0].double().mean((0, 1, 3, 4))


def test_ternary_spikes_are_left_to_magnitude() -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    found = calibrate(trace(One(neuron.TernaryIFNode()).eval(), x), [(x, None)])
    assert not found.layers["conv.weight"].drives
    assert "do not follow" in (found.layers["conv.weight"].refused or "")
