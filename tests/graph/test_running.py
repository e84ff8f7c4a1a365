"""The ways to run a batch: whole, the same input again and again, step by step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune import calibrate, evaluate, trace
from snnprune.distributed.ranks import Ranks
from snnprune.errors import InputError, UsageError
from snnprune.graph.forward import (
    CountedForward,
    Forward,
    call_module,
    feed_batches,
    load_forward,
    make_counted_forward,
)
from snnprune.graph.network import Network
from snnprune.training.step import split_batch

DRAWN = torch.Generator().manual_seed(0)
X, Y = 4 * torch.rand(5, 6, generator=DRAWN), torch.arange(5) % 3
EVENTS = (torch.rand(4, 5, 6, generator=DRAWN) > 0.4).float()


class Net(nn.Module):
    """One time step of (N, 6); a membrane in an attribute, as many people have it."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.membrane: Any = 0.0
        self.register_buffer("seen", torch.zeros(()))  # a statistic

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)
        self.membrane = 0.8 * self.membrane + self.hidden(x)
        spikes = Step.apply(self.membrane - 0.5)
        self.membrane = self.membrane * (1 - spikes)
        return self.out(spikes)


class Step(torch.autograd.Function):
    """Heaviside, with a gradient."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor) -> Tensor:
        return (distance > 0).to(distance)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def by_hand(net: Net, steps: list[Tensor]) -> Tensor:
    """Membranes and outputs written out, from rest."""
    membrane, outputs = torch.zeros(len(steps[0]), 8), []
    for x in steps:
        membrane = 0.8 * membrane + net.hidden(x)
        spikes = (membrane > 0.5).float()
        membrane = membrane * (1 - spikes)
        outputs.append(net.out(spikes))
    return torch.stack(outputs)


CASES: list[tuple[str, Tensor, list[Tensor]]] = [
    ("repeat:3", X, [X, X, X]),
    ("repeat:1", X, [X]),
    ("steps", EVENTS, list(EVENTS)),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "x", "steps"), CASES)
def test_each_time_step_is_a_call_and_outputs_are_stacked(
    name: str, x: Tensor, steps: list[Tensor]
) -> None:
    net, run = Net().eval(), load_forward(name, None)
    wanted = by_hand(net, steps)
    assert wanted[0].ne(wanted[-1]).any() == (len(steps) > 1)
    for _ in range(2):  # each batch begins at rest
        assert torch.equal(run(net, x), wanted)
    assert net.membrane == 0


@torch.no_grad()
@pytest.mark.parametrize("name", [None, "whole"])
def test_whole_is_a_plain_call(name: str | None) -> None:
    net = Net().eval()
    assert torch.equal(load_forward(name, None)(net, X), by_hand(net, [X])[0])
    assert load_forward(name, None) is call_module


def test_in_training_a_membrane_is_put_back_and_a_statistic_is_not() -> None:
    net, run = Net(), load_forward("repeat:2", None)
    with torch.no_grad():
        wanted = by_hand(net, [X, X])
    for number in (1, 2):
        made = run(net, X)
        made.sum().backward()  # not through the batch before
        assert torch.equal(made, wanted)
        assert int(net.seen) == number * 2 * len(X)
    assert net.hidden.weight.grad is not None


@torch.no_grad()
@pytest.mark.parametrize(
    "outputs", [lambda y: (y, y + 1), lambda y: ((y, 3), {})], ids=["two", "nested"]
)
def test_of_several_outputs_the_first_counts(outputs: Callable[[Tensor], Any]) -> None:
    net = Net().eval()
    several = nn.Sequential(net, Calls(outputs))
    assert torch.equal(load_forward("repeat:2", None)(several, X), by_hand(net, [X, X]))


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


@pytest.mark.parametrize("output", [{"y": X}, [X, X], None, ()])
def test_what_cannot_be_stacked_is_told(output: object) -> None:
    with pytest.raises(InputError, match=rf"puts out a {type(output).__name__} at a time step"):
        load_forward("repeat:2", None)(Calls(lambda _: output), X)


def test_a_module_that_works_in_place_sees_the_same_input_at_each_step() -> None:
    seen: list[Tensor] = []

    def adds(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.add_(1)

    x = X.clone()
    load_forward("repeat:3", None)(Calls(adds), x)
    assert all(torch.equal(one, X) for one in (*seen, x))


@pytest.mark.parametrize("name", [None, "repeat:2", "steps"])
@pytest.mark.parametrize("batch", [{"x": X}, [X, X, X]])
def test_a_batch_of_another_kind_needs_a_function(name: str | None, batch: Any) -> None:
    with pytest.raises(InputError, match=r"a (dict|list) of .*file\.py:function$") as caught:
        load_forward(name, None)(Net(), batch)
    assert caught.value.field == "--data"


@pytest.mark.parametrize("name", ["", "repeat", "repeat:-1", "repeat:1.5", "repeat:²", "Steps"])
def test_an_unknown_way_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^--forward: "):
        load_forward(name, None)
    with pytest.raises(InputError, match=r"^model\.forward: "):
        load_forward(name, None, fields=("model.forward", "model.name"))


def run_by(forward: Forward) -> Network:
    return Network(module=nn.Identity(), forward=forward)


def test_step_by_step_knows_the_samples_of_batches_without_labels() -> None:
    run = load_forward("steps", None)
    assert run_by(run).count_samples(EVENTS, None) == 5
    assert run_by(run).count_samples(EVENTS, Y) == 5
    with pytest.raises(InputError, match=r"shape \(5, 4, 6\) with 5 labels has no time first"):
        run_by(run).count_samples(EVENTS.transpose(0, 1), Y)


def test_samples_are_looked_for_where_the_output_says() -> None:
    batch = {"events": torch.zeros(7, 4, 3), "mask": torch.ones(2, 4)}
    run = make_counted_forward(call_module, batch, torch.zeros(4, 10), "auto")
    assert run_by(run).count_samples(batch, None) == 4
    assert (
        run_by(run).count_samples({"events": torch.zeros(7, 3, 3), "mask": torch.ones(2, 3)}, None)
        == 3
    )
    assert run_by(run).count_samples(batch, torch.zeros(9)) == 9


@pytest.mark.parametrize(
    ("output", "reading", "count"),
    [
        (torch.zeros(4, 10), "auto", 4),
        ([torch.zeros(4, 10)] * 3, "auto", 4),
        ((torch.zeros(4, 10), None), "auto", 4),
        (torch.zeros(7, 4, 10), "auto", 7),  # the length of x is among them
        ({"y": torch.zeros(4, 10)}, lambda output: output["y"], 4),
        ({"y": torch.zeros(4, 10)}, "auto", 7),
        (torch.zeros(28, 10), "auto", 7),
        (torch.zeros(7, 10), "auto", 7),
    ],
)
def test_a_tensor_is_as_long_as_it_is_unless_the_output_says_otherwise(
    output: Any, reading: Any, count: int
) -> None:
    x = torch.zeros(7, 4, 3)
    run = make_counted_forward(call_module, x, output, reading)
    assert run_by(run).count_samples(x, None) == count
    assert isinstance(run, CountedForward) == (count != 7)


def as_dict(x: Tensor, y: Tensor) -> dict[str, Any]:
    return {"events": x, "labels": y, "names": ["a"] * len(y)}


@torch.no_grad()
def test_a_run_of_ones_own_gets_batches_whole_and_the_data_stay() -> None:
    def run(net: nn.Module, batch: Any) -> Tensor:
        assert batch["names"] == ["a"] * 5
        return net(batch["events"].mul_(2))

    net = Net().eval()
    batches = [as_dict(X.clone(), Y)]
    network = trace(net, batches[0], run=run)
    plain = trace(net, X)
    double = [(2 * X, Y)]
    assert list(network.layers) == list(plain.layers)
    found, wanted = evaluate(network, batches, run=run), evaluate(plain, double)
    assert (found.samples, found.correct, found.loss) == (5, wanted.correct, wanted.loss)
    seen, usual = calibrate(network, batches, run=run), calibrate(plain, double)
    for key, layer in usual.layers.items():
        assert torch.equal(seen.layers[key].input_rate, layer.input_rate)
    assert torch.equal(batches[0]["events"], X)


@torch.no_grad()
def test_a_network_is_run_as_it_was_traced_unless_another_way_is_given() -> None:
    net = Net().eval()
    doubling = trace(net, X, run=lambda net, x: net(2 * x))
    plain, batches, double = trace(net, X), [(X, Y)], [(2 * X, Y)]
    assert evaluate(doubling, batches) == evaluate(plain, double)
    assert evaluate(doubling, batches, run=call_module) == evaluate(plain, batches)
    seen, usual = (
        calibrate(*of).layers["hidden.weight"] for of in ((doubling, batches), (plain, double))
    )
    assert torch.equal(seen.input_rate, usual.input_rate)


def test_a_network_is_read_as_it_says_unless_another_way_is_given() -> None:
    network = trace(Net().eval(), X).with_readout("last")
    assert evaluate(network, [(X, Y)]).readout == "last"
    assert evaluate(network, [(X, Y)], readout="mean").readout == "mean"


def test_a_batch_is_fed_to_the_device_of_the_module() -> None:
    with torch.device("meta"):
        net = Net()
    ((x, y),) = feed_batches([as_dict(X, Y)], net)
    assert y is not None
    assert {x["events"].device.type, x["labels"].device.type, y.device.type} == {"meta"}


def test_step_by_step_batches_are_cut_along_their_samples_where_time_is_as_long() -> None:
    x, y, along = (
        torch.rand(4, 4, 6),
        torch.arange(4),
        run_by(load_forward("steps", None)).sample_axis,
    )
    halves = list(split_batch(x, y, 2, along=along))
    assert [half.shape for half, _ in halves] == [(4, 2, 6), (4, 2, 6)]
    assert torch.equal(torch.cat([half for half, _ in halves], 1), x)
    assert Ranks(rank=1, size=2).part(x, y, along=along).x.shape == (4, 2, 6)
    assert run_by(call_module).sample_axis is None


def test_a_function_that_cannot_read_an_output_is_left_to_who_needs_it() -> None:
    def fails(output: object) -> Tensor:
        raise InputError("not this one")

    assert (
        make_counted_forward(call_module, torch.zeros(7, 4, 3), torch.zeros(4, 10), fails)
        is call_module
    )
