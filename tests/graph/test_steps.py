"""The number of time steps that an evaluation tells."""

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.samples_and_steps import StepCount
from snnprune.graph.trace import trace
from snnprune.measure.evaluation import evaluate
from snnprune.models.lif import LIF, Dynamics


class Fire(nn.Module):
    """A comparison, without a state."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


def steps_of(module: nn.Module, *batches: Tensor, labels: int | None = None) -> int | None:
    network = trace(module.eval(), batches[0])
    y = None if labels is None else torch.zeros(labels, dtype=torch.int64)
    return evaluate(network, [(x, y) for x in batches]).time_steps


class Clocked(nn.Module):
    """A loop over time around a layer and a neuron; (T, N, classes)."""

    def __init__(self, drive: nn.Module, steps: int) -> None:
        super().__init__()
        self.drive, self.fire, self.steps = drive, Fire(), steps

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fire(self.drive(x)).flatten(1) for _ in range(self.steps)])


@pytest.mark.parametrize(
    ("drive", "x"),
    [
        (nn.Conv2d(1, 2, 3), torch.rand(4, 1, 5, 5)),
        (nn.Conv1d(1, 2, 3), torch.rand(4, 1, 5)),
        (nn.Linear(5, 2), torch.rand(4, 5)),
    ],
)
def test_steps_in_a_loop_are_counted_and_a_loop_that_is_left_out_shows(
    drive: nn.Module, x: Tensor
) -> None:
    assert steps_of(Clocked(drive, 5), x, x[:3]) == 5
    assert steps_of(Clocked(drive, 1), x, x[:3]) == 1


@pytest.mark.parametrize(
    ("drive", "x", "spikes", "steps"),
    [
        (nn.Linear(5, 4), (2, 5), (2, 4), 2),
        (nn.Linear(5, 4), (2, 5), (1, 1, 4), None),  # tokens, or time
        (nn.Conv2d(1, 2, 3), (2, 1, 5, 5), (2, 2, 3, 3), 2),
        (nn.Conv2d(1, 2, 3), (2, 1, 5, 5), (3, 2, 2, 3, 3), 6),
        (nn.Conv2d(1, 2, 3), (2, 1, 5, 5), (2, 3, 3), None),  # no samples
    ],
)
def test_what_stands_before_the_channels_of_spikes_is_counted(
    drive: nn.Module, x: tuple[int, ...], spikes: tuple[int, ...], steps: int | None
) -> None:
    network = trace(nn.Sequential(drive, Fire()), torch.rand(x))
    count, (name,) = StepCount(network), network.neurons
    count.on_spikes(name, torch.ones(spikes))
    assert count.of(1) == steps
    count.on_spikes("another", torch.ones(spikes))
    assert count.of(1) == steps
    assert steps is None or count.of(steps + 1) is None


def test_time_in_front_is_told_from_the_number_of_labels() -> None:
    events = torch.rand(6, 2, 1, 5, 5)  # (T, N, C, H, W)

    class Events(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.spikes = nn.Conv2d(1, 3, 3), LIF(Dynamics(beta=0.5))

        def forward(self, x: Tensor) -> Tensor:
            current = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return self.spikes(current).mean((3, 4))

    assert steps_of(Events(), events, labels=2) == 6


def test_tokens_are_not_taken_for_time_steps() -> None:
    tokens = torch.rand(2, 7, 5)  # (N, L, C)
    assert steps_of(nn.Sequential(nn.Linear(5, 4), Fire(), nn.Flatten()), tokens) is None


def test_spikes_that_lost_the_dimensions_of_their_layer_tell_nothing() -> None:
    flat = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Unflatten(0, (1, 2)), LIF(Dynamics(beta=0.5))
    )
    assert steps_of(flat, torch.rand(2, 1, 5, 5)) is None
