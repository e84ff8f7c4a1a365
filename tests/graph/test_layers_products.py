"""Layers that are products in somebody's code, each beside the same layer of torch's own."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from layer_twins import CONV, LINEAR, Neuron, Way, spread
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.workload import LayerWork, Workload
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.repair import TuneSettings
from snnprune.pruning.score import Scores
from snnprune.pruning.structure import PatternCutting, parse_structure

WAYS = LINEAR | CONV
PLAIN, WRITTEN = "layer.weight", "layer.w_rec"
SEEN = ("sf", "fisher")  # by statistics, and by gradients of inputs and outputs
THOROUGH = (
    "w @ x.t()",
    "einsum groups",
    "conv_transpose2d of groups and dilation",
)


def shot_at(module: nn.Module, x: Tensor) -> OneShot:
    network = trace(module, x)
    weights = {key: network.weight(key).clone() for key in network.layers}
    return OneShot(network, weights, batches=lambda: iter([(x, None)]))


def network_of(shot: OneShot) -> Network:
    assert shot.network is not None
    return shot.network


@torch.no_grad()
def output(network: Network, x: Tensor) -> Tensor:
    with network.reset_between_batches() as reset:
        reset()
        return network.module(x)


def scores(shot: OneShot, criterion: str) -> Scores:
    return shot.scores(Plan(criterion=criterion, repair="none", allocation="global"))


def work(network: Network, x: Tensor) -> dict[str, LayerWork]:
    found = Workload()
    with observe(network, on_layer=found.on_layer):
        output(network, x)
    return dict(found.layers)


@cache
def twin(name: str) -> tuple[OneShot, OneShot]:
    """The layer of torch's own and the one in question, in the same network."""
    way = WAYS[name]
    return plainly(way.plain, way.size), shot_at(way.written(), way.x())


@cache
def plainly(layer: Callable[[], nn.Module], size: tuple[int, ...]) -> OneShot:
    """A layer of torch's own, that several ways stand beside."""
    way = Way(use=lambda w, _: w, held=lambda w: w, plain=layer, size=size)
    return shot_at(way.plainly(), way.x())


@pytest.fixture(params=WAYS)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Way, OneShot, OneShot]]:
    yield (WAYS[request.param], *twin(request.param))
    if request.param not in THOROUGH:
        twin.cache_clear()


def about(shot: OneShot, key: str) -> dict[str, Any]:
    """What was found, but for the key and how the parameter lies."""
    network = network_of(shot)
    layer = network.layers[key]
    links = [(link.neuron, link.norms, link.gains, link.obstacle) for link in layer.links]
    about = {"links": links, "sources": layer.sources, "groups": layer.groups}
    return about | {
        "encoding": layer.encoding,
        "unseen": layer.unseen,
        "shaped": layer.shaped,
        "axes": [neuron.axis for neuron in network.neurons.values()],
    }


@pytest.mark.many(2)
def test_a_layer_is_found_scored_and_counted_as_its_twin(
    case: tuple[Way, OneShot, OneShot],
) -> None:
    way, plain, written = case
    x = way.x()
    assert torch.allclose(output(network_of(plain), x), output(network_of(written), x), atol=1e-5)
    assert about(written, WRITTEN) == about(plain, PLAIN)
    assert work(network_of(written), x)[WRITTEN] == work(network_of(plain), x)[PLAIN]
    for criterion in SEEN:
        compare(way, scores(plain, criterion), scores(written, criterion))


def compare(way: Way, plain: Scores, written: Scores) -> None:
    assert WRITTEN not in written.fallback
    expected = way.held(plain.values[PLAIN])
    known = expected[expected.isfinite()]  # an input that never spikes has log 0
    assert len(known) > len(expected.flatten()) / 4
    assert float(known.std()) > 0
    torch.testing.assert_close(written.values[WRITTEN], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.many(2)
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "taylor", "obs", "sf-obs", "sf-loss"])
@pytest.mark.parametrize("name", THOROUGH)
def test_criteria_give_scores_in_the_form_of_the_parameter(name: str, criterion: str) -> None:
    plain, written = twin(name)
    compare(WAYS[name], scores(plain, criterion), scores(written, criterion))


@pytest.mark.many(2)
@pytest.mark.parametrize("repair", ["bn", "mean", "lsq", "obs"])
@pytest.mark.parametrize("name", THOROUGH)
def test_repairs_leave_the_same_network_as_of_its_twin(name: str, repair: str) -> None:
    assert_pruned_alike(name, Plan(criterion="magnitude", repair=repair, allocation="local"))


def test_tuning_leaves_the_same_network_as_of_its_twin() -> None:
    short = TuneSettings(steps=20)
    plan = Plan(criterion="magnitude", repair="tune", allocation="local", tuning=short)
    assert_pruned_alike("w @ x.t()", plan)


@pytest.mark.parametrize("name", ["w @ x.t()", "conv_transpose1d"])
def test_a_pattern_lies_along_the_inputs_whatever_the_form(name: str) -> None:
    plan = Plan(criterion="magnitude", repair="lsq", allocation="local")
    mask = assert_pruned_alike(name, plan, pattern="2:4")
    assert float(mask.float().mean()) == 0.5


def assert_pruned_alike(name: str, plan: Plan, pattern: str | None = None) -> Tensor:
    """Masks and outputs of both, once they are pruned; the mask of the layer in question."""
    way, masks, outputs = WAYS[name], [], []
    for shot in twin(name):
        layers = network_of(shot).layers
        cutting = PatternCutting(parse_structure(pattern), layers) if pattern else None
        masks.append(dict(shot.prune(plan, 0.5, cutting, structured=bool(pattern)).masks))
        outputs.append(output(network_of(shot), way.x()))
        held = {key: network_of(shot).module.get_parameter(key) for key in layers}
        assert all(bool((held[key][~masks[-1][key]] == 0).all()) for key in layers)
        shot.restore()
    assert torch.equal(masks[1][WRITTEN], way.held(masks[0][PLAIN]))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-3)
    return masks[1][WRITTEN]


class Spread(nn.Conv2d):
    """A transposed convolution of stride 2 written as a plain one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(spread(x, 2, 1))


def test_a_transposed_convolution_with_a_stride_is_one_over_inputs_set_apart() -> None:
    way = Way(
        use=lambda w, x: functional.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
        held=lambda w: w.transpose(0, 1).flip(2, 3),
        plain=lambda: Spread(8, 12, 3, padding=1, bias=False),
        size=(3, 4),
    )
    x = way.x()
    plain, written = shot_at(way.plainly(), x), shot_at(way.written(), x)
    assert torch.allclose(output(network_of(plain), x), output(network_of(written), x), atol=1e-5)
    mine, other = work(network_of(written), x)[WRITTEN], work(network_of(plain), x)[PLAIN]
    assert (mine.acs, mine.macs) == (other.acs, other.macs)
    assert 0 < mine.acs < mine.dense < other.dense
    for criterion in ("obs", "taylor"):  # rates are over fewer inputs
        compare(way, scores(plain, criterion), scores(written, criterion))
    plan = Plan(criterion="magnitude", repair="lsq", allocation="local")
    outputs = []
    for shot in (plain, written):
        shot.prune(plan, 0.5)
        outputs.append(output(network_of(shot), x))
    first, second = outputs
    assert torch.allclose(first, second, atol=1e-3)


class Mixer(nn.Module):
    """Mixes time steps by a matrix, as a parallel spiking neuron does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.last = (
            nn.Linear(5, 8),
            nn.Parameter(torch.rand(3, 3)),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        current = torch.stack([self.first(x)] * 3)  # (T, N, 8)
        return self.last(((self.mix @ current.flatten(1)).view_as(current) > 0.4).float())


def test_a_matrix_over_time_is_no_layer() -> None:
    network = trace(Mixer(), torch.rand(4, 5))
    assert list(network.layers) == ["first.weight", "last.weight"]


class FeaturesFirst(nn.Module):
    """Two products in a row on (features, N)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w1, self.w2, self.w3 = (nn.Parameter(torch.randn(6, n)) for n in (5, 6, 6))
        self.lif1, self.lif2 = Neuron(), Neuron()

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for _ in range(3):
            spikes = self.lif2(self.w2 @ self.lif1(self.w1 @ x.t()))
            out.append((self.w3 @ spikes).t())
        return torch.stack(out)


def test_products_follow_each_other_with_the_features_first() -> None:
    network = trace(FeaturesFirst(), torch.rand(6, 5))  # as many samples as features
    assert [layer.sources for layer in network.layers.values()] == [(), ("lif1",), ("lif2",)]
    assert {name: neuron.axis for name, neuron in network.neurons.items()} == {
        "lif1": -2,
        "lif2": -2,
    }
