"""SpikingJelly 0.0.0.0.14: an environment of its own, as it cannot be there together with 2.x.

pip install --no-deps --target DIR spikingjelly==0.0.0.0.14
PYTHONPATH=DIR pytest tests/graph/test_spikingjelly_014.py
"""

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from behaviour import Behaviour, DropIn, Networks, cases_of, made_of
from torch import Tensor, nn
from zoo import One, calibrated, images, inner_state, left_out, log_crisis, output, scored, seen

from snnprune.data.batches import Batches
from snnprune.graph.libraries import allow_missing_kernels, library_of
from snnprune.graph.trace import trace
from snnprune.measure.gradients import compute_weight_gradients

with warnings.catch_warnings():
    # torch.jit.script and escapes in docstrings, which the old package still uses
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import layer, neuron
    from spikingjelly_networks import (
        LIF,
        OWN_LOOP,
        OWN_LOOP_LINKS,
        STEPS,
        ZOO,
        ZOO_LINKS,
        multi_step,
    )

# 2.x, told by its package: the metadata of another installation may lie on the path too
if hasattr(neuron, "__path__"):
    pytest.skip(
        "needs an environment with spikingjelly==0.0.0.0.14 (see the top of the file)",
        allow_module_level=True,
    )

NETWORKS: Networks = {**ZOO, **OWN_LOOP}


made = functools.partial(made_of, NETWORKS)
case = cases_of(NETWORKS, {**ZOO_LINKS, **OWN_LOOP_LINKS})


class TestBehaviour(Behaviour):
    pass


class TestDropIn(DropIn):
    network, weight = "single step", "conv2.weight"


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


@pytest.mark.parametrize(
    "name",
    ["IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode"],
)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    found = calibrated(One(getattr(neuron, name)()).eval(), x)
    assert float(found.neurons["spikes"].firing_rate.mean()) > 0.05
    assert not left_out(found)


KERNELS = {
    "IF": lambda: neuron.IFNode(step_mode="m", backend="cupy"),
    "LIF": lambda: neuron.LIFNode(tau=3.0, step_mode="m", backend="cupy"),
    "PLIF": lambda: neuron.ParametricLIFNode(step_mode="m", backend="cupy"),
    "EIF": lambda: neuron.EIFNode(step_mode="m", backend="cupy"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_node_for_kernels_is_found_out_about_without_them(name: str) -> None:
    with pytest.raises(ImportError, match="CuPy"):
        KERNELS[name]()
    with allow_missing_kernels():
        spikes: Any = KERNELS[name]()
    torch.manual_seed(0)
    module = multi_step(nn.Sequential(layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), spikes)).eval()
    nn.init.constant_(module.get_parameter("1.bias"), 1.5)
    x, found = images(STEPS, 2, 1, 8, 8), list[Tensor]()
    for backend in ("cupy", "torch"):
        spikes._backend = backend
        before = inner_state(module)
        network = trace(module, x)
        known = calibrated(network, x)
        gradients = compute_weight_gradients(
            network.with_readout(lambda spikes: spikes.mean((0, 3, 4))),
            Batches(begin=lambda: [(x, torch.zeros(2, dtype=torch.long))]),
            "gradient",
        )
        assert inner_state(module) == before
        assert spikes.backend == backend
        assert not left_out(known)
        found += [known.neurons["2"].membrane_mean, gradients["0.weight"]]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


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
