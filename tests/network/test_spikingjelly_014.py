"""SpikingJelly 0.0.0.0.14: an environment of its own, as it cannot be there together with 2.x.

pip install --no-deps --target DIR spikingjelly==0.0.0.0.14
PYTHONPATH=DIR pytest tests/network/test_spikingjelly_014.py
"""

import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import (
    Links,
    images,
    inner_state,
    links_of,
    lively,
    log_crisis,
    output,
    pruned_by_the_command,
    scored,
    seen,
)

from snnprune.calibration import calibrate
from snnprune.network import Network, trace, watching
from snnprune.network.libraries import library_of

with warnings.catch_warnings():
    # torch.jit.script and escapes in docstrings, which the old package still uses
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from spikingjelly.activation_based.model import (
        parametric_lif_net,
        sew_resnet,
        spiking_resnet,
        spiking_vgg,
    )

# 2.x, told by its package: the metadata of another installation may lie on the path too
if hasattr(neuron, "__path__"):
    pytest.skip(
        "needs an environment with spikingjelly==0.0.0.0.14 (see the top of the file)",
        allow_module_level=True,
    )

STEPS = 3
LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


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


class StepByStep(nn.Module):
    """Single-step mode in a loop of the user's own; soft reset."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = layer.Conv2d(3, 4, 3, padding=1), layer.BatchNorm2d(4)
        self.spikes1 = neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False, **LIF)
        self.conv2, self.bn2 = layer.Conv2d(4, 5, 3, padding=1), layer.BatchNorm2d(5)
        self.spikes2 = neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False, **LIF)
        self.fc = nn.Linear(5 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(STEPS):
            z = self.spikes1(self.bn1(self.conv1(x)))
            z = self.spikes2(self.bn2(self.conv2(z)))
            steps.append(self.fc(z.flatten(1)))
        return torch.stack(steps)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "spiking_resnet18": (resnet18, images(2, 2, 3, 32, 32)),
    "sew_resnet18": (sew18, images(2, 2, 3, 32, 32)),
    "spiking_vgg11_bn": (vgg11, images(2, 1, 3, 32, 32)),
    "PLIF net": (plif, images(STEPS, 2, 1, 28, 28)),
    "single step": (lambda: lively(StepByStep()), images(2, 3, 8, 8)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, x = NETWORKS[name]
    return build(), x


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Network, Tensor]:
    module, x = made(request.param)
    return trace(module, x), x


def residual_links(*, spiking: bool) -> Links:
    """All links of a ResNet-18, read off its code.

    A spiking ResNet adds currents in front of a neuron, a SEW ResNet spikes behind it.
    """
    sums = ["add"] if spiking else []
    found: Links = {"conv1": (["sn1"], ["bn1"], [], True)}
    for stage, block in itertools.product(range(1, 5), range(2)):
        at = f"layer{stage}.{block}"
        found[f"{at}.conv1"] = ([f"{at}.sn1"], [f"{at}.bn1"], [], False)
        found[f"{at}.conv2"] = ([f"{at}.sn2"], [f"{at}.bn2"], sums, False)
        if stage > 1 and block == 0:
            into = f"{at}.sn2" if spiking else f"{at}.downsample_sn"
            found[f"{at}.downsample.0"] = ([into], [f"{at}.downsample.1"], sums, False)
    return {**found, "fc": ([], [], [], False)}


LINKS: dict[str, Links] = {
    "spiking_resnet18": residual_links(spiking=True),
    "sew_resnet18": residual_links(spiking=False),
    "spiking_vgg11_bn": {
        **{
            f"features.{at}": ([f"features.{at + 2}"], [f"features.{at + 1}"], [], at == 0)
            for at in (0, 4, 8, 11, 15, 18, 22, 25)
        },
        "classifier.0": (["classifier.1"], [], [], False),
        "classifier.3": (["classifier.4"], [], [], False),
        "classifier.6": ([], [], [], False),
    },
    "PLIF net": {
        "conv_fc.0": (["conv_fc.2"], ["conv_fc.1"], [], True),
        "conv_fc.4": (["conv_fc.6"], ["conv_fc.5"], [], False),
        "conv_fc.10": (["conv_fc.11"], [], [], False),
        "conv_fc.13": (["conv_fc.14"], [], [], False),
    },
    "single step": {
        "conv1": (["spikes1"], ["bn1"], [], True),
        "conv2": (["spikes2"], ["bn2"], [], False),
        "fc": ([], [], [], False),
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_links_are_those_read_off_the_code(name: str) -> None:
    assert links_of(trace(*made(name))) == LINKS[name]


def test_the_output_is_bit_identical_while_watched_and_after(case: tuple[Network, Tensor]) -> None:
    network, x = case
    before = output(network, x)
    with watching(network, on_membrane=lambda name, u: None, on_spikes=lambda name, s: None):
        assert torch.equal(output(network, x), before)
    assert torch.equal(output(network, x), before)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["PLIF net", "single step"])
def test_nothing_is_left_behind(name: str, fails: bool) -> None:
    module, x = made(name)
    network = trace(module, x)
    before, keys = inner_state(module), list(module.state_dict())

    def look(name: str, distance: Tensor) -> None:
        if fails:
            raise RuntimeError("stop")

    try:
        with watching(network, on_membrane=look):
            output(network, x)
    except RuntimeError:
        assert fails
    assert inner_state(module) == before
    assert list(module.state_dict()) == keys


def test_spikes_follow_from_the_membranes(case: tuple[Network, Tensor]) -> None:
    network, x = case
    found = calibrate(network, [(x, None)])
    assert set(found.neurons) == set(network.neurons)
    assert not [warning for warning in found.warnings if "left out" in warning]
    assert max(float(one.firing_rate.mean()) for one in found.neurons.values()) > 0.05


def test_what_prune_writes_loads_into_a_fresh_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = pruned_by_the_command(run, __name__, "single step")
    fresh, x = made("single step")
    fresh.load_state_dict(state)
    assert int((fresh.get_parameter("conv2.weight") == 0).sum()) > 20
    assert torch.isfinite(output(trace(fresh, x), x)).all()


LOADING = """
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net

assert hasattr(neuron, "__path__")  # 2.x
network = parametric_lif_net.MNISTNet(
    channels=8, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0,
    surrogate_function=surrogate.ATan(), detach_reset=True,
)
functional.set_step_mode(network, "m")
x, state, expected = torch.load("across.pt")
network.load_state_dict(state)
assert torch.equal(network.eval()(x), expected)
"""


def test_a_state_dict_of_this_version_does_the_same_in_the_next(tmp_path: Path) -> None:
    module, x = made("PLIF net")
    state = {key: tensor * (tensor.abs() > 0.01) for key, tensor in module.state_dict().items()}
    module.load_state_dict(state)
    torch.save((x, state, output(trace(module, x), x)), tmp_path / "across.pt")
    without = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING],
        cwd=tmp_path,
        env=without,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@torch.no_grad()
def test_scores_equal_the_formula() -> None:
    module, x = made("single step")
    network = trace(module, x)
    result = scored(network, x)
    membranes, spikes = seen(network, x)
    rate = spikes["spikes1"].double().mean((0, 2, 3))
    norm: Any = module.get_submodule("bn2")
    expected = log_crisis(network.weight("conv2.weight"), rate, norm, membranes["spikes2"])
    torch.testing.assert_close(result.values["conv2.weight"], expected, rtol=0, atol=1e-4)
    assert set(result.fallback) == {"conv1.weight", "fc.weight"}


def charged(v: Tensor, x: Tensor, *, decay_input: bool, rest: float) -> Tensor:
    """The membrane before it fires, for tau = 3, by the equations of the documentation."""
    return v + (x - (v - rest)) / 3 if decay_input else v - (v - rest) / 3 + x


NODES: dict[str, Callable[..., nn.Module]] = {
    "IF": neuron.IFNode,
    "LIF": lambda **options: neuron.LIFNode(tau=3.0, **options),
    "LIF, plain input": lambda **options: neuron.LIFNode(tau=3.0, decay_input=False, **options),
    "PLIF": lambda **options: neuron.ParametricLIFNode(init_tau=3.0, **options),
    "PLIF, plain input": lambda **options: neuron.ParametricLIFNode(
        init_tau=3.0, decay_input=False, **options
    ),
}
RESETS = (0.0, 0.2, None)


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("v_reset", RESETS)
@pytest.mark.parametrize("step_mode", ["s", "m"])
@torch.no_grad()
def test_membranes_and_spikes_equal_an_independent_simulation(
    name: str, v_reset: float | None, step_mode: str
) -> None:
    node = NODES[name](v_reset=v_reset, step_mode=step_mode).eval()
    x, told = 4 * images(6, 2, 4, 5) - 0.5, list[Tensor]()
    with library_of(node).recording(node, told.append):  # type: ignore[union-attr]  # it is known
        spikes = node(x) if step_mode == "m" else torch.stack([node(step) for step in x])
    rest = 0.0 if v_reset is None else v_reset
    v, expected = torch.full_like(x[0], rest).double(), []
    for step in x.double():
        decay_input = "plain" not in name
        u = v + step if name == "IF" else charged(v, step, decay_input=decay_input, rest=rest)
        v = u - (u >= 1).double() if v_reset is None else torch.where(u >= 1, v_reset, u)
        expected.append(u - 1)
    distances = torch.stack(expected)
    assert 0.1 < float((distances >= 0).double().mean()) < 0.9
    torch.testing.assert_close(torch.cat(told).double(), distances, rtol=0, atol=1e-5)
    assert torch.equal(spikes.double(), (distances >= 0).double())


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("v_reset", RESETS)
@pytest.mark.parametrize("name", NODES)
@torch.no_grad()
def test_a_node_does_the_same_to_the_bit_while_it_is_recorded(
    name: str, v_reset: float | None, step_mode: str, store: bool
) -> None:
    node: Any = NODES[name](v_reset=v_reset, step_mode=step_mode, store_v_seq=store).eval()
    x = 4 * images(20, 2, 40, 50) - 0.5

    def run() -> list[Tensor]:
        node.reset()
        spikes = node(x) if step_mode == "m" else torch.stack([node(step) for step in x])
        stored = [node.v_seq] if store and step_mode == "m" else []
        return [spikes, node.v, *stored]

    before = run()
    inner = inner_state(node)
    with library_of(node).recording(node, lambda distance: None):  # type: ignore[union-attr]  # it is known
        during = run()
    assert inner_state(node) == inner
    for one, other, after in zip(before, during, run(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, after)


def test_a_training_node_stays_one_and_keeps_its_gradient() -> None:
    node: Any = neuron.LIFNode(tau=3.0, **LIF)
    node.train()
    x = images(2, 3).requires_grad_()
    with library_of(node).recording(node, lambda distance: None):  # type: ignore[union-attr]  # it is known
        node(2 * x).sum().backward()
    assert node.training
    assert x.grad is not None
    assert bool((x.grad != 0).all())


def test_a_surrogate_that_is_a_function_is_put_back() -> None:
    def fire(distance: Tensor) -> Tensor:
        return (distance >= 0).to(distance)

    node = neuron.IFNode(surrogate_function=fire).eval()
    with library_of(node).recording(node, lambda distance: None):  # type: ignore[union-attr]  # it is known
        node(images(2, 3))
    assert node.surrogate_function is fire
    assert "surrogate_function" not in dict(node.named_children())


class One(nn.Module):
    """One convolution, one neuron, three steps in a loop."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), spikes
        nn.init.constant_(self.bn.bias, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.spikes(self.bn(self.conv(x))).mean((2, 3)) for _ in range(3)])


@pytest.mark.parametrize(
    "name",
    ["IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode"],
)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    found = calibrate(trace(One(getattr(neuron, name)()).eval(), x), [(x, None)])
    assert float(found.neurons["spikes"].firing_rate.mean()) > 0.05
    assert not [warning for warning in found.warnings if "left out" in warning]


def test_constants_are_read_off_the_neurons() -> None:
    neurons = (
        neuron.IFNode(v_threshold=0.5),
        neuron.LIFNode(tau=4.0),
        neuron.ParametricLIFNode(init_tau=4.0, decay_input=False),
    )
    found = [library_of(one).constants(one) for one in neurons]  # type: ignore[union-attr]  # all known
    assert [one.threshold for one in found] == [0.5, 1.0, 1.0]
    assert [one.beta for one in found] == [1.0, 0.75, pytest.approx(0.75)]
    assert [one.decay_input for one in found] == [False, True, False]
    assert all(one.fires_at_threshold for one in found)
