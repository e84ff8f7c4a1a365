"""Whole channels: which go together, what is 0 then, and the smaller network."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.graph.libraries.library import OWN, NeuronConstants
from snnprune.graph.network import Layer, Link, Network, Neuron, Norm
from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.repair import TuneSettings, silence
from snnprune.pruning.repair.batchnorm import find_batchnorms
from snnprune.pruning.score import Scores, score
from snnprune.pruning.structure.channels import (
    ChannelCutting,
    count_least,
    find_channel_groups,
    find_columns,
)
from snnprune.pruning.structure.compact import resize_module, slim

SPECS = {
    "conv-snn": {"width": 6, "depth": 3, "size": 8, "time_steps": 2, "in_channels": 2},
    "res-snn-19-light": {"size": 8, "time_steps": 1, "in_channels": 2},
    "snn-vgg-16": {"size": 32, "time_steps": 1, "in_channels": 2},
    "6conv2fc": {"size": 8, "time_steps": 1, "in_channels": 2},
}


def network_of(name: str) -> tuple[Network, Tensor]:
    """A built-in network whose statistics and shifts are such that its neurons fire, and images."""
    torch.manual_seed(0)
    module = build_model(ModelSpec(name=name, args=SPECS[name])).eval()
    for norm in find_batchnorms(module).values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.3, 1.2)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, 0.0, 0.1)
        nn.init.uniform_(norm.running_var, 0.05, 0.2)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.uniform_(part.bias, 0.2, 1.2)
    size = int(str(SPECS[name]["size"]))
    x = torch.rand(2, 2, size, size)
    return trace(module, x), x


def cut(network: Network, sparsity: float, *, locally: bool = False) -> ChannelCutting:
    """Cut by magnitude, the module left holding what is left."""
    weights = {key: network.weight(key).clone() for key in network.layers}
    cutting = ChannelCutting(network, locally=locally)
    found = cutting(weights, score(weights, load_criterion("magnitude")), sparsity, None)
    with torch.no_grad():
        for key, mask in found.masks.items():
            network.module.get_parameter(key).mul_(mask)
    silence(network.module, found.silenced)
    return cutting


@pytest.mark.many(1)
@pytest.mark.parametrize("name", SPECS)
def test_the_smaller_network_puts_out_what_the_masked_one_does(name: str) -> None:
    network, x = network_of(name)
    cutting = cut(network, 0.4)
    small = slim(network, network.module.state_dict(), cutting.removed)
    module = resize_module(
        build_model(ModelSpec(name=name, args=SPECS[name])),
        {key: tuple(tensor.shape) for key, tensor in small.items()},
    ).eval()
    module.load_state_dict(small)
    with torch.no_grad():
        whole, part = network.module(x), module(x)
    assert float(whole.std()) > 0
    torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-5)
    count = sum(tensor.numel() for tensor in small.values())
    assert count < 0.7 * sum(tensor.numel() for tensor in network.module.state_dict().values())


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("locally", [False, True])
def test_exactly_as_many_channels_go_as_are_asked_for(sparsity: float, locally: bool) -> None:
    network, _ = network_of("conv-snn")
    removed = cut(network, sparsity, locally=locally).removed
    kept = [int(one.sum()) for one in removed.kept.values()]
    sizes = [len(one) for one in removed.kept.values()]
    floors = [-(-n // 4) for n in sizes]
    assert all(here >= floor for here, floor in zip(kept, floors, strict=True))
    if locally:
        goals = [n - round(sparsity * n) for n in sizes]
        assert kept == [max(floor, goal) for floor, goal in zip(floors, goals, strict=True)]
    else:
        assert sum(kept) == max(sum(floors), sum(sizes) - round(sparsity * sum(sizes)))


def test_the_ranking_of_channels_does_not_depend_on_the_scale_of_a_layer() -> None:
    network, _ = network_of("conv-snn")
    before = cut(network, 0.5).removed
    with torch.no_grad():
        network.module.get_parameter("blocks.0.conv.weight").mul_(1e-3)
    after = cut(network, 0.5).removed
    assert all(torch.equal(after.kept[key], kept) for key, kept in before.kept.items())


def test_what_the_floor_holds_back_is_told() -> None:
    network, _ = network_of("conv-snn")
    cutting = ChannelCutting(network)
    weights = {key: network.weight(key) for key in network.layers}
    scores = Scores(
        criterion="magnitude",
        values={key: weight.abs() for key, weight in weights.items()},
        scale="linear",
        fallback={},
    )
    warnings = cutting(weights, scores, 0.9, None).warnings
    assert any(text.endswith("a quarter of each layer stays") for text in warnings)
    assert sum("the least it may" in text for text in warnings) == 3
    assert not [text for text in cutting(weights, scores, 0.1, None).warnings if "may" in text]


def test_a_removed_channel_never_spikes_and_leaves_the_others_as_they_were() -> None:
    network, x = network_of("conv-snn")
    dense = copy.deepcopy(network.module)
    removed = cut(network, 0.3).removed
    spikes: list[Tensor] = []
    for module in (network.module, dense):
        module.get_submodule("encoder.neuron").register_forward_hook(
            lambda _, __, out: spikes.append(out)
        )
        module(x)
    kept = removed.kept["encoder.conv.weight"]
    assert not spikes[0][:, :, ~kept].any()
    assert torch.equal(spikes[0][:, :, kept], spikes[1][:, :, kept])


class Plain(nn.Module):
    """A BatchNorm without scale and shift, whose mean alone lets its neuron fire; one step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)
        nn.init.constant_(self.norm.get_buffer("running_mean"), -2.0)
        self.neuron, self.fc = LIF(Dynamics()), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.neuron(self.norm(self.conv(x)).unsqueeze(0)).flatten(2))


def test_a_removed_channel_never_spikes_behind_a_norm_without_scale_and_shift() -> None:
    torch.manual_seed(0)
    module, x = Plain().eval(), torch.rand(2, 2, 8, 8)
    kept = cut(trace(module, x), 0.5).removed.kept["conv.weight"]
    spikes = module.neuron(module.norm(module.conv(x)).unsqueeze(0))
    assert int(kept.sum()) == 2
    assert not spikes[:, :, ~kept].any()
    assert spikes[:, :, kept].any()


def test_what_is_added_in_a_residual_block_goes_together() -> None:
    network, _ = network_of("res-snn-19-light")
    groups = {group.layers[0]: group for group in find_channel_groups(network).groups}
    first = groups["blocks.0.conv.weight"]  # 64 to 128 channels: a shortcut, then identities
    assert first.layers == (
        "blocks.0.conv.weight",
        "blocks.0.shortcut.conv.weight",
        "blocks.1.conv.weight",
        "blocks.2.conv.weight",
    )
    assert first.channels == 128
    assert set(first.readers) == {
        "blocks.1.first.conv.weight",
        "blocks.2.first.conv.weight",
        "blocks.3.first.conv.weight",
        "blocks.3.shortcut.conv.weight",
    }


def test_a_quarter_of_the_channels_stays_and_one_at_least() -> None:
    least = {channels: count_least(channels) for channels in (1, 2, 4, 5, 8, 9, 512)}
    assert least == {1: 1, 2: 1, 4: 1, 5: 2, 8: 2, 9: 3, 512: 128}


def test_neurons_that_are_the_output_keep_their_channels() -> None:
    found = find_channel_groups(network_of("6conv2fc")[0])
    assert found.reasons == {"voters.linear.weight": "its spikes are the output"}
    assert "hidden.linear.weight" in [group.layers[0] for group in found.groups]


class Grouped(nn.Module):
    """A plain and a grouped convolution, each with a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2)
        self.first, self.second = LIF(Dynamics()), LIF(Dynamics())
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.a(x).unsqueeze(0))
        return self.last(self.second(self.b(spikes.squeeze(0)).unsqueeze(0)).mean((3, 4)))


def test_a_grouped_convolution_keeps_its_channels_with_that_reason() -> None:
    found = find_channel_groups(trace(Grouped().eval(), torch.rand(1, 2, 8, 8)))
    assert [group.layers for group in found.groups] == [("a.weight",)]
    assert found.reasons == {
        "b.weight": "a grouped convolution",
        "last.weight": "drives no neuron",
    }


class Joined(nn.Module):
    """Spikes of two neurons, added or laid side by side, flattened for a linear layer."""

    def __init__(self, *, adds: bool) -> None:
        super().__init__()
        self.adds = adds
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.first, self.second = LIF(Dynamics()), LIF(Dynamics())
        self.last = nn.Linear(144 if adds else 288, 2)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.a(x).expand(2, 1, 4, 6, 6)), self.second(self.b(x).unsqueeze(0))
        joined = spikes[0] + spikes[1] if self.adds else torch.cat([spikes[0][:1], spikes[1]], 2)
        return self.last(joined.flatten(2))


def test_spikes_that_are_added_go_together_and_spikes_side_by_side_do_not() -> None:
    added, beside = (
        find_channel_groups(trace(Joined(adds=adds).eval(), torch.rand(1, 2, 8, 8))).groups
        for adds in (True, False)
    )
    assert [(group.layers, group.readers) for group in added] == [
        (("a.weight", "b.weight"), ("last.weight",))
    ]
    assert [(group.layers, group.readers, group.mixed) for group in beside] == [
        (("a.weight",), (), ("last.weight",)),
        (("b.weight",), (), ("last.weight",)),
    ]


class Currents(nn.Module):
    """Currents of two layers side by side before one BatchNorm and neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(8)
        self.neuron, self.last = LIF(Dynamics()), nn.Linear(288, 2)

    def forward(self, x: Tensor) -> Tensor:
        current = self.norm(torch.cat([self.a(x), self.b(x)], 1))
        return self.last(self.neuron(torch.stack([current, current])).flatten(2))


def test_layers_whose_currents_are_side_by_side_keep_their_channels_with_that_reason() -> None:
    found = find_channel_groups(trace(Currents().eval(), torch.rand(1, 2, 8, 8)))
    assert found.groups == ()
    reason = "currents of several layers are laid side by side"
    assert [found.reasons[key] for key in ("a.weight", "b.weight")] == [reason, reason]


@pytest.mark.slow
def test_repairs_leave_channels_that_are_gone_silent() -> None:
    network, _ = network_of("conv-snn")
    images = [(torch.rand(16, 2, 8, 8), None) for _ in range(2)]
    weights = {key: network.weight(key).clone() for key in network.layers}
    for repair in ("bn", "mean", "lsq", "obs", "obs+tune"):
        work = OneShot(network, weights, batches=lambda: iter(images))
        cutting = ChannelCutting(network)
        plan = Plan(criterion="magnitude", repair=repair, tuning=TuneSettings(steps=20))
        found = work.prune(plan, 0.4, cutting, structured=True)
        held = network.module.state_dict()
        for key, gone in found.silenced.items():
            if not key.endswith("running_mean"):
                assert not held[key][gone].any(), (repair, key)
        for key, mask in found.masks.items():
            assert not held[key][~mask].any(), (repair, key)
        work.restore()


def test_sizes_are_told_by_the_smaller_layers() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 3))
    small = {
        "0.weight": torch.zeros(5, 2, 3, 3),
        "0.bias": torch.zeros(5),
        **{f"1.{k}": torch.ones(5) for k in ("weight", "bias", "running_mean", "running_var")},
        "3.weight": torch.zeros(3, 20),
    }
    resize_module(module, {key: tuple(tensor.shape) for key, tensor in small.items()})
    sizes = [repr(part) for part in module]
    assert sizes[0].startswith("Conv2d(2, 5,")
    assert sizes[1].startswith("BatchNorm2d(5,")
    assert sizes[3].startswith("Linear(in_features=20, out_features=3,")
    assert module(torch.rand(1, 2, 4, 4)).shape == (1, 3)


@pytest.mark.parametrize("shape", [(7, 4, 3, 3), (5, 4, 1, 1), (5, 4)])
def test_what_is_no_part_of_a_layer_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot be a part of"):
        resize_module(nn.Sequential(nn.Conv2d(4, 6, 3)), {"0.weight": shape})


def test_the_inputs_of_a_channel_are_its_places_next_to_each_other() -> None:
    kept = torch.tensor([True, False, True])

    def columns(*shape: int) -> list[bool] | None:
        found = find_columns(kept, torch.zeros(shape))
        return None if found is None else found.tolist()

    assert columns(4, 3) == columns(4, 3, 5) == columns(4, 3, 5, 5) == [True, False, True]
    assert columns(4, 6) == [True, True, False, False, True, True]
    assert columns(4, 7) is None
    assert columns(4, 2) is None
    assert columns(4, 6, 5) is None  # only a linear layer comes after a flattening
    assert columns(4, 6, 5, 5) is None


def test_the_score_of_a_channel_is_the_mean_of_its_weights() -> None:
    network, _ = network_of("conv-snn")
    weights = {key: network.weight(key).clone() for key in network.layers}
    sizes = weights["encoder.conv.weight"].abs().flatten(1).mean(1)
    removed = cut(network, 0.34, locally=True).removed
    lowest = set(sizes.argsort()[: math.floor(0.34 * 6 + 0.5)].tolist())
    assert {*(~removed.kept["encoder.conv.weight"]).nonzero().flatten().tolist()} == lowest


class TwoWays(nn.Module):
    """Two linear layers of 4 and 8 inputs drive one neuron of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 3), nn.Linear(8, 3), nn.Linear(3, 2)
        self.neuron = LIF(Dynamics())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neuron((self.a(x[:, :4]) + self.b(x)).unsqueeze(0)))


def kept_by(values: dict[str, Tensor], sparsity: float) -> list[bool]:
    network = trace(TwoWays().eval(), torch.rand(2, 8))
    cutting = ChannelCutting(network)
    weights = {key: network.weight(key) for key in network.layers}
    values = {"last.weight": torch.ones(2, 3), **values}
    cutting(weights, Scores(criterion="any", values=values, scale="linear"), sparsity, None)
    (kept,) = cutting.removed.kept.values()
    return kept.tolist()


def test_layers_of_any_width_count_alike_in_the_score_of_a_channel() -> None:
    a, b = torch.tensor([3.0, 0.2, 9.0]), torch.tensor([1.0, 2.5, 9.0])  # means 2, 1.35 and 9
    values = {"a.weight": a.view(3, 1).expand(3, 4), "b.weight": b.view(3, 1).expand(3, 8)}
    assert kept_by(values, 0.34) == [True, False, True]


def test_channels_that_are_worth_nothing_go_first_and_one_stays() -> None:
    values = {"a.weight": torch.zeros(3, 4), "b.weight": torch.zeros(3, 8)}
    assert kept_by(values, 0.34) == [False, True, True]
    assert kept_by(values, 0.9) == [False, False, True]
    values["b.weight"] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1).expand(3, 8)
    assert kept_by(values, 0.67) == [False, True, False]


def linked(*, gated: bool = False, outputs: tuple[str, ...] = (), **link: Any) -> Network:
    """A layer that drives one neuron in that way, and one that reads its spikes."""
    made = Layer(
        weight="a.weight",
        kind="linear",
        shape=(4, 2),
        encoding=True,
        links=(Link(neuron="lif", **link),),
    )
    reader = Layer(weight="b.weight", kind="linear", shape=(3, 4), encoding=False, sources=("lif",))
    neuron = Neuron(
        name="lif",
        module=nn.Identity(),
        library=OWN,
        constants=NeuronConstants(threshold=1.0),
        feeders=("a.weight",),
        gated=gated,
    )
    layers = {layer.weight: layer for layer in (made, reader)}
    return Network(module=nn.Identity(), layers=layers, neurons={"lif": neuron}, outputs=outputs)


BY_HAND = Norm(scale=None, variance="norm.running_var", eps=None)
CALLED = replace(BY_HAND, eps=1e-5)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({}, None),
        ({"norms": ((CALLED,),)}, None),
        ({"moved": True}, "its dimensions change places"),
        ({"beside": True}, "currents of several layers are laid side by side"),
        ({"obstacle": "tanh"}, "tanh stands before the neuron"),
        ({"gated": True}, "something else decides whether its neuron spikes"),
        ({"outputs": ("lif",)}, "its spikes are the output"),
        ({"norms": ((CALLED,), (BY_HAND,))}, "its normalisation is written by hand"),
    ],
)
def test_a_layer_keeps_its_channels_where_they_cannot_go_alone(
    how: dict[str, Any], reason: str | None
) -> None:
    network = linked(**how)
    found = find_channel_groups(network)
    assert found.reasons.get("a.weight") == reason
    assert [group.layers for group in found.groups] == ([] if reason else [("a.weight",)])
    if reason is not None:
        with pytest.raises(InputError, match=r"no channel can be removed: [ab]\.weight: "):
            ChannelCutting(network)
        return
    (group,) = found.groups
    assert (group.readers, group.mixed, group.channels) == (("b.weight",), (), 4)
    assert group.norms == (("norm.running_var",) if "norms" in how else ())


def test_layers_of_different_width_into_one_neuron_keep_their_channels() -> None:
    network = linked()
    layers = dict(network.layers)
    layers["c.weight"] = replace(layers["a.weight"], weight="c.weight", shape=(1, 2))
    found = find_channel_groups(replace(network, layers=layers))
    reason = "layers of different width drive the same neuron"
    assert {found.reasons[key] for key in ("a.weight", "c.weight")} == {reason}


@pytest.mark.parametrize("locally", [False, True])
def test_a_group_of_which_a_layer_is_left_out_keeps_its_channels(locally: bool) -> None:
    network = joined(linked(), "lif", "other")
    weights = {key: torch.rand(layer.shape) + 0.1 for key, layer in network.layers.items()}
    scores = Scores(values=weights, criterion="magnitude", scale="linear")
    cutting = ChannelCutting(network, locally=locally)
    few = {key: weight for key, weight in weights.items() if key != "a.weight"}
    found = cutting(few, scores, 0.5, None)
    assert bool(found.masks["b.weight"].all())
    assert found.warnings == ("a.weight keeps its channels: a layer of its group is left out",)
    assert cutting.removed.counts() == {"other a.weight": {"kept": 2, "of": 4}}
    of_other = {key: few[key] for key in few if key != "other a.weight"}
    with pytest.raises(InputError) as caught:
        cutting(of_other, scores, 0.5, None)
    assert str(caught.value) == (
        "--structure: no channel can be removed: a.weight: a layer of its group is left out"
    )


def joined(network: Network, neuron: str, other: str) -> Network:
    """With the same again beside it, under other names."""
    layers = dict(network.layers)
    for layer in network.layers.values():
        weight = f"{other} {layer.weight}"
        ways = tuple(replace(link, neuron=other) for link in layer.links)
        sources = (other,) if layer.sources else ()
        layers[weight] = replace(layer, weight=weight, links=ways, sources=sources)
    neurons = dict(network.neurons)
    neurons[other] = replace(neurons[neuron], name=other, feeders=(f"{other} a.weight",))
    return replace(network, layers=layers, neurons=neurons)


class Learnt(nn.Module):
    """A neuron with a decay for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.2, 0.9, channels).view(-1, 1, 1))

    def forward(self, current: Tensor) -> Tensor:
        u, spikes = torch.zeros_like(current), []
        for _ in range(3):
            u = self.decay * u + current
            spikes.append((u > 0.3).float())
            u = u * (1 - spikes[-1])
        return torch.stack(spikes)


class Learning(nn.Module):
    """As many channels in both convolutions; the second neuron is that of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3)
        self.lif1, self.lif2, self.out = Learnt(8), Learnt(8), nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.a(x)).mean(0)
        return self.out(self.lif2(self.b(spikes)).flatten(2))


def test_values_that_a_neuron_has_by_channel_get_smaller_with_it() -> None:
    torch.manual_seed(0)
    module, x = Learning().eval(), 2 * torch.rand(2, 2, 8, 8)
    network = trace(module, x)
    decays = {name: module.get_parameter(f"{name}.decay").detach() for name in ("lif1", "lif2")}
    cutting = cut(network, 0.5)
    small = slim(network, module.state_dict(), cutting.removed)
    kept = [cutting.removed.of(group) for group in cutting.removed.groups]
    assert len(kept) == 2
    assert not torch.equal(*kept)
    for (name, decay), stay in zip(decays.items(), kept, strict=True):
        assert torch.equal(small[f"{name}.decay"], decay[stay])
    expected = module(x)
    smaller = resize_module(Learning().eval(), {k: tuple(t.shape) for k, t in small.items()})
    smaller.load_state_dict(small)
    torch.testing.assert_close(smaller(x), expected)
