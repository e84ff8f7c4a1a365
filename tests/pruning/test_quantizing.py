"""Quantizing whole networks: what is pruned stays so, and the others make up for the rounding."""

from dataclasses import replace

import pytest
import torch
from pruned_networks import (
    BETA,
    CLASSES,
    NETWORKS,
    PICTURES,
    STEPS,
    batches,
    entering,
    lif,
    made,
)
from repairing import cut, pruned, surroundings
from torch import Tensor, nn
from torch.nn import functional

from snnprune.data.batches import Batches
from snnprune.errors import UsageError
from snnprune.graph.state import copy_tensors
from snnprune.graph.trace import trace
from snnprune.pruning.criteria.obs import RIDGE
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.repair import Pruned, layerwise, load_repairs
from snnprune.pruning.repair.layerwise import refit
from snnprune.pruning.repair.quantize import choose_scales, quantize, quantize_by_rounding
from snnprune.pruning.structure import PatternCutting, parse_structure


def weights_of(of: Pruned) -> dict[str, Tensor]:
    return {key: of.network.module.get_parameter(key).detach().clone() for key in of.masks}


@pytest.mark.many(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_pruned_stays_so_and_the_rest_is_on_its_grid(name: str) -> None:
    of = pruned(name, 0.4)
    refit(of)
    before = surroundings(of.network.module)
    found = quantize(of, 4)
    assert surroundings(of.network.module) == before
    assert list(found.weights) == list(of.masks)
    costs = []
    for key, weight in weights_of(of).items():
        held, layer = found.weights[key], found.layers[key]
        assert torch.equal(weight, held.integers * held.scale)
        assert torch.equal((weight / held.scale).round(), held.integers.float())
        assert held.integers.abs().max() <= 7
        assert not weight[~of.masks[key]].any()
        assert held.scale.numel() == of.network.layers[key].shape[0]
        assert layer.reason is None
        assert layer.kept - layer.zeros == int((weight != 0).sum())
        assert layer.lost is not None
        assert layer.lost_by_rounding is not None
        costs.append((layer.lost, layer.lost_by_rounding))
    assert all(lost <= plain for lost, plain in costs)  # equal where nothing enters a layer
    assert sum(lost for lost, _ in costs) < 0.8 * sum(plain for _, plain in costs)


def covariance(x: Tensor) -> Tensor:
    x = x.double() - x.double().mean(0)
    return x.T @ x / len(x)


def obq(matrix: Tensor, weight: Tensor, keep: Tensor, scale: float, bits: int) -> Tensor:
    """One row by the order of OBQ, its inverse taken anew after each weight."""
    raised = matrix + RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix))
    free = keep.nonzero().flatten().tolist()
    weight, found = weight.double().clone(), torch.zeros(len(weight))
    most = 2 ** (bits - 1) - 1
    while free:
        inverse = torch.linalg.inv(raised[free][:, free])
        nearest = (weight[free] / scale).round().clamp(-most, most)
        error = weight[free] - nearest * scale
        first = int((error**2 / inverse.diagonal()).argmin())
        found[free[first]] = nearest[first]
        weight[free] -= error[first] / inverse[first, first] * inverse[:, first]
        free.pop(first)
    return found


@pytest.mark.parametrize("name", ["convolved", "SpikingJelly at once"])
def test_the_first_layer_is_put_on_its_grid_by_what_the_membrane_adds_up(name: str) -> None:
    of = pruned(name, 0.6)
    weight, mask = weights_of(of)["conv1.weight"].flatten(1), of.masks["conv1.weight"].flatten(1)
    found = quantize(of, 3).weights["conv1.weight"]
    conv = of.network.module.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(conv.padding, tuple)
    rows = functional.unfold(PICTURES, conv.kernel_size, padding=conv.padding, stride=conv.stride)
    seen = rows.transpose(1, 2).flatten(0, 1)
    if name != "convolved":  # it sees each picture at every step
        gains = torch.tensor([sum(BETA**s for s in range(t + 1)) for t in range(STEPS)])
        seen = (gains.view(-1, 1, 1) * seen).flatten(0, 1)
    matrix, scales = covariance(seen), choose_scales(weight, 3)
    for row, integers in enumerate(found.integers.flatten(1)):
        expected = obq(matrix, weight[row], mask[row], float(scales[row]), 3)
        plain = (weight[row] / scales[row]).round()
        costs = [
            float((e := (k * scales[row] - weight[row]).double()) @ matrix @ e)
            for k in (expected, plain)
        ]
        assert torch.equal(integers.float(), expected if costs[0] <= costs[1] else plain)


@pytest.mark.many(1)
@pytest.mark.parametrize(
    ("name", "last"),
    [("snnTorch", "fc1"), ("SpikingJelly at once", "fc"), ("SpikingJelly stepwise", "fc")],
)
def test_later_layers_make_up_for_what_earlier_ones_lost(name: str, last: str) -> None:
    """The current of a later layer is nearer to that of the float network, with other spikes
    entering it, than by rounding all."""
    of = pruned(name, 0.6)
    refit(of)
    module = of.network.module

    def current() -> Tensor:
        layer = module.get_submodule(last)
        with torch.no_grad():
            return torch.stack([layer(x) for x in entering(module, last)])

    before, weights = current(), weights_of(of)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    rounded = quantize_by_rounding(weights, of.masks, 3, reasons=dict.fromkeys(of.masks, ""))
    with torch.no_grad():
        for key, held in rounded.weights.items():
            module.get_parameter(key).copy_(held.multiply())
    by_rounding = (current() - before).square().mean()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(state[key])
    quantize(of, 3)
    assert (current() - before).square().mean() < 0.7 * by_rounding


def ready(name: str = "convolved") -> OneShot:
    network = made(name)
    weights = {key: network.weight(key).clone() for key in network.layers}
    return OneShot(network, weights, batches=batches)


PLAN = Plan(criterion="magnitude", repair="lsq", bits=4)


def test_the_same_plan_gives_the_same_integers_and_the_dense_network_comes_back() -> None:
    one = ready()
    found = []
    for _ in range(2):
        one.prune(PLAN, 0.5)
        assert one.quantized is not None
        found.append(one.quantized.weights)
    assert all(torch.equal(found[0][key].integers, found[1][key].integers) for key in found[0])
    assert all(torch.equal(found[0][key].scale, found[1][key].scale) for key in found[0])
    one.restore()
    assert one.quantized is None
    assert one.tensors() == {}


@pytest.mark.slow
def test_what_was_pruned_and_repaired_is_quantized_at_last() -> None:
    one, other = ready(), ready()
    one.prune(PLAN, 0.5)
    masks = other.prune(replace(PLAN, bits=None), 0.5).masks
    assert one.network is not None
    assert other.network is not None
    assert other.quantized is None
    assert one.quantized is not None
    dense = copy_tensors(other.network.module)
    expected = quantize(
        Pruned(network=other.network, dense=dense, masks=masks, batches=Batches(begin=batches)), 4
    )
    assert all(layer.reason is None for layer in one.quantized.layers.values())
    for key, held in expected.weights.items():
        assert torch.equal(one.quantized.weights[key].integers, held.integers)
        assert torch.equal(one.network.weight(key), held.multiply())


def test_nothing_pruned_is_quantized_too() -> None:
    one = ready("linears")
    found = one.prune(PLAN, 0.0)
    assert one.quantized is not None
    assert all(bool(mask.all()) for mask in found.masks.values())
    assert one.tensors().keys() >= one.quantized.weights.keys()


def test_a_pattern_holds_on_the_grid() -> None:
    one = ready("linears")
    assert one.network is not None
    cutting = PatternCutting(parse_structure("2:4"), one.network.layers)
    found = one.prune(PLAN, 0.5, cutting, structured=True)
    assert one.quantized is not None
    kept = one.quantized.weights["fc1.weight"].integers != 0
    assert bool((kept.unflatten(1, (-1, 4)).sum(-1) <= 2).all())
    assert not kept[~found.masks["fc1.weight"]].any()


def test_weights_without_a_network_are_rounded_and_it_is_said() -> None:
    weights = {"a.weight": torch.randn(6, 4, 3, 3), "b.weight": torch.randn(5, 6).half()}
    one = OneShot(None, weights)
    one.prune(Plan(criterion="magnitude", bits=8), 0.5)
    assert one.quantized is not None
    for key, held in one.quantized.weights.items():
        assert torch.equal(one.tensors()[key], held.multiply().to(weights[key].dtype))
        assert held.scale.shape == (len(weights[key]), *[1] * (weights[key].dim() - 1))
        scale = weights[key].flatten(1).abs().amax(1) / 127
        torch.testing.assert_close(held.scale.flatten(), scale.float(), rtol=1e-3, atol=0)
        assert one.quantized.layers[key].reason == "there is no network"
        assert one.quantized.layers[key].lost is None


def test_weights_without_images_are_rounded_in_the_network_and_it_is_said() -> None:
    network = made("convolved")
    weights = {key: network.weight(key).clone() for key in network.layers}
    one = OneShot(network, weights)
    cut = one.prune(Plan(criterion="magnitude", bits=4), 0.5)
    assert one.quantized is not None
    for key, held in one.quantized.weights.items():
        masked = (weights[key] * cut.masks[key]).flatten(1)
        scales = choose_scales(masked, 4)
        expected = (masked / scales).round().clamp(-7, 7) * scales
        assert torch.equal(network.weight(key).flatten(1), expected)
        assert torch.equal(network.weight(key), held.multiply())
        assert one.quantized.layers[key].reason == "there are no samples"


@pytest.mark.parametrize(
    ("bits", "dtype"), [(2, torch.int8), (8, torch.int8), (9, torch.int16), (16, torch.int16)]
)
def test_integers_of_up_to_8_bits_are_bytes(bits: int, dtype: torch.dtype) -> None:
    weights = {"a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    masks = {"a": torch.ones(3, 4, dtype=torch.bool)}
    found = quantize_by_rounding(weights, masks, bits, reasons={"a": "so"}).weights["a"]
    assert found.integers.dtype == dtype
    assert int(found.integers.abs().max()) == 2 ** (bits - 1) - 1
    assert found.scale.dtype == torch.float32


class EndsNormalised(nn.Module):
    """A BatchNorm behind the last layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(128, 10), nn.Linear(10, CLASSES, bias=False)
        self.norm, self.lif1, self.lif2 = nn.BatchNorm1d(CLASSES), lif(), lif()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.fc1(x.flatten(1)).expand(STEPS, -1, -1))
        current = self.norm(self.fc2(spikes).flatten(0, 1))
        return self.lif2(current.unflatten(0, (STEPS, -1)))


@pytest.mark.parametrize("repair", ["lsq", "obs", "quantize"])
def test_a_norm_behind_the_last_layer_puts_out_what_it_did(repair: str) -> None:
    torch.manual_seed(2)
    network = trace(EndsNormalised().eval(), PICTURES[:1])
    norm, seen = network.module.get_submodule("norm"), list[Tensor]()

    def moments() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            network.module(PICTURES)
        return seen[-1].mean(0), seen[-1].var(0, correction=0)

    norm.register_forward_hook(lambda _, __, out: seen.append(out))
    before = moments()
    of = cut(network, {key: torch.rand(network.weight(key).shape) < 0.6 for key in network.layers})
    if repair == "quantize":
        before = moments()  # it goes by the network as it was given
        quantize(of, 3)
    else:
        for one in load_repairs(repair):
            one(of)
    torch.testing.assert_close(moments(), before, rtol=1e-4, atol=1e-5)


def test_a_layer_that_cannot_be_gone_through_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfitted(*_: object) -> dict[str, str]:
        return {"fc2.weight": "it is applied in two forms"}

    for module in ("snnprune.pruning.repair.quantize", layerwise.__name__):
        monkeypatch.setattr(f"{module}.explain_unfitted", unfitted)
    of = pruned("linears")
    weight = weights_of(of)["fc2.weight"]
    found = quantize(of, 4)
    assert found.layers["fc2.weight"].reason == "it is applied in two forms"
    assert found.layers["fc1.weight"].reason is None
    scales = choose_scales(weight, 4)
    assert torch.equal(found.weights["fc2.weight"].integers, (weight / scales).round().char())


class Product(nn.Module):
    """A grouped convolution, and a weight that lies as (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.weight = nn.Parameter(torch.randn(4 * 64, CLASSES) / 8)
        self.lif1, self.lif2 = lif(), lif()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.conv(x).expand(STEPS, -1, -1, -1, -1)).flatten(2)
        return self.lif2(spikes @ self.weight)


def test_the_grid_of_a_weight_is_by_output_channel_however_it_lies() -> None:
    torch.manual_seed(1)
    network = trace(Product().eval(), PICTURES[:1])
    of = cut(network, {key: torch.rand(network.weight(key).shape) < 0.5 for key in network.layers})
    found = quantize(of, 4)
    assert found.weights["weight"].scale.shape == (1, CLASSES)
    assert found.weights["conv.weight"].scale.shape == (4, 1, 1, 1)
    for key, weight in weights_of(of).items():
        held, layer = found.weights[key], found.layers[key]
        assert torch.equal(weight, held.integers * held.scale)
        assert not weight[~of.masks[key]].any()
        assert layer.lost is not None
        assert layer.lost_by_rounding is not None
        assert layer.lost < layer.lost_by_rounding


@pytest.mark.parametrize("bits", [1, 17, 0, -4])
def test_a_grid_that_is_none_is_refused(bits: int) -> None:
    with pytest.raises(UsageError, match="outside 2 to 16"):
        ready().prune(Plan(criterion="magnitude", bits=bits), 0.5)
