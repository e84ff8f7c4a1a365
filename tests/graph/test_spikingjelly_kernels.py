"""Kernels of SpikingJelly 2.x: where one would run or hide a membrane, torch's operations do.

Nothing here needs a GPU: what would choose a kernel there is asked what it chose.
"""

import importlib
import warnings
from typing import Any

import pytest
import torch
from behaviour import made_of
from torch import Tensor, nn
from zoo import (
    calibrated,
    images,
    inner_state,
    left_out,
    links_of,
    lively,
    log_crisis,
    scored,
    seen,
)

from snnprune.graph.libraries import library_of, reset_states
from snnprune.graph.state import use_eval_mode
from snnprune.graph.trace import trace

with warnings.catch_warnings():
    # of 0.0.0.0.14, where that lies in front
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import layer, neuron, surrogate
    from spikingjelly_networks import STEPS, ZOO, multi_step

if not hasattr(neuron, "__path__"):
    pytest.skip("needs spikingjelly 2.x", allow_module_level=True)

FRAMES = images(STEPS, 2, 1, 8, 8)


def network(spikes: nn.Module, *, in_a_loop: bool = False) -> nn.Module:
    torch.manual_seed(0)
    parts = (
        *(layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), neuron.LIFNode()),
        *(layer.Conv2d(4, 5, 3), layer.BatchNorm2d(5), spikes),
    )
    made: Any = layer.MultiStepContainer(*parts) if in_a_loop else multi_step(nn.Sequential(*parts))
    lively(made)
    return made


def test_a_precision_that_needs_a_gpu_waits_while_the_network_runs_here() -> None:
    module, x = made_of(ZOO, "PLIF net")
    expected = calibrated(trace(module, x), x)
    precise: Any = module.get_submodule("conv_fc.6")
    precise._neuron_precision = (torch.float16, "fp16", "fp16")  # as set_neuron_precision does
    with pytest.raises(RuntimeError, match="requires CUDA"), torch.no_grad():
        module(x)
    before = inner_state(module)
    found = calibrated(trace(module, x), x)
    assert inner_state(module) == before
    assert precise._neuron_precision == (torch.float16, "fp16", "fp16")
    assert not left_out(found)
    for name, statistics in expected.neurons.items():
        assert torch.equal(found.neurons[name].membrane_mean, statistics.membrane_mean)


@pytest.mark.parametrize("fails", [False, True])
def test_a_kernel_that_the_environment_asks_for_rests_while_a_membrane_is_watched(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = importlib.import_module("spikingjelly._ops.lif")._selection
    refuse = importlib.import_module("spikingjelly._ops.selection")._require_automatic_torch
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # it would ask for the name

    def asked_on_a_gpu() -> None:
        refuse(selection, torch.device("cuda:0"), "Torch reference implementation required")

    # as SJ_LIF_CUDA_IMPLEMENTATION=triton when the library is imported
    monkeypatch.setattr(selection, "_requested", "triton")
    with pytest.raises(RuntimeError, match="SJ_LIF_CUDA_IMPLEMENTATION='triton' cannot run"):
        asked_on_a_gpu()
    known, node = library_of(neuron.LIFNode()), neuron.LIFNode(step_mode="m")
    assert known is not None
    try:
        with known.recording(node, lambda distance: asked_on_a_gpu()):
            node(FRAMES)
            if fails:
                raise RuntimeError("stop")
    except RuntimeError:
        assert fails
    assert selection._requested == "triton"
    with pytest.raises(RuntimeError, match="cannot run"):
        asked_on_a_gpu()


fire = surrogate.ATan()


def step(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A neuron as FlexSN takes it: x, v to spikes, v."""
    u = v / 2 + x
    spikes = fire(u - 1)
    return spikes, u * (1 - spikes)


def test_a_neuron_of_which_kernels_would_be_made_runs_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flexible = neuron.FlexSN(step, num_states=1)
    module = network(flexible)
    found = trace(module, FRAMES)
    assert links_of(found)["3"] == (["5"], ["4"], [], False)
    # on a GPU this is what would make a kernel
    monkeypatch.setattr(neuron.FlexSN, "_multi_step", lambda *_: pytest.fail("it was asked"))
    with torch.no_grad(), use_eval_mode(module):
        again = module(FRAMES)
    monkeypatch.undo()
    with torch.no_grad():
        reset_states(module)
        assert torch.equal(module(FRAMES), again)
    assert "_multi_step" not in vars(flexible)


def test_a_back_end_that_is_no_kernel_stays() -> None:
    node = neuron.IFNode()
    node.backend = "gemm"  # as SlidingPSN had in what came before 2.0.0
    with use_eval_mode(node):
        assert node.backend == "gemm"


@pytest.mark.parametrize("in_a_loop", [False, True])
@torch.no_grad()
def test_a_node_with_thresholds_of_its_own_is_known_in_both_modes(in_a_loop: bool) -> None:
    thresholds = torch.tensor([0.5, 0.8, 1.1, 1.4, 1.7])
    spikes = neuron.ActivationAwareIFNode(thresholds, channel_dim=-3)
    module = network(spikes, in_a_loop=in_a_loop)
    found = trace(module, FRAMES)
    assert torch.equal(torch.as_tensor(found.neurons["5"].constants.threshold), thresholds)
    result = scored(found, FRAMES)
    membranes, fired = seen(found, FRAMES)
    rate = fired["2"].reshape(STEPS, 2, 4, 6, 6).double().mean((0, 1, 3, 4))
    norm: Any = module.get_submodule("4")
    expected = log_crisis(
        found.weight("3.weight"), rate, norm, membranes["5"].reshape(STEPS, 2, 5, 4, 4)
    )
    torch.testing.assert_close(result.values["3.weight"], expected, rtol=0, atol=1e-4)
