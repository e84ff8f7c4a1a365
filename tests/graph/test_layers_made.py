"""Weights that functions make of parameters: elementwise ones are layers, others are told."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layer_twins import Around, Free, Neuron, surrounded
from test_layers_products import network_of, output, scores, shot_at, work
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.trace import trace
from snnprune.pruning.oneshot import Plan

KEY = "layer.w_rec"


class Soft(torch.autograd.Function):
    """A soft threshold with a gradient of its own, as STDS has it."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return w.sign() * (w.abs() - 0.02).relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def quantized(w: Tensor) -> Tensor:
    """Uniform with zero, straight through, its scale from the largest."""
    scale = w.abs().max() / 7
    return w + ((w / scale).round() * scale - w).detach()


KEPT = (torch.arange(96) % 3 > 0).view(12, 8)
ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "a soft threshold": lambda w: w.sign() * (w.abs() - 0.02).relu(),
    "a soft threshold by a function": Soft.apply,
    "a hard threshold": lambda w: torch.where(w.abs() > 0.1, w, torch.zeros_like(w)),
    "clipping": lambda w: w.clamp(-0.2, 0.2),
    "tanh": torch.tanh,
    "a scale": lambda w: w * 0.5,
    "a sign": lambda w: -w,
    "a mask": lambda w: w * KEPT.float(),
    "a filled mask": lambda w: w.masked_fill(~KEPT, 0.0),
    "quantization": quantized,
}
WHOLES: dict[str, Callable[[Tensor], Tensor]] = {
    "standardisation": lambda w: (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True),
    "weight norm": lambda w: w / w.norm(dim=1, keepdim=True),
    "the mean with its signs": lambda w: w.sign() * w.abs().mean(1, keepdim=True),
    "signs without zero": lambda w: (w >= 0).float() * 2 - 1,
    "softmax": lambda w: w.softmax(1),
    "a sigmoid": torch.sigmoid,
}
X = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))


def making(function: Callable[[Tensor], Tensor]) -> Around:
    torch.manual_seed(0)
    held = nn.Linear(8, 12).weight.detach()
    return surrounded(Free(held, lambda w, x: functional.linear(x, function(w))))


def plainly(function: Callable[[Tensor], Tensor], module: nn.Module) -> Around:
    """A layer of the weight that is made, in a network that is else as `module`."""
    twin = making(lambda w: w)
    twin.load_state_dict(module.state_dict())
    with torch.no_grad():
        held = twin.get_parameter(KEY)
        held.copy_(function(held))
    return twin


@pytest.mark.many(1)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_function_is_pruned_by_its_parameter(name: str) -> None:
    function = ELEMENTWISE[name]
    shot = shot_at(making(function), X)
    twin = shot_at(plainly(function, network_of(shot).module), X)
    network, other = network_of(shot), network_of(twin)
    layer, plain = network.layers[KEY], other.layers[KEY]
    assert layer.shaped
    assert not plain.shaped
    assert (layer.sources, layer.links) == (plain.sources, plain.links)
    assert work(network, X)[KEY] == work(other, X)[KEY]
    for criterion in ("sf", "obs"):
        found, expected = scores(shot, criterion), scores(twin, criterion)
        assert KEY not in found.fallback
        alive = expected.values[KEY].isfinite()
        torch.testing.assert_close(
            found.values[KEY][alive], expected.values[KEY][alive], rtol=1e-4, atol=1e-7
        )
    masks = shot.prune(Plan(criterion="sf", repair="lsq", allocation="local"), 0.5).masks
    held = network.module.get_parameter(KEY)
    assert torch.equal(held == 0, ~masks[KEY])
    after = plainly(function, network.module)
    assert bool((after.get_parameter(KEY)[~masks[KEY]] == 0).all())
    assert torch.allclose(output(network, X), output(trace(after, X), X), atol=1e-6)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda w: w.flatten().unflatten(0, (12, 8)),
    "view": lambda w: w.reshape(96).view(12, 8),
    "squeeze": lambda w: w.unsqueeze(0).squeeze(0).contiguous().clone(),
    "type": lambda w: w.detach().double().float(),
    "like": lambda w: w.view_as(w).ravel().reshape_as(w),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_weight_in_another_form_is_the_parameter_itself(name: str) -> None:
    network = trace(making(FORMS[name]), X)
    assert network.layers[KEY] == trace(making(lambda w: w), X).layers[KEY]
    assert network.layers[KEY].links
    assert network.layers[KEY].shape == (12, 8)
    assert not network.layers[KEY].shaped
    assert not network.made


def test_a_half_is_no_other_weight() -> None:
    module = making(lambda w: w.to(torch.bfloat16).to(w.dtype))
    assert not trace(module, X).layers[KEY].shaped


@pytest.mark.parametrize("name", WHOLES)
def test_a_weight_that_is_made_as_a_whole_is_told_by_its_parameter(name: str) -> None:
    network = trace(making(WHOLES[name]), X)
    assert list(network.layers) == ["first.weight", "last.weight"]
    assert list(network.made) == [KEY]


class Delays(nn.Module):
    """Kernels of weights at learnt places, as of DCLS."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 8, 2))
        self.P = nn.Parameter(torch.rand(6, 8, 2) * 4)
        self.first, self.last = nn.Linear(5, 8), nn.Linear(6, 4)
        self.lif1, self.lif2 = Neuron(), Neuron()

    def kernel(self) -> Tensor:
        near = (1 - (torch.arange(5.0) - self.P.unsqueeze(-1)).abs()).relu()
        return (self.weight.unsqueeze(-1) * near).sum(2)

    def forward(self, x: Tensor) -> Tensor:
        spikes = torch.stack([self.lif1(self.first(x)) for _ in range(7)], -1)
        current = functional.conv1d(functional.pad(spikes, (4, 0)), self.kernel())
        return torch.stack([self.last(self.lif2(step)) for step in current.unbind(-1)])


def test_positions_are_left_alone_and_said_to_be() -> None:
    shot = shot_at(Delays().eval(), X)
    network = network_of(shot)
    assert network.kept == ("P",)
    assert "P" not in network.layers
    assert not network.made
    assert network.layers["weight"].unseen == "its kernel is made with P"
    assert scores(shot, "sf").fallback["weight"] == "its kernel is made with P"
    before = network.module.get_parameter("P").clone()
    masks = shot.prune(Plan(criterion="magnitude", repair="lsq", allocation="local"), 0.5).masks
    gone = network.module.get_parameter("weight") == 0
    assert torch.equal(gone, ~masks["weight"])
    assert int(gone.sum()) == 48
    assert torch.equal(network.module.get_parameter("P"), before)


class Fused(nn.Module):
    """One kernel of two parameters, put together at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.point, self.depth = (
            nn.Parameter(torch.randn(12, 8)),
            nn.Parameter(torch.randn(8, 3, 3)),
        )
        self.first, self.lif1, self.lif2 = nn.Conv2d(5, 8, 1), Neuron(), Neuron()
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.einsum("oc,chw->ochw", self.point, self.depth)
        spikes = self.lif2(functional.conv2d(self.lif1(self.first(x)), kernel))
        return self.last(spikes.mean((2, 3)))


def test_a_kernel_of_several_parameters_is_told_by_all_of_them() -> None:
    network = trace(Fused(), torch.rand(2, 5, 4, 4))
    assert list(network.layers) == ["first.weight", "last.weight"]
    assert dict(network.made) == {"depth": "einsum", "point": "einsum"}
