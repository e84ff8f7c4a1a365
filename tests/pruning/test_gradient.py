"""Gradient criteria against formulas on paper, and a network written out by hand in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.forward import Batch
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.gradients import FINDERS, Found, compute_weight_gradients
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.criteria import CRITERIA, Evidence, load_criterion

STEPS = 3
GRADIENT_CRITERIA = ("taylor", "fisher", "snip", "grasp", "synflow", "sf-loss")
X = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) * 2
Y = torch.tensor([0, 2, 1, 0, 1, 2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("taylor", [6.0, 1.0]),  # |w g|
        ("snip", [6.0, 1.0]),
        ("fisher", [6.0, 0.25]),  # w^2 E[g^2] / 2
        ("grasp", [-6.0, -1.0]),  # w (H g)
        ("synflow", [6.0, 1.0]),  # |w| dR/d|w|
        ("sf-loss", [6.0, 1.0]),  # |w| E[|x| |dL/dI|]
    ],
)
def test_a_hand_worked_example(name: str, expected: list[float]) -> None:
    found = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    evidence = Evidence(weight=torch.tensor([[-2.0, -0.5]]), key="w", found=found)
    assert load_criterion(name)(evidence).tolist() == [expected]


def test_a_loss_that_gets_smaller_matters_as_much_as_one_that_grows() -> None:
    found = torch.tensor([[3.0, -3.0]], dtype=torch.float64)
    evidence = Evidence(weight=torch.ones(1, 2), key="w", found=found)
    for name in ("taylor", "snip"):
        assert load_criterion(name)(evidence).tolist() == [[3.0, 3.0]]


def test_each_asks_for_something_that_can_be_found_and_says_how_it_grows() -> None:
    made = {name: load_criterion(name) for name in GRADIENT_CRITERIA}
    assert {one.needs for one in made.values()} == set(FINDERS)
    assert {name for name, one in made.items() if one.degree == 2} == {"fisher"}
    assert all(made[name].name == name and name in CRITERIA.rows for name in made)


def test_grasp_keeps_what_carries_gradient_flow() -> None:
    """L = (3 a^2 + b^2) / 2 at a = b = 1: g = (3, 1), H g = (9, 1), |g|^2 falls most with a."""
    evidence = Evidence(
        weight=torch.ones(1, 2), key="w", found=torch.tensor([[9.0, 1.0]], dtype=torch.float64)
    )
    scores = load_criterion("grasp")(evidence)[0]
    assert scores[0] > scores[1]


class Two(nn.Module):
    """Currents, LIF neurons, logits for three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(4, 5), LIF(DYNAMICS), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.lif(self.fc1(x).expand(STEPS, -1, -1))
        logits: Tensor = self.fc2(spikes)
        return logits


DYNAMICS = Dynamics(beta=0.5, threshold=0.6)


class Spike(torch.autograd.Function):
    """Heaviside with the arctangent's derivative, in float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).double()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] / (1 + (math.pi * x) ** 2)


def by_hand(module: Two) -> tuple[dict[str, Tensor], Tensor]:
    """The weights in float64, and the losses (N,) of the same network, written out."""
    w1, b1, w2, b2 = (
        tensor.detach().double()
        for tensor in (module.fc1.weight, module.fc1.bias, module.fc2.weight, module.fc2.bias)
    )
    w1.requires_grad_()
    w2.requires_grad_()
    h, losses = torch.zeros(len(X), 5, dtype=torch.float64), []
    for _ in range(STEPS):
        u = h + X.double() @ w1.T + b1
        s = Spike.apply(u - 0.6)
        h = 0.5 * u * (1 - s.detach())
        z = s @ w2.T + b2
        losses.append(z.logsumexp(1) - z[torch.arange(len(X)), Y])
    return {"fc1.weight": w1, "fc2.weight": w2}, sum(losses, torch.zeros(len(X))) / STEPS


@pytest.fixture
def network() -> Network:
    torch.manual_seed(2)
    module = Two().eval()
    nn.init.uniform_(module.fc1.weight, -0.2, 0.6)
    return trace(module, X)


def batches() -> list[Batch]:
    return [(X[:4], Y[:4]), (X[4:], Y[4:])]


def scored(network: Network, name: str) -> dict[str, Tensor]:
    criterion = load_criterion(name)
    need: Found = criterion.needs  # type: ignore[assignment]  # of a gradient criterion
    found = compute_weight_gradients(network, Batches(begin=batches), need)
    return {
        key: criterion(Evidence(weight=network.weight(key), key=key, found=found[key]))
        for key in network.layers
    }


@pytest.mark.parametrize("name", ["taylor", "snip", "fisher"])
def test_scores_are_those_of_the_network_written_out_by_hand(name: str, network: Network) -> None:
    assert isinstance(network.module, Two)
    weights, losses = by_hand(network.module)
    alone = [torch.autograd.grad(one, list(weights.values()), retain_graph=True) for one in losses]
    for index, (key, weight) in enumerate(weights.items()):
        slopes = torch.stack([one[index] for one in alone])
        mean, square = slopes.mean(0), slopes.square().mean(0)
        weight = weight.detach()
        expected = weight**2 * square / 2 if name == "fisher" else (weight * mean).abs()
        assert float(expected.max()) > 0
        torch.testing.assert_close(scored(network, name)[key], expected, rtol=1e-4, atol=1e-7)


def test_taylor_is_what_the_loss_changes_by_where_it_is_smooth(network: Network) -> None:
    """The last layer, where no spike can change: (L(w + e) - L(w - e)) / 2e."""
    assert isinstance(network.module, Two)
    spikes = network.module.lif(network.module.fc1(X).expand(STEPS, -1, -1)).detach().double()
    weight, bias = (tensor.detach().double() for tensor in network.module.fc2.parameters())

    def loss(changed: Tensor) -> float:
        logits = (spikes @ changed.T + bias).log_softmax(2)
        return -float(logits[:, torch.arange(len(X)), Y].mean())

    scores = scored(network, "taylor")["fc2.weight"]
    for place in ((0, 0), (1, 3), (2, 4)):
        step = torch.zeros_like(weight)
        step[place] = 1e-4
        slope = (loss(weight + step) - loss(weight - step)) / 2e-4
        assert float(scores[place]) == pytest.approx(abs(float(weight[place]) * slope), rel=1e-3)


def test_sf_loss_bounds_taylor(network: Network) -> None:
    bounds, slopes = scored(network, "sf-loss"), scored(network, "taylor")
    for key, bound in bounds.items():
        assert bool((bound >= slopes[key] * (1 - 1e-6)).all())
        assert float((bound - slopes[key]).max()) > 0


def test_synflow_gives_every_layer_as_much_as_flows(network: Network) -> None:
    assert isinstance(network.module, Two)
    first, second = (
        tensor.detach().double().abs()
        for tensor in (network.module.fc1.weight, network.module.fc2.weight)
    )
    flow = float((second @ first @ torch.ones(4, dtype=torch.float64)).sum()) * STEPS
    for scores in scored(network, "synflow").values():
        assert float(scores.sum()) == pytest.approx(flow, rel=1e-6)
