"""Layers that are products in somebody's code, each beside the same layer of torch's own."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from layer_twins import CALLS, CONV, LINEAR, TRANSPOSED, Neuron, Way, spread
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.calls import drop_repeats
from snnprune.graph.hooks import observe
from snnprune.graph.layer_calls import find_addend, iter_candidates
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


@pytest.mark.many(20)
# the weight of a transposed convolution is that of another, mirrored
@pytest.mark.many(8)
@pytest.mark.parametrize("name", [name for name in WAYS if "transpose" not in name])
def test_a_weight_in_any_form_is_that_of_the_layer_that_it_makes(name: str) -> None:
    way = WAYS[name]
    plain, written = plainly(way.plain, way.size), shot_at(way.written(), way.x())
    assert about(written, WRITTEN) == about(plain, PLAIN)
    layer = network_of(written).layers[WRITTEN]
    plain_shape = network_of(plain).layers[PLAIN].shape
    numbers = torch.arange(torch.Size(plain_shape).numel()).view(plain_shape)
    weight = layer.weight_of(way.held(numbers))
    assert weight.shape == layer.shape
    assert torch.equal(weight.flatten(), numbers.flatten())
    assert torch.equal(layer.parameter_of(weight), way.held(numbers))


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


@pytest.mark.many(1)
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


@pytest.mark.slow
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


PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], Any]] = {
    # what is called, the shapes of input and weight, the axis of the channels if it is one
    "matmul": (torch.matmul, (3, 4, 5), (5, 6), -1),
    "mv": (torch.mv, (5,), (6, 5), -1),
    "addmm": (torch.addmm, (4, 5), (5, 6), -1),
    "addmv": (torch.addmv, (5,), (6, 5), -1),
    "tensordot 1": (torch.tensordot, (4, 5), (5, 6), -1),
    "tensordot 2": (torch.tensordot, (4, 5, 2), (5, 2, 6), -1),
    "tensordot [[1], [1]]": (torch.tensordot, (4, 5), (6, 5), -1),
    "tensordot [[-1], [0]]": (torch.tensordot, (4, 3, 5), (5, 6, 2), None),
    "ni,io->no": (torch.einsum, (4, 5), (5, 6), -1),
    "ni,io->on": (torch.einsum, (4, 5), (5, 6), -2),
    "nti,io->not": (torch.einsum, (4, 3, 5), (5, 6), -2),
    "ai,ij": (torch.einsum, (4, 5), (5, 6), -1),
    "...i,oi->...o": (torch.einsum, (3, 4, 5), (6, 5), -1),
    "ni,ihd->nhd": (torch.einsum, (4, 5), (5, 3, 2), None),
    "nhd,hdo->no": (torch.einsum, (4, 3, 2), (3, 2, 6), -1),
    "nab,bpaq->nqp": (torch.einsum, (4, 3, 2), (2, 5, 3, 6), None),
    "hbd,hde->hbe": (torch.einsum, (2, 4, 5), (2, 5, 6), None),
}


def call_product(name: str, function: Any, x: Tensor, weight: Tensor) -> tuple[Any, ...]:
    """The arguments of the call."""
    first = [weight, x] if name in ("mv", "addmv") else [x, weight]
    if function is torch.einsum:
        return (name, *first)
    if function is torch.tensordot:
        return (*first, json.loads(name.partition(" ")[2]))
    return (torch.zeros(6), *first) if name.startswith("add") else (*first,)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_read_as_the_linear_layer_that_it_is(name: str) -> None:
    function, size, shape, channels = PRODUCTS[name]
    x, weight = torch.rand(size), torch.rand(shape)
    args = call_product(name, function, x, weight)
    made = function(*args)
    (one,) = [found for found in iter_candidates(function, args, {}) if found.raw is weight]
    call = one.read()
    rows = call.arranged(made)
    assert rows.shape[-1] == len(call.weight)
    expected = call.apply_weight(call.samples, call.weight)
    torch.testing.assert_close(rows.reshape(-1, rows.shape[-1]), expected)
    torch.testing.assert_close(call.returned(rows), made)
    assert call.channels == channels
    numbers, known = call.numbers(made), torch.arange(len(call.weight), dtype=torch.int32)
    assert numbers.shape == made.shape
    assert torch.equal(call.arranged(numbers), known.expand(rows.shape))
    assert torch.equal(one.layout.weight(weight), call.weight)


NAMES = {
    torch.matmul: ("input", "other"),
    torch.mm: ("input", "mat2"),
    torch.bmm: ("input", "mat2"),
    torch.mv: ("input", "vec"),
    torch.addmm: ("input", "mat1", "mat2"),
    torch.baddbmm: ("input", "batch1", "batch2"),
    torch.addmv: ("input", "mat", "vec"),
}


@pytest.mark.parametrize("function", NAMES, ids=lambda function: function.__name__)
def test_a_product_may_have_any_of_its_factors_by_name(function: Callable[..., Tensor]) -> None:
    names = NAMES[function]
    weight, x = torch.rand(6, 5), torch.rand(5)
    factors = [weight, x]  # of a matrix and a vector, else of rows and a matrix
    if "vec" not in names:
        weight, x = torch.rand(5, 6), torch.rand(4, 5)
        if "bmm" in function.__name__:
            weight, x = weight[None], x[None]
        factors = [x, weight]
    values = [torch.ones(6)] * (len(names) - 2) + factors
    for count in range(len(names) + 1):
        args, named = values[:count], dict(zip(names[count:], values[count:], strict=True))
        product = function(*args, **named) - float(len(names) - 2)
        found = [one for one in iter_candidates(function, (*args,), named) if one.raw is weight]
        assert len(found) == 1
        call = found[0].read()
        given = call.apply_weight(call.samples, call.weight)
        torch.testing.assert_close(call.arranged(product).reshape(given.shape), given)
        addend = find_addend(function, (*args,), named)
        assert addend is (values[0] if len(names) > 2 else None)


@pytest.mark.parametrize(
    ("equation", "groups"),
    [
        ("ni,nio->no", [4]),  # for each sample a group
        ("ni,io->nio", []),  # adds nothing up
        ("ni,io->o", []),  # adds up over the samples
        ("ni,ii->ni", []),  # takes a diagonal
    ],
)
def test_a_product_of_another_form_has_groups_or_is_no_layer(
    equation: str, groups: list[int]
) -> None:
    length = {"n": 4, "i": 5, "o": 6}
    terms = equation.partition("->")[0].split(",")
    x, weight = (torch.rand([length[one] for one in term]) for term in terms)
    found = list(iter_candidates(torch.einsum, (equation, x, weight), {}))
    assert [one.read().groups for one in found if one.raw is weight] == groups


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_a_convolution_is_read_with_its_channels_before_the_space(space: int, back: bool) -> None:
    function: Any = (TRANSPOSED if back else CALLS)[space - 1]
    x, kernel = torch.rand(2, 4, *[5] * space), [3] * space
    weight = torch.rand(4, 3, *kernel) if back else torch.rand(6, 2, *kernel)
    given: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}
    made = function(x, weight, **given)
    (one,) = iter_candidates(function, (x, weight), given)
    call = one.read()
    assert call.weight.shape == (6, 2, *kernel)
    torch.testing.assert_close(call.apply_weight(call.samples, call.weight), made)
    assert call.channels == -1 - space
    numbers = torch.arange(6, dtype=torch.int32).view(6, *[1] * space)
    assert torch.equal(call.numbers(made), numbers.expand(made.shape))
    assert torch.equal(call.numbers(made[0]), numbers.expand(made[0].shape))


@pytest.mark.parametrize("times", [2, 3])
def test_dimensions_along_which_a_weight_is_repeated_are_no_part_of_it(times: int) -> None:
    weight = torch.rand(4, 5)
    for raw, places in (
        (weight.expand(times, 4, 5), [1, 2]),
        (weight.unsqueeze(1).expand(4, times, 5), [0, 2]),
        (weight.unsqueeze(2).expand(4, 5, times), [0, 1]),
        (weight, [0, 1]),
    ):
        kept, found = drop_repeats(raw)
        assert torch.equal(kept, weight)
        assert found == places


def test_a_dimension_of_one_is_a_part_of_a_weight() -> None:
    one = torch.rand(5).expand(3, 5)[:1]  # it lies as if it were repeated
    assert one.stride(0) == 0
    kept, found = drop_repeats(one)
    assert torch.equal(kept, one)
    assert found == [0, 1]


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
