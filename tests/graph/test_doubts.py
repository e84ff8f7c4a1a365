"""How many steps neurons make, and what smells of links that are not those of the code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.samples_and_steps import StepCounts, count_steps, list_doubts
from snnprune.graph.trace import trace

STEPS = 5


def fire(u: Tensor) -> Tensor:
    return (u > 0.4).float()


class Cell(nn.Module):
    """A leaky neuron in a loop over time, two layers, and a residual sum of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 5)
        self.third, self.out = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        u, v, w = (torch.zeros(len(x), 5) for _ in range(3))
        outputs = []
        for _ in range(STEPS):
            u = 0.5 * u + self.first(x)
            s = fire(u)
            v = 0.5 * v + self.second(s)
            z = fire(v)
            w = 0.5 * w + self.third(z) + z
            outputs.append(self.out(fire(w)))
        return torch.stack(outputs)


def network() -> Network:
    torch.manual_seed(0)
    return trace(Cell().eval(), torch.rand(2, 6))


def test_steps_and_calls_are_counted_on_one_batch() -> None:
    found = network()
    paces = count_steps(found, torch.rand(3, 6))
    assert set(paces.steps) == set(found.neurons)
    assert set(paces.steps.values()) == {STEPS}
    assert set(paces.calls.values()) == {STEPS}
    assert not list(list_doubts(found, paces))


def test_neurons_of_one_step_behind_layers_that_are_called_again_smell() -> None:
    found = network()
    paces = count_steps(found, torch.rand(3, 6))
    name = next(iter(found.neurons))
    odd = StepCounts(steps={**paces.steps, name: 1}, calls=paces.calls)
    (line,) = list_doubts(found, odd)
    assert line == f"{name} makes one time step though what drives it is called {STEPS} times"


@pytest.mark.parametrize("many_steps", [2, 3, 4])
def test_more_than_two_neurons_of_a_time_step_each_smell(many_steps: int) -> None:
    found = network()
    (name, one), *_ = found.neurons.items()
    many = {
        f"{name} ({number})": replace(one, name=f"{name} ({number})")
        for number in range(many_steps)
    }
    steps = dict.fromkeys(many, 1)
    split = replace(found, neurons={**found.neurons, **many})
    lines = list(list_doubts(split, StepCounts(steps=steps, calls={})))
    told = [f"first.weight drives {many_steps} neurons of one time step each"]
    assert [line.partition(":")[0] for line in lines] == (told if many_steps > 2 else [])


def test_a_layer_that_drives_a_neuron_and_the_one_that_gets_its_spikes_smells() -> None:
    found = network()
    names = list(found.neurons)
    assert found.neurons[names[2]].identities == (names[1],)
    layer = found.layers["second.weight"]
    false_link = replace(layer.links[0], neuron=names[2])
    wrong = replace(
        found,
        layers={
            **found.layers,
            "second.weight": replace(layer, links=(*layer.links, false_link)),
        },
    )
    (line,) = list_doubts(wrong, StepCounts(steps={}, calls={}))
    assert line.startswith(f"second.weight drives {names[1]} and {names[2]}")
    assert not list(list_doubts(found, StepCounts(steps={}, calls={})))
