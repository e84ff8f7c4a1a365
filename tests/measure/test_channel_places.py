"""Where the channels of a neuron lie, and in which layout its spikes come."""

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.libraries.library import OWN, NeuronConstants
from snnprune.graph.network import NOWHERE, Layer, Link, Network, Neuron
from snnprune.measure.channel_sums import ONE_CHANNEL, align_spikes, find_channel_axis

FIRES = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.4  # (T, N, C)
LAYOUTS = {
    "time first": FIRES,
    "samples first": FIRES.transpose(0, 1),
    "time and samples in one": FIRES.flatten(0, 1),
    "samples and time in one": FIRES.transpose(0, 1).flatten(0, 1),
}


@pytest.mark.parametrize("spikes", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("count", [1, 0.5, 3])
def test_spikes_are_found_in_each_layout_whatever_a_spike_counts(
    spikes: Tensor, count: float
) -> None:
    found = align_spikes(count * spikes, FIRES)
    assert found is not None
    assert torch.equal(found, count * FIRES)


@pytest.mark.parametrize(
    "spikes", [FIRES[:, :1], ~FIRES, FIRES.flip(0)], ids=["fewer", "others", "backwards"]
)
def test_spikes_that_do_not_follow_from_the_membrane_are_none(spikes: Tensor) -> None:
    assert align_spikes(spikes.float(), FIRES) is None


def test_a_membrane_of_one_dimension_has_no_samples_to_come_first() -> None:
    fires = FIRES[:, 0, 0]
    assert align_spikes((~fires).float(), fires) is None


def network(*layers: tuple[int, bool], axis: int | None) -> Network:
    """A neuron behind linear layers of so many outputs each, moved on the way or not."""
    made = {
        f"{number}.weight": Layer(
            weight=f"{number}.weight",
            kind="linear",
            shape=(outputs, 2),
            encoding=True,
            links=(Link(neuron="lif", moved=moved),),
        )
        for number, (outputs, moved) in enumerate(layers)
    }
    neuron = Neuron(
        name="lif",
        module=nn.Identity(),
        library=OWN,
        constants=NeuronConstants(threshold=1.0),
        feeders=tuple(made),
        axis=axis,
    )
    return Network(module=nn.Identity(), layers=made, neurons={"lif": neuron})


@pytest.mark.parametrize(
    ("layers", "known", "shape", "axis"),
    [
        ((), None, (4, 2, 5), ONE_CHANNEL),
        (((5, False),), NOWHERE, (4, 2, 5), None),
        (((5, False),), None, (4, 2, 5), -1),
        (((5, False),), None, (4, 2, 6), None),
        (((5, False),), -2, (4, 5, 6), -2),
        (((4, False),), -3, (4, 5, 4), -1),  # time is no channel
        (((5, True),), -1, (4, 2, 5, 9), -2),  # nothing fits where they were followed to
        (((5, False), (7, False)), -1, (4, 2, 7), -1),
        (((5, True), (9, True)), None, (4, 2, 5, 9), None),
        (((5, True), (3, True)), None, (4, 2, 5, 9), -2),  # one of them says nothing
        (((5, True),), None, (4, 2, 5, 5), None),
    ],
)
def test_the_channels_of_a_neuron_are_where_its_layers_say_or_nowhere(
    layers: tuple[tuple[int, bool], ...],
    known: int | None,
    shape: tuple[int, ...],
    axis: int | None,
) -> None:
    assert find_channel_axis(network(*layers, axis=known), "lif", torch.Size(shape)) == axis
