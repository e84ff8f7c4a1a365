"""Nodes as older versions of SpikingJelly have them, kept off what they run in eval mode alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.libraries.spikingjelly import (
    CHARGE,
    run_plain_operations,
    run_step_by_step,
)


class LIFNode(nn.Module):
    """As of 0.0.0.0.14."""

    def __init__(self, v_reset: float | None = 0.0, backend: str = "torch") -> None:
        super().__init__()
        self._backend, self.v_reset, self.step_mode = backend, v_reset, "m"

    @staticmethod
    def neuronal_charge_no_decay_input(x: Tensor, v: Tensor, v_reset: float, tau: float) -> Tensor:
        return v - (v - v_reset) / tau + x

    @staticmethod
    def neuronal_charge_no_decay_input_reset0(x: Tensor, v: Tensor, tau: float) -> Tensor:
        return v * (1 - 1 / tau) + x


class IFNode(nn.Module):
    """As of 0.0.0.0.10."""

    def __init__(self, v_reset: float | None = None, **more: Any) -> None:
        super().__init__()
        self.v_reset = v_reset
        self.__dict__.update(more)


class MultiStepIFNode(IFNode):
    """It inherits from the other one there too."""


NODES: list[tuple[nn.Module, bool, bool]] = [
    (LIFNode(), True, True),
    (LIFNode(v_reset=None), True, False),
    (IFNode(), True, False),
    (MultiStepIFNode(), True, False),
    (IFNode(v_reset=0.0), False, False),
    (IFNode(step_mode="s"), False, False),  # of 2.x
    (IFNode(cupy_fp32_inference=False), False, False),  # of 0.0.0.0.12
    (nn.Identity(), False, False),
]


@pytest.mark.parametrize(("node", "slow", "charged"), NODES)
def test_a_node_with_a_way_of_its_own_for_eval_mode_does_as_in_training_and_comes_back(
    node: nn.Module, slow: bool, charged: bool
) -> None:
    node.eval()
    before = dict(vars(node))
    with run_step_by_step(node):
        assert node.training == slow
        assert (CHARGE in vars(node)) == charged
    assert vars(node) == before
    node.train()
    with run_step_by_step(node):
        assert node.training
        assert CHARGE not in vars(node)
    assert vars(node) == {**before, "training": True}


def test_a_charge_without_decay_of_the_input_is_to_the_bit_that_of_the_kernel() -> None:
    node: Any = LIFNode().eval()
    x, v = torch.rand(2, 100, generator=torch.Generator().manual_seed(0))
    as_kernel = node.neuronal_charge_no_decay_input(x, v, 0.0, 3.0)
    assert not torch.equal(getattr(node, CHARGE)(x, v, 3.0), as_kernel)
    with run_step_by_step(node):
        assert torch.equal(getattr(node, CHARGE)(x, v, 3.0), as_kernel)


@pytest.mark.parametrize(
    ("backend", "here"), [("cupy", "torch"), ("torch", "torch"), *[("lava",) * 2]]
)
def test_kernels_rest_and_another_neuron_stays_what_it_is(backend: str, here: str) -> None:
    node: Any = LIFNode(backend=backend)
    node.cupy_fp32_inference = True
    with run_plain_operations(node):
        assert (node._backend, node.cupy_fp32_inference) == (here, False)
    assert (node._backend, node.cupy_fp32_inference) == (backend, True)
