"""What pruning is predicted to do to membranes and spikes, by its formula on plain statistics."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from pruned_networks import BETA, CLASSES, PICTURES, STEPS, batches, lif, made
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.masks import Masks
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import NeuronStatistics
from snnprune.pruning.criteria import Scale
from snnprune.pruning.effects import (
    Crisis,
    ScoreHistogram,
    describe_membranes,
    make_score_histogram,
    predict_flips,
)


def predicted(network: Network, masks: Masks) -> Mapping[str, Crisis]:
    weights = {key: network.weight(key).detach() for key in masks}
    return predict_flips(weights, masks, network, calibrate(network, batches()))


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.6


def crisis(deviation: Tensor, membrane: Tensor, threshold: float) -> Crisis:
    """Of channels (C,) with membranes (C, n): P = N(u_th; mu, var) sqrt(2 / pi) std(du)."""
    mean, var = membrane.mean(1), membrane.var(1, correction=0)
    density = (-((threshold - mean) ** 2) / (2 * var)).exp() / (2 * math.pi * var).sqrt()
    flips = (density * math.sqrt(2 / math.pi) * deviation).clamp(max=1)
    return Crisis(radius=float(deviation.mean()), flips=float(flips.mean()))


def membranes(current: Tensor, threshold: float) -> Tensor:
    """(C, N T) of LIF neurons that a constant current (N, C) drives, before reset."""
    u, seen = torch.zeros_like(current), []
    for _ in range(STEPS):
        u = BETA * u + current
        seen.append(u)
        u = u * (u < threshold)
    return torch.cat(seen).T


def same(found: Crisis, expected: Crisis) -> bool:
    return found.radius == pytest.approx(expected.radius, rel=1e-5) and found.flips == (
        pytest.approx(expected.flips, rel=1e-5)
    )


def test_flips_of_a_linear_layer_are_predicted_by_its_inputs_and_its_membranes() -> None:
    network, x = made("linears"), PICTURES.flatten(1).double()
    layer, mask = network.module.get_submodule("fc1"), drawn(10, 128)
    assert isinstance(layer, nn.Linear)
    found = predicted(network, {"fc1.weight": mask})
    weight = layer.weight.detach().double()
    deviation = ((weight * ~mask) ** 2 @ x.var(0, correction=0)).sqrt()
    membrane = membranes(x @ weight.T + layer.bias.detach().double(), 0.4)
    assert list(found) == ["lif1"]
    assert same(found["lif1"], crisis(deviation, membrane, 0.4))
    assert 0 < found["lif1"].flips < 1


def test_behind_a_batch_norm_an_error_is_as_large_as_its_scale_makes_it() -> None:
    network, x = made("convolved"), PICTURES.double()
    conv, norm = network.module.get_submodule("conv1"), network.module.get_submodule("norm1")
    mask = drawn(4, 2, 3, 3)
    found = predicted(network, {"conv1.weight": mask})["lif1"]
    pruned = conv.get_parameter("weight").detach().double() * ~mask
    spread = x.var((0, 2, 3), correction=0).view(1, 2, 1, 1)
    variance, gamma = norm.get_buffer("running_var").double(), norm.get_parameter("weight").detach()
    deviation = (pruned**2 * spread).sum((1, 2, 3)).sqrt() * gamma.abs() / (variance + 1e-5).sqrt()
    with torch.no_grad():
        current = norm(conv(PICTURES)).double().movedim(1, 3).flatten(0, 2)
    assert same(found, crisis(deviation, membranes(current, 0.4), 0.4))


class TwoWays(nn.Module):
    """Two linear layers into one neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(128, 5), nn.Linear(128, 5), nn.Linear(5, CLASSES)
        self.lif1 = lif()

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last(self.lif1((self.a(x) + self.b(x)).expand(STEPS, -1, -1)))


def test_errors_of_layers_that_drive_one_neuron_are_added_as_variances() -> None:
    torch.manual_seed(0)
    network = trace(TwoWays().eval(), PICTURES[:1])
    a, b = drawn(5, 128), ~drawn(5, 128)
    whole = torch.ones(5, 128, dtype=torch.bool)
    one, other, both = (
        predicted(network, {"a.weight": masks[0], "b.weight": masks[1]})["lif1"]
        for masks in ((a, whole), (whole, b), (a, b))
    )
    weights = [network.weight(f"{name}.weight").detach().double() for name in "ab"]
    spread = PICTURES.flatten(1).double().var(0, correction=0)
    variances = [(w * ~m) ** 2 @ spread for w, m in zip(weights, (a, b), strict=True)]
    roots = [variance.sqrt() for variance in (*variances, sum(variances, torch.zeros(5)))]
    radii = [float(root.mean()) for root in roots]
    assert [each.radius for each in (one, other, both)] == pytest.approx(radii, rel=1e-5)
    assert max(one.flips, other.flips) < both.flips < one.flips + other.flips


def test_where_an_error_lives_longer_it_grows_by_as_much() -> None:
    network = made("linears")
    weights = {"fc1.weight": network.weight("fc1.weight")}
    calibration = calibrate(network, batches())
    seen = calibration.layers["fc1.weight"]
    twice = replace(seen, drives=tuple(replace(drive, time_gain=2.0) for drive in seen.drives))
    one, other = (
        predict_flips(weights, {"fc1.weight": drawn(10, 128)}, network, each)["lif1"]
        for each in (calibration, replace(calibration, layers={"fc1.weight": twice}))
    )
    assert other.radius == pytest.approx(2 * one.radius)


def test_no_weight_lost_flips_nothing_and_all_of_them_no_more_than_every_spike() -> None:
    network = made("linears")
    kept = torch.ones(10, 128, dtype=torch.bool)
    assert predicted(network, {"fc1.weight": kept})["lif1"] == Crisis(radius=0.0, flips=0.0)
    with torch.no_grad():
        network.module.get_parameter("fc1.weight").mul_(1e-3)
        network.module.get_parameter("fc1.bias").fill_(0.4)  # every membrane is at the threshold
    assert predicted(network, {"fc1.weight": ~kept})["lif1"].flips <= 1


def test_layers_of_which_nothing_is_known_are_left_out() -> None:
    network = made("linears")
    calibration = calibrate(network, batches())
    weights = {key: network.weight(key) for key in network.layers}
    masks = {key: torch.zeros(weight.shape, dtype=torch.bool) for key, weight in weights.items()}
    assert list(predict_flips(weights, masks, network, calibration)) == ["lif1"]  # fc2 drives none
    old = {key: replace(seen, input_square=None) for key, seen in calibration.layers.items()}
    assert predict_flips(weights, masks, network, replace(calibration, layers=old)) == {}
    assert predict_flips(weights, masks, network, replace(calibration, layers={})) == {}


def test_a_membrane_is_described_over_all_channels() -> None:
    one = torch.ones(4, dtype=torch.float64)
    neuron = NeuronStatistics(
        firing_rate=torch.tensor([0.0, 1.0, 0.5, 0.1], dtype=torch.float64),
        membrane_mean=one,
        membrane_var=one,
        membrane_histogram=torch.tensor([[1, 2, 0], [0, 3, 4], [5, 0, 0], [0, 1, 0]]),
        threshold=one,
    )
    calibration = replace(calibrate(made("linears"), batches()), neurons={"n": neuron})
    found = describe_membranes(calibration)["n"]
    assert (found.channels, found.silent, found.saturated) == (4, 1, 1)
    assert found.firing_rate == pytest.approx(0.4)
    assert found.histogram == (6, 6, 4)


def test_scores_are_counted_between_the_lowest_and_the_highest() -> None:
    scores = 10.0 ** torch.tensor([0.0, 0.01, 1.0, 2.0, 4.0])
    found = make_score_histogram(scores, torch.tensor([True, False, True, False, True]), "linear")
    assert len(found.edges) == 49
    assert len(found.kept) == len(found.pruned) == 48
    places = [[place for place, n in enumerate(c) if n] for c in (found.kept, found.pruned)]
    assert places == [[0, 12, 47], [0, 24]]  # twelve bins to a power of ten
    assert found.lowest == (0, 0)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_scores_of_any_size_lie_in_their_bins_and_those_worth_nothing_apart(scale: Scale) -> None:
    powers = torch.tensor([-3.0, -0.9, -0.9, 3.0, -math.inf, -math.inf, math.inf])
    scores = 10.0**powers if scale == "linear" else powers * math.log(10)
    kept = torch.tensor([False, True, False, True, True, False, False])
    found = make_score_histogram(scores, kept, scale)
    assert [found.edges[0], found.edges[-1]] == pytest.approx([-3, 3], rel=1e-6)
    places = [[place for place, n in enumerate(c) if n] for c in (found.kept, found.pruned)]
    assert places == [[16, 47], [0, 16]]  # eight bins to a power of ten
    assert (sum(found.kept), sum(found.pruned), found.lowest) == (2, 2, (1, 2))


def test_one_score_alone_has_a_bin_and_none_has_none() -> None:
    one = make_score_histogram(torch.tensor([100.0, 100.0]), torch.tensor([True, False]), "linear")
    assert (one.kept[0], one.pruned[0], sum(one.kept), sum(one.pruned)) == (1, 1, 1, 1)
    assert one.edges[0] == 2 < one.edges[-1]
    none = make_score_histogram(torch.zeros(3), torch.tensor([True, False, False]), "linear")
    assert none == ScoreHistogram(edges=(), kept=(), pruned=(), lowest=(1, 2))
