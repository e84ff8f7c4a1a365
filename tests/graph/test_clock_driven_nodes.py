"""Nodes of SpikingJelly up to 0.0.0.0.12, and of 0.0.0.0.14 in the same way: not beside 2.x.

pip install --no-deps --target DIR spikingjelly==0.0.0.0.12
PYTHONPATH=DIR pytest tests/graph/test_clock_driven_nodes.py
"""

import importlib.util
import warnings
from collections.abc import Iterator
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import images, inner_state

from snnprune.graph.libraries import library_of

with warnings.catch_warnings():
    # escapes in docstrings and what numpy has given up, which the old packages still use
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning, UserWarning):
        warnings.simplefilter("ignore", category)
    if importlib.util.find_spec("spikingjelly.clock_driven") is None:
        pytest.skip(
            "needs an environment with spikingjelly==0.0.0.0.12 (see the top of the file)",
            allow_module_level=True,
        )
    from spikingjelly.clock_driven import neuron

TAU = 3.0
PLAIN = {"decay_input": False}  # since 0.0.0.0.10
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "IF": ("IFNode", {}),
    "LIF": ("LIFNode", {"tau": TAU}),
    "LIF, plain input": ("LIFNode", {"tau": TAU, **PLAIN}),
    "PLIF": ("ParametricLIFNode", {"init_tau": TAU}),
    "PLIF, plain input": ("ParametricLIFNode", {"init_tau": TAU, **PLAIN}),
    "QIF": ("QIFNode", {"tau": TAU}),
    "EIF": ("EIFNode", {"tau": TAU}),
}
RESETS = (0.0, -0.2, None)
LIBRARY: Any = library_of(neuron.IFNode())


def nodes() -> Iterator[tuple[str, str]]:
    """Kinds and classes that this version has."""
    for name, (single, options) in KINDS.items():
        for kind in (single, f"MultiStep{single}"):
            known = hasattr(neuron, kind) and signature(getattr(neuron, kind)).parameters
            if known is not False and options.keys() <= known.keys():
                yield name, kind


of_each_node = pytest.mark.parametrize(("name", "kind"), list(nodes()))


def node(name: str, kind: str, v_reset: float | None = 0.0) -> Any:
    return getattr(neuron, kind)(v_reset=v_reset, **KINDS[name][1]).eval()


def run(spikes: Any, x: Tensor) -> Tensor:
    """From rest, all steps at once or one by one."""
    spikes.reset()
    if "MultiStep" in type(spikes).__name__:
        return spikes(x)
    return torch.stack([spikes(step) for step in x])


def charged(name: str, v: Tensor, x: Tensor, rest: float) -> Tensor:
    """The membrane before it fires, by the equations of the documentation."""
    match name:
        case "IF":
            return v + x
        case "LIF" | "PLIF":
            return v + (x - (v - rest)) / TAU
        case "QIF":
            return v + (x + v * (v - 0.8)) / TAU
        case "EIF":
            return v + (x - v + torch.exp(v - 0.8)) / TAU
    return v - (v - rest) / TAU + x


@of_each_node
@pytest.mark.parametrize("v_reset", RESETS)
@torch.no_grad()
def test_membranes_and_spikes_equal_an_independent_simulation(
    name: str, kind: str, v_reset: float | None
) -> None:
    spiking, x, told = node(name, kind, v_reset), 4 * images(6, 2, 4, 5) - 0.5, list[Tensor]()
    with LIBRARY.recording(spiking, told.append):
        spikes = run(spiking, x)
    rest = 0.0 if v_reset is None else v_reset
    v, expected = torch.full_like(x[0], rest).double(), []
    for step in x.double():
        u = charged(name, v, step, rest)
        v = u - (u >= 1).double() if v_reset is None else torch.where(u >= 1, v_reset, u)
        expected.append(u - 1)
    distances = torch.stack(expected)
    assert 0.1 < float((distances >= 0).double().mean()) < 0.9
    torch.testing.assert_close(torch.cat(told).double(), distances, rtol=0, atol=1e-5)
    assert torch.equal(spikes.double(), (distances >= 0).double())


@of_each_node
@pytest.mark.parametrize("v_reset", RESETS)
@torch.no_grad()
def test_a_node_does_the_same_to_the_bit_while_it_is_recorded(
    name: str, kind: str, v_reset: float | None
) -> None:
    spiking, x = node(name, kind, v_reset), 4 * images(20, 2, 40, 50) - 0.5

    def both() -> list[Tensor]:
        return [run(spiking, x), spiking.v, *([spiking.v_seq] if "MultiStep" in kind else [])]

    before, inner = both(), inner_state(spiking)
    with LIBRARY.recording(spiking, lambda distance: None):
        during = both()
    assert inner_state(spiking) == inner
    for one, other, after in zip(before, during, both(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, after)


@of_each_node
def test_a_node_in_eval_mode_has_its_gradient(name: str, kind: str) -> None:
    spiking, found = node(name, kind, None), list[Tensor]()
    for training in (True, False):
        x = images(3, 2, 4).requires_grad_()
        spiking.train(training)
        with LIBRARY.learning(spiking):
            run(spiking, x).sum().backward()
        assert spiking.training is training
        assert x.grad is not None
        found.append(x.grad)
    assert bool((found[0] != 0).all())
    assert torch.equal(found[0], found[1])


@of_each_node
@pytest.mark.parametrize("v_reset", RESETS)
def test_constants_are_read_off_the_node(name: str, kind: str, v_reset: float | None) -> None:
    spiking = getattr(neuron, kind)(v_threshold=0.5, v_reset=v_reset, **KINDS[name][1])
    found = LIBRARY.constants(spiking)
    assert found.threshold == 0.5
    assert found.fires_at_threshold
    if name in ("QIF", "EIF"):  # they do not decay by a factor
        assert found.beta is None
    else:
        assert found.beta == pytest.approx(1.0 if name == "IF" else 1 - 1 / TAU)
        assert found.decay_input is (name in ("LIF", "PLIF"))
