"""Passes that are cut short, against passes from the input, value by value."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pruned_networks import batches, made
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnprune.data.batches import Batches
from snnprune.graph.calls import LayerCall
from snnprune.graph.network import Network
from snnprune.graph.replay import PassEnd, Replay, Run, run_until
from snnprune.graph.state import use_eval_mode
from snnprune.graph.trace import trace
from snnprune.measure.layer_inputs import Usage, count_usage
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics

NETWORKS = (
    *("convolved", "SpikingJelly at once", "SpikingJelly stepwise", "snnTorch", "sinabs"),
    *("linears", "tied"),
)


def watched(usage: Usage, key: str, seen: list[Tensor]) -> Callable[[str, LayerCall], None]:
    """An observer that keeps what enters a layer, and ends the pass at its last call."""
    left = usage.calls[key]

    def on_layer(name: str, call: LayerCall) -> None:
        nonlocal left
        if name == key:
            seen.append(call.input.clone())
            left -= 1
            if not left:
                raise PassEnd

    return on_layer


def change(network: Network, key: str) -> None:
    """As if a layer were mended."""
    with torch.no_grad():
        network.module.get_parameter(key).mul_(1.5)


def inputs_of(
    network: Network, of: Batches, *, replayed: bool, memory: int = 2**29
) -> tuple[dict[str, list[Tensor]], Replay]:
    """What enters each layer, which is changed before the next one is asked for."""
    usage = count_usage(network, of)
    keys = [key for key in network.layers if usage.calls[key]]
    graph = usage.graph if replayed else None
    replay = Replay(network, graph, batches=usage.batches, targets=keys, settled=(), memory=memory)
    found: dict[str, list[Tensor]] = {}
    for key in keys:

        def passes(run: Run, key: str = key) -> list[Tensor]:
            seen: list[Tensor] = []
            for number, (x, _) in enumerate(network.feed(of)):
                run(x, number, watched(usage, key, seen))
            return seen

        with torch.no_grad(), use_eval_mode(network.module):
            found[key] = replay.collect([key], passes)
        change(network, key)
        replay.settle(key)
    return found, replay


def assert_alike(build: Callable[[], Network], of: Batches, *, memory: int = 2**29) -> Replay:
    """What enters the layers is the same to the bit."""
    plain, _ = inputs_of(build(), of, replayed=False)
    found, replay = inputs_of(build(), of, replayed=True, memory=memory)
    assert found.keys() == plain.keys()
    for key, seen in plain.items():
        assert len(found[key]) == len(seen) > 0
        assert all(torch.equal(a, b) for a, b in zip(seen, found[key], strict=True)), key
    return replay


@pytest.mark.many(4)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("memory", [2**29, 3000, 0])
def test_what_enters_the_layers_is_the_same_to_the_bit(name: str, memory: int) -> None:
    replay = assert_alike(lambda: made(name), Batches(begin=batches), memory=memory)
    assert replay.graph is not None
    assert not replay.held  # nothing waits for it any more


def small_resnet() -> Network:
    torch.manual_seed(0)
    args = {"size": 8, "time_steps": 2, "in_channels": 2}
    module = build_model(ModelSpec(name="res-snn-19-light", args=args)).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.get_buffer("running_var").fill_(0.05)  # or nothing fires
    return trace(module, torch.rand(2, 2, 8, 8))


def two_batches() -> Iterator[tuple[Tensor, None]]:
    drawn = torch.Generator().manual_seed(2)
    yield from ((torch.rand(2, 2, 8, 8, generator=drawn) * 3, None) for _ in range(2))


class CountingConvolutions(TorchFunctionMode):
    """How often a convolution was run on values."""

    count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.conv2d and not args[0].is_meta:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
def test_every_layer_of_a_residual_network_is_run_once_for_each_batch() -> None:
    of = Batches(begin=two_batches)
    replay = assert_alike(small_resnet, of)
    assert replay.graph is not None
    network = small_resnet()
    convolutions = sum(len(layer.shape) == 4 for layer in network.layers.values())
    with CountingConvolutions() as counting:
        inputs_of(network, of, replayed=True)
    in_count_usage = convolutions
    assert counting.count == in_count_usage + 2 * convolutions


def test_results_that_do_not_fit_are_made_again() -> None:
    of, counts = Batches(begin=batches), []
    for memory in (0, 2**29):
        with CountingConvolutions() as counting:
            inputs_of(made("convolved"), of, replayed=True, memory=memory)
        counts.append(counting.count)
    assert counts[0] > counts[1]


class Odd(nn.Module):
    """Three layers and something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.third, self.fourth = nn.Linear(8, 8), nn.Linear(8, 3)
        self.neurons = nn.ModuleList(LIF(Dynamics(beta=0.5, threshold=0.2)) for _ in range(3))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.neurons[0](self.between(self.first(x).repeat(3, 1, 1)))
        z = self.neurons[1](self.second(z))
        out: Tensor = self.fourth(self.neurons[2](self.third(z))).mean(0)
        return out


def ask_for_a_value(z: Tensor) -> Tensor:
    return z * float(z.abs().max() > 0)


def hide_an_error(z: Tensor) -> Tensor:
    try:
        return z * float(z.abs().max() > 0)
    except Exception:
        return torch.zeros(z.shape)


def write_into_what_is_there(z: Tensor) -> Tensor:
    held = torch.zeros(z.shape)
    for step, value in enumerate(z):
        held[step] = value
    return held


def add_in_place(z: Tensor) -> Tensor:
    z += 0.1
    return z.mul_(1.5)


def flat_batches() -> Iterator[tuple[Tensor, None]]:
    drawn = torch.Generator().manual_seed(3)
    yield from ((torch.rand(4, 6, generator=drawn), None) for _ in range(3))


class FedBack(nn.Module):
    """A loop over time in which the last but one layer has a part in the next step's input."""

    def __init__(self, back: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)
        self.readout, self.back = nn.Linear(6, 3), back

    def forward(self, x: Tensor) -> Tensor:
        returned, total = torch.zeros_like(x), torch.zeros(len(x), 3)
        for _ in range(3):
            spikes = (self.first(x + returned) > 0.1).to(x.dtype)
            current = self.second(spikes)
            returned = self.back(current)
            total = total + self.readout((current > 0).to(x.dtype))
        return total


def through_numpy(z: Tensor) -> Tensor:
    return torch.from_numpy(z.numpy().copy())


def where_nothing_is_seen(z: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return z.clone()


def step_by_step(z: Tensor) -> Tensor:
    return torch.stack([*z])


@pytest.mark.many(4)
@pytest.mark.parametrize(
    ("build", "doing", "cut"),
    [
        (Odd, ask_for_a_value, False),
        (Odd, hide_an_error, False),
        (Odd, write_into_what_is_there, False),
        (Odd, add_in_place, True),
        (Odd, step_by_step, True),
        (FedBack, torch.Tensor.tanh, True),
        (FedBack, step_by_step, True),
        (FedBack, through_numpy, False),
        (FedBack, where_nothing_is_seen, False),
    ],
)
def test_whatever_code_does_with_what_a_layer_gives_the_inputs_are_the_same(
    build: Callable[[Callable[[Tensor], Tensor]], nn.Module],
    doing: Callable[[Tensor], Tensor],
    *,
    cut: bool,
) -> None:
    x = next(flat_batches())[0]
    replay = assert_alike(lambda: trace(build(doing).eval(), x), Batches(begin=flat_batches))
    assert (replay.graph is not None) == cut


def test_what_is_drawn_at_random_or_normalised_together_is_run_from_the_input() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 1)
            self.norm, self.neuron = nn.BatchNorm1d(4), LIF(Dynamics(beta=0.5, threshold=0.2))

        def forward(self, x: Tensor) -> Tensor:
            z = self.neuron(self.norm(self.first(x)).unsqueeze(0)).squeeze(0)
            out: Tensor = self.norm(self.second(z))
            return out

    def noisy(z: Tensor) -> Tensor:
        return z + torch.rand_like(z)

    x = torch.rand(4, 1, 6)
    shared = trace(Shared().eval(), x)
    assert count_usage(shared, Batches(begin=lambda: iter([(x, None)]))).graph is None
    flat = next(flat_batches())[0]
    drawing = trace(Odd(noisy).eval(), flat)
    assert count_usage(drawing, Batches(begin=flat_batches)).graph is None


def test_an_error_of_the_users_own_is_raised() -> None:
    def fail(z: Tensor) -> Tensor:
        if failing:
            raise ValueError("of my own")
        return z

    failing = False
    network = trace(Odd(fail).eval(), next(flat_batches())[0])
    of = Batches(begin=flat_batches)
    usage = count_usage(network, of)
    replay = Replay(
        network, usage.graph, batches=usage.batches, targets=network.layers, settled=network.layers
    )
    failing = True

    def passes(run: Run) -> None:
        for number, (x, _) in enumerate(network.feed(of)):
            run(x, number, watched(usage, "fourth.weight", []))

    with pytest.raises(ValueError, match="of my own"):
        replay.collect(["fourth.weight"], passes)


def test_a_plain_pass_ends_at_the_layer() -> None:
    network, seen = made("convolved"), list[Tensor]()
    of = Batches(begin=batches)
    usage = count_usage(network, of)
    x = next(iter(network.feed(of)))[0]
    with torch.no_grad(), CountingConvolutions() as counting:
        run_until(network, x, watched(usage, "conv2.weight", seen))
    assert (len(seen), counting.count) == (1, 1)
