"""Real networks of norse: links, membranes, scores, and nothing left behind."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from behaviour import Behaviour, DropIn, Networks, cases_of, made_of
from torch import Tensor, nn
from zoo import (
    Links,
    calibrated,
    images,
    left_out,
    lively,
    log_crisis,
    scored,
    seen,
)

from snnprune.graph.libraries import library_of
from snnprune.graph.network import Network
from snnprune.graph.trace import trace

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script, which norse still uses
    import norse.torch as norse

STEPS, SAMPLES = 6, 2
FRAMES = images(STEPS, SAMPLES, 1, 12, 12)


def params(**options: Any) -> norse.LIFParameters:
    return norse.LIFParameters(**{name: torch.as_tensor(one) for name, one in options.items()})


class Cells(nn.Module):
    """A loop over time, states handed round, BatchNorm and a factor before the neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.lif1 = norse.LIFCell(p=params(v_th=0.3))
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.lif2 = norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.2)))
        self.fc, self.out = nn.Linear(6, 10), norse.LICell()

    def forward(self, frames: Tensor) -> Tensor:
        s1 = s2 = so = None
        voltages = []
        for x in frames:
            z, s1 = self.lif1(10 * self.bn1(self.conv1(x)), s1)
            z = nn.functional.avg_pool2d(z, 2)
            z, s2 = self.lif2(self.bn2(self.conv2(z)), s2)
            z = nn.functional.max_pool2d(z, 2)
            v, so = self.out(self.fc(z.flatten(1)), so)
            voltages.append(v)
        return torch.stack(voltages)


def sequential() -> nn.Module:
    """norse's own container, layers over time: (T, N, C, H, W) all along."""
    return norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 4, 3)),
        norse.Lift(nn.BatchNorm2d(4)),
        norse.LIF(p=params(v_th=0.1)),
        norse.Lift(nn.AvgPool2d(2)),
        norse.Lift(nn.Conv2d(4, 6, 3, bias=False)),
        norse.Lift(nn.BatchNorm2d(6)),
        norse.IAF(p=norse.IAFParameters(v_th=torch.tensor(0.5))),
        nn.Flatten(2),
        nn.Linear(6 * 9, 10),
        norse.LI(),
    )


def recurrent() -> nn.Module:
    """A layer with weights of its own behind a convolution."""
    return norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 4, 3)),
        norse.IAF(),
        nn.Flatten(2),
        norse.LIFRecurrent(4 * 100, 12, p=params(v_th=0.1)),
        nn.Linear(12, 10),
    )


NETWORKS: Networks = {
    "cells": (Cells, FRAMES),
    "sequential": (sequential, FRAMES),
    "recurrent": (recurrent, FRAMES),
    "ConvNet": (lambda: norse.ConvNet(feature_size=28), images(8, SAMPLES, 1, 28, 28)),
}
INNER = "spikes after 3.recurrent_weights"
LINKS: dict[str, Links] = {
    "cells": {
        "conv1": (["lif1"], ["bn1"], ["mul"], True),
        "conv2": (["lif2"], ["bn2"], [], False),
        "fc": ([], [], [], False),
    },
    "sequential": {
        "0.lifted_module": (["2"], ["1.lifted_module"], [], True),
        "4.lifted_module": (["6"], ["5.lifted_module"], [], False),
        "8": ([], [], [], False),
    },
    "recurrent": {
        "0.lifted_module": (["1"], [], [], True),
        "3.input_weights": ([INNER], [], ["sub", "add", "mul"], False),
        "3.recurrent_weights": ([INNER], [], ["sub", "add", "mul"], False),
        "4": ([], [], [], False),
    },
    # weights of LILinearCell are the last layer, which drives no spikes
    "ConvNet": {
        "conv1": (["lif0"], [], [], True),
        "conv2": (["lif1"], [], ["mul"], False),
        "fc1": (["lif2"], [], [], False),
        "out.input_weights": ([], [], [], False),
    },
}

made = functools.partial(made_of, NETWORKS)
case = cases_of(NETWORKS, LINKS)


class TestBehaviour(Behaviour):
    liveliest = 0.01

    def state(self, network: Network) -> dict[str, Any]:
        modules: list[Any] = [one.module for one in network.neurons.values() if not one.sites]
        thresholds = [module.activation.__globals__["threshold"] for module in modules]
        return {**super().state(network), "thresholds": thresholds}


class TestDropIn(DropIn):
    network, weight = "cells", "conv2.weight"


def test_the_weights_inside_a_recurrent_neuron_are_layers_that_drive_it() -> None:
    network = trace(*made("recurrent"))
    assert set(network.neurons) == {"1", INNER}
    assert set(network.neurons[INNER].feeders) == {"3.input_weights", "3.recurrent_weights"}


def test_the_state_that_is_handed_round_is_no_identity_of_the_neuron() -> None:
    network = trace(*made("cells"))
    assert [neuron.identities for neuron in network.neurons.values()] == [(), ()]
    assert network.neurons["lif1"].feeders == ("conv1.weight",)


Step = Callable[[dict[str, Any], Tensor], Tensor]
"""Takes the state and a current, moves the state on and gives u - u_th."""


def lif(state: dict[str, Any], x: Tensor) -> Tensor:
    i = state.get("i", 0.0) + x
    u = 0.9 * state.get("v", 0.0) + 0.1 * i  # dt = 1 ms, tau_mem = 10 ms
    state.update(i=0.8 * i, v=u * (u <= 0.3))  # tau_syn = 5 ms
    return u - 0.3


def lif_box(state: dict[str, Any], x: Tensor) -> Tensor:
    u = 0.9 * state.get("v", 0.0) + 0.1 * x
    state.update(v=u * (u <= 0.2))
    return u - 0.2


def lif_soft_box(state: dict[str, Any], x: Tensor) -> Tensor:
    u = 0.9 * state.get("v", 0.0) + 0.1 * x
    state.update(v=u - 0.2 * (u > 0.2))
    return u - 0.2


def iaf(state: dict[str, Any], x: Tensor) -> Tensor:
    u = state.get("v", -0.1) + x  # at rest where it is reset to
    z = (u > 0.5).double()
    state.update(v=u * (1 - z) - 0.1 * z)
    return u - 0.5


def lsnn(state: dict[str, Any], x: Tensor) -> Tensor:
    i, b = state.get("i", torch.zeros_like(x)), state.get("b", torch.full_like(x, 0.2))
    u, b = 0.9 * state.get("v", 0.0) + 0.1 * i, b + (0.2 - b) * 0.01
    z = (u > b).double()
    state.update(i=0.8 * i + x, v=u * (1 - z), b=b + 0.5 * z)
    return u - b


def boxes(**options: Any) -> norse.LIFBoxParameters:
    return norse.LIFBoxParameters(v_th=torch.tensor(0.2), **options)


def adapting() -> norse.LSNNParameters:
    return norse.LSNNParameters(
        v_th=torch.tensor(0.2), tau_adapt_inv=torch.tensor(10.0), beta=torch.tensor(0.5)
    )


SIMULATED: dict[str, tuple[Callable[[], nn.Module], Step]] = {
    "LIF": (lambda: norse.LIF(p=params(v_th=0.3)), lif),
    "LIFCell": (lambda: norse.LIFCell(p=params(v_th=0.3)), lif),
    "LIFBoxCell": (lambda: norse.LIFBoxCell(boxes()), lif_box),
    "LIFBoxCell that subtracts": (
        lambda: norse.LIFBoxCell(boxes(reset_method=norse.reset_subtract)),
        lif_soft_box,
    ),
    "IAF": (
        lambda: norse.IAF(norse.IAFParameters(torch.tensor(0.5), torch.tensor(-0.1))),
        iaf,
    ),
    "LSNN": (lambda: norse.LSNN(adapting()), lsnn),
    "LSNNCell": (lambda: norse.LSNNCell(adapting()), lsnn),
}


class One(nn.Module):
    """One convolution and one neuron, a cell in a loop or a layer over time."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), spikes

    def current(self, x: Tensor) -> Tensor:
        """(T, N, C, H, W)"""
        found: Tensor = self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return found

    def forward(self, x: Tensor) -> Tensor:
        current, state, spikes = self.current(x), None, []
        if not isinstance(self.spikes, norse.module.snn.SNNCell):
            layer: Tensor = self.spikes(current)[0]
            return layer
        for step in current:
            z, state = self.spikes(step, state)
            spikes.append(z)
        return torch.stack(spikes)


@pytest.mark.parametrize("name", SIMULATED)
@torch.no_grad()
def test_membranes_and_spikes_equal_an_independent_simulation(name: str) -> None:
    torch.manual_seed(0)
    build, step = SIMULATED[name]
    module = One(build())
    lively(module)
    membranes, spikes = seen(trace(module, FRAMES), FRAMES)
    state: dict[str, Any] = {}
    expected = torch.stack([step(state, x) for x in module.current(FRAMES).double()])
    assert 0.02 < float((expected > 0).double().mean()) < 0.98
    torch.testing.assert_close(membranes["spikes"].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(spikes["spikes"].reshape(expected.shape).double(), (expected > 0).double())


@torch.no_grad()
def test_scores_equal_the_formula() -> None:
    module, x = made("cells")
    network = trace(module, x)
    result = scored(network, x)
    membranes, spikes = seen(network, x)
    rate = nn.functional.avg_pool2d(spikes["lif1"], 2).double().mean((0, 2, 3))
    norm: Any = module.get_submodule("bn2")
    expected = log_crisis(network.weight("conv2.weight"), rate, norm, membranes["lif2"])
    torch.testing.assert_close(result.values["conv2.weight"], expected, rtol=0, atol=1e-4)
    assert set(result.fallback) == {"conv1.weight", "fc.weight"}


def test_constants_are_read_off_the_neurons() -> None:
    slow = params(tau_mem_inv=50.0, v_th=torch.tensor([0.2, 0.4]).view(2, 1, 1))
    neurons = [
        norse.LIFCell(p=slow, dt=0.002),
        norse.IAF(),
        norse.LIFEx(),
        norse.LIFCell(p=params(tau_mem_inv=torch.tensor([50.0, 100.0]))),
        norse.LIFRefracCell(norse.LIFRefracParameters(params(v_th=0.4))),
    ]
    found = [library_of(one).constants(one) for one in neurons]  # type: ignore[union-attr]  # all known
    assert [one.beta for one in found] == [
        pytest.approx(0.9),
        1.0,
        None,
        None,
        pytest.approx(0.9),
    ]
    assert [one.decay_input for one in found] == [True, False, True, True, True]
    told = [torch.as_tensor(one.threshold).tolist() for one in found]
    assert told == [pytest.approx(one) for one in ([0.2, 0.4], 1.0, 1.0, 1.0, 0.4)]
    assert not any(one.fires_at_threshold for one in found)


EXPLAINED: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(norse, name) for name in ("IAFCell", "IAF", "LIFCell", "LIF", "LIFBoxCell")},
    **{name: getattr(norse, name) for name in ("LIFExCell", "LIFEx", "LIFAdExCell", "LIFAdEx")},
    **{name: getattr(norse, name) for name in ("LSNNCell", "LSNN")},
    "IzhikevichCell": lambda: norse.IzhikevichCell(norse.tonic_spiking),
    "Izhikevich": lambda: norse.Izhikevich(norse.tonic_spiking),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    module = One(EXPLAINED[name]()).eval()
    nn.init.constant_(module.bn.bias, 1000.0 if "Izhikevich" in name else 3.0)
    found = calibrated(module, FRAMES)
    assert float(found.neurons["spikes"].firing_rate.mean()) > 0.02
    assert not left_out(found)


REFRACTORY = ("LIFRefracCell", "LIFAdExRefracCell")
WITH_WEIGHTS = ("LIFRefracRecurrent", "LIFAdExRefracRecurrent")


@pytest.mark.parametrize("name", REFRACTORY)
@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_a_refractory_neuron_is_left_to_magnitude_with_a_warning(name: str, bias: float) -> None:
    torch.manual_seed(0)
    module = One(getattr(norse, name)()).eval()
    nn.init.constant_(module.bn.bias, bias)  # also where it never spikes and holds nothing back
    found = calibrated(module, FRAMES)
    assert not found.neurons
    assert not found.layers["conv.weight"].drives
    assert "spikes: its spikes do not follow" in " ".join(found.warnings)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_refractory_neuron_with_weights_is_left_to_magnitude_with_a_warning(name: str) -> None:
    torch.manual_seed(0)
    module = norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 4, 3)), nn.Flatten(2), getattr(norse, name)(400, 12)
    )
    found = calibrated(module.eval(), FRAMES)
    assert not found.neurons
    assert not any(layer.drives for layer in found.layers.values())
    assert "2: its spikes do not follow" in " ".join(found.warnings)


def test_an_integrator_that_never_spikes_is_no_neuron() -> None:
    for module in (norse.LI(), norse.LICell(), norse.LIBoxCell(), norse.LILinearCell(3, 2)):
        assert library_of(module) is None
