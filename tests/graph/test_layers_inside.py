"""Layers inside of torch's own attention and recurrent cells, and parameters with several uses."""

from typing import Any

import pytest
import torch
from layer_twins import Neuron
from test_layers_products import network_of, output, scores, shot_at
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.trace import trace
from snnprune.jobs.prune.methods import list_unfitted
from snnprune.pruning.oneshot import Plan

STEPS = 3


class Attending(nn.Module):
    """Spikes of one or two neurons attend to each other, (N, tokens, 8)."""

    def __init__(self, *, crossed: bool, by_hand: bool = False, **given: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.crossed, self.by_hand = crossed, by_hand
        width = given.get("kdim", 8)
        self.first, self.other, self.last = nn.Linear(5, 8), nn.Linear(5, width), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **given)
        self.norm = nn.BatchNorm1d(8)
        self.lif1, self.lif2, self.lif3 = Neuron(), Neuron(), Neuron()
        for layer in (self.first, self.other):
            nn.init.uniform_(layer.weight, -1, 1)
        nn.init.constant_(self.norm.bias, 0.3)

    def attended(self, query: Tensor, key: Tensor) -> Tensor:
        """As `nn.MultiheadAttention` says it does, where it is written out."""
        one = self.attention
        if not self.by_hand:
            return one(query, key, key, need_weights=False)[0]
        weights, biases = one.in_proj_weight.chunk(3), one.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, w, b).unflatten(2, (2, 4)).transpose(1, 2)
            for x, w, b in zip((query, key, key), weights, biases, strict=True)
        )
        mixed = (q @ k.mT / 2).softmax(-1) @ v
        return one.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for _ in range(STEPS):
            query = self.lif1(self.first(x))
            key = self.lif2(self.other(x)) if self.crossed else query
            made = self.norm(self.attended(query, key).transpose(1, 2)).transpose(1, 2)
            out.append(self.last(self.lif3(made).mean(1)))
        return torch.stack(out)


X = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(1))
FIRST, OTHER, LAST = "first.weight", "other.weight", "last.weight"
IN, OUT = "attention.in_proj_weight", "attention.out_proj.weight"
APART = [f"attention.{one}_proj_weight" for one in "qkv"]


@pytest.mark.parametrize("given", [{}, {"bias": False}])
def test_projections_of_attention_are_layers(given: dict[str, bool]) -> None:
    network = trace(Attending(crossed=False, **given).eval(), X)
    assert list(network.layers) == [FIRST, IN, OUT, LAST]
    assert network.layers[IN].sources == ("lif1",)
    assert [link.neuron for link in network.layers[OUT].links] == ["lif3"]
    assert network.layers[OUT].normalised


def test_separate_projections_of_attention_are_layers_of_their_own() -> None:
    network = trace(Attending(crossed=True, kdim=6, vdim=6).eval(), X)
    assert list(network.layers) == [FIRST, OTHER, *APART, OUT, LAST]
    assert [network.layers[key].sources for key in APART] == [("lif1",), ("lif2",), ("lif2",)]


def test_attention_is_scored_and_repaired_as_where_it_is_written_out() -> None:
    """There a piece of the weight is applied at a time; the output projection is the same."""
    shots = [shot_at(Attending(crossed=False, by_hand=one).eval(), X) for one in (False, True)]
    first, second = (output(network_of(shot), X) for shot in shots)
    assert torch.allclose(first, second, atol=1e-5)
    for criterion in ("sf", "obs", "taylor"):
        one, other = (scores(shot, criterion).values[OUT] for shot in shots)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    written = network_of(shots[1])
    assert written.layers[IN].unseen
    gradients = [scores(shot, "taylor") for shot in shots]  # through whatever applies it
    torch.testing.assert_close(*(one.values[IN] for one in gradients), rtol=1e-3, atol=1e-6)
    assert IN not in gradients[1].fallback


CELLS = {
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
    "RNNCell": "rnn_tanh_cell",
    "LSTM": "lstm",
    "GRU": "gru",
}


class Gated(nn.Module):
    """A cell of torch's behind spikes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.cell, self.last = nn.Linear(5, 8), getattr(nn, kind)(8, 7), nn.Linear(7, 4)
        self.lif, self.steps = Neuron(), kind in ("LSTM", "GRU")

    def forward(self, x: Tensor) -> Tensor:
        spikes, state, out = [self.lif(self.first(x)) for _ in range(STEPS)], None, []
        if self.steps:
            return self.last(self.cell(torch.stack(spikes))[0])
        for step in spikes:
            state = self.cell(step, state)
            out.append(self.last(state[0] if isinstance(state, tuple) else state))
        return torch.stack(out)


@pytest.mark.many(2)
@pytest.mark.parametrize("kind", CELLS)
def test_weights_of_a_cell_are_pruned_and_their_gradients_known(kind: str) -> None:
    shot = shot_at(Gated(kind).eval(), X[:, 0])
    network = network_of(shot)
    keys = [key for key in network.layers if key.startswith("cell.weight")]
    why = f"it is applied by {CELLS[kind]}, where nothing can be seen"
    assert len(keys) == 2
    assert all(network.layers[key].unseen == why for key in keys)
    assert all(scores(shot, "sf").fallback[key] == why for key in keys)
    assert not scores(shot, "taylor").fallback
    assert any(key in scores(shot, "fisher").fallback for key in keys)
    cut = shot.prune(Plan(criterion="taylor", repair="lsq", allocation="local"), 0.5)
    for key in keys:
        assert torch.equal(network.module.get_parameter(key) == 0, ~cut.masks[key])
    names = ", ".join(keys)
    assert list_unfitted(network, "lsq+tune", cut.masks) == [
        f"lsq leaves the kept weights of some layers as they are: {names}: {why}"
    ]
    assert list_unfitted(network, "tune", cut.masks) == []


class Uses(nn.Module):
    """Parameters that are used in several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.W = nn.Parameter(torch.randn(*[2] * (kind == "stacked"), 8, 8) * 0.5)
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 4)
        self.lif1, self.lif2, self.lif3 = Neuron(), Neuron(), Neuron()

    def forward(self, x: Tensor) -> Tensor:
        out = []
        one, other = {
            "stacked": lambda: (self.W[0], self.W[1]),
            "twice": lambda: (self.W, self.W),
            "tied": lambda: (self.W, self.W.t()),
        }[self.kind]()
        for _ in range(STEPS):
            spikes = self.lif2(self.lif1(self.first(x)) @ one)
            out.append(self.last(self.lif3(spikes @ other)))
        return torch.stack(out)


def test_stacked_parameters_are_pruned_together_and_said_to_be_parts() -> None:
    shot = shot_at(Uses("stacked").eval(), X[:, 0])
    layer = network_of(shot).layers["W"]
    assert layer.unseen == "a piece of it is applied at a time"
    masks = shot.prune(Plan(criterion="magnitude", repair="lsq", allocation="local"), 0.5).masks
    assert int(masks["W"].sum()) == 64


def test_a_parameter_that_is_used_twice_drives_both_neurons() -> None:
    network = trace(Uses("twice").eval(), X[:, 0])
    assert network.layers["W"].sources == ("lif1", "lif2")
    assert [link.neuron for link in network.layers["W"].links] == ["lif2", "lif3"]


def test_a_tied_parameter_is_pruned_in_one_form_and_not_refitted() -> None:
    shot = shot_at(Uses("tied").eval(), X[:, 0])
    network = network_of(shot)
    dense = network.weight("W").clone()
    masks = shot.prune(Plan(criterion="magnitude", repair="lsq", allocation="local"), 0.5).masks
    assert torch.equal(network.weight("W"), dense * masks["W"])
    (warning,) = list_unfitted(network, "lsq", masks)
    assert warning.endswith("W: it is applied in two forms")


class Reparametrised(nn.Module):
    """Pointwise, norm, a border of its values for 0, depthwise, pointwise, norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.point = nn.Conv2d(5, 8, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.depth = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.wide, self.last = nn.Conv2d(8, 12, 1, bias=False), nn.Linear(12, 4)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(n) for n in (8, 12, 12))
        self.lif1, self.lif2 = Neuron(), Neuron()

    def bordered(self, x: Tensor) -> Tensor:
        norm: Any = self.norm1
        value = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
        padded = functional.pad(x, [1, 1, 1, 1])
        for place in (0, -1):
            padded[:, :, place] = value.view(1, -1, 1)
            padded[:, :, :, place] = value.view(1, -1, 1)
        return padded

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for _ in range(STEPS):
            y = self.bordered(self.norm1(self.point(self.lif1(self.first(x)))))
            y = self.norm3(self.norm2(self.wide(self.depth(y))))
            out.append(self.last(self.lif2(y).mean((2, 3))))
        return torch.stack(out)


def test_layers_of_a_reparametrised_convolution_are_told_one_by_one() -> None:
    network = trace(Reparametrised().eval(), torch.rand(2, 5, 4, 4))
    found = {
        key.removesuffix(".weight"): (
            layer.groups,
            layer.sources,
            [(link.neuron, link.obstacle, *map(len, link.norms)) for link in layer.links],
        )
        for key, layer in network.layers.items()
    }
    assert found == {
        "first": (1, (), [("lif1", None, 0)]),
        "point": (1, ("lif1",), []),
        "depth": (8, (), []),
        "wide": (1, (), [("lif2", None, 2)]),
        "last": (1, ("lif2",), []),
    }
    assert not network.made
