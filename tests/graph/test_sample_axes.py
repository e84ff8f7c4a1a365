"""Where samples lie in a batch and in what is put out for it, found by turning the batch round."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.forward import (
    SAMPLES_FIRST,
    TIME_FIRST,
    CountedForward,
    call_module,
)
from snnprune.graph.samples_and_steps import Placement, _is_alike, find_placement, try_turns
from snnprune.graph.trace import trace

FEATURES = 6


def fire(x: Tensor) -> Tensor:
    return (x > 0.5).float()


class Leaky(nn.Module):
    """A leaky neuron between two layers; `time` is the dimension of (T, N, F) or (N, T, F).

    Scores are (N, classes), steps (T, N, classes), and steps as fed as the input lies.
    """

    def __init__(self, time: int, puts_out: str) -> None:
        super().__init__()
        self.time, self.puts_out = time, puts_out
        self.first, self.out = nn.Linear(FEATURES, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        u, outputs = torch.zeros(x.shape[1 - self.time], 20), []
        for current in x.unbind(self.time):
            u = 0.8 * u + self.first(current)
            spikes = fire(u)
            u = u * (1 - spikes)
            outputs.append(self.out(spikes))
        steps = torch.stack(outputs)
        if self.puts_out == "scores":
            return steps.sum(0)
        return steps.movedim(0, self.time) if self.puts_out == "as fed" else steps


class Mixing(Leaky):
    """Takes the samples of (N, F) for time steps."""

    def __init__(self) -> None:
        super().__init__(0, "steps")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(1)).squeeze(1)


class Summing(Leaky):
    """Adds up over the samples too."""

    def __init__(self) -> None:
        super().__init__(0, "steps")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumsum(1)


class Everywhere(nn.Module):
    """Does the same in each place of (A, B, F)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(FEATURES, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.out(fire(self.first(x)))
        return outputs


def drawn(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape, FEATURES, generator=torch.Generator().manual_seed(1))


def placed(module: nn.Module, x: Tensor, labels: int | None = None) -> Placement:
    for number, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    network = trace(module.eval(), x)
    y = None if labels is None else torch.zeros(labels, dtype=torch.int64)
    return find_placement(network, x, y, ran=network.run(x))


@pytest.mark.many(7)
@pytest.mark.parametrize(
    ("shape", "time", "puts_out", "layout"),
    [
        ((8, 2), 0, "scores", None),
        ((8, 2), 0, "steps", TIME_FIRST),
        ((2, 8), 1, "scores", None),
        ((2, 8), 1, "steps", TIME_FIRST),
        ((2, 8), 1, "as fed", SAMPLES_FIRST),
        ((6, 6), 0, "scores", None),
        ((6, 6), 0, "steps", TIME_FIRST),
        ((6, 6), 1, "scores", None),
        ((6, 6), 1, "steps", TIME_FIRST),
        ((6, 6), 1, "as fed", SAMPLES_FIRST),
        # one sample, which cannot be turned round
        ((8, 1), 0, "scores", None),
        ((8, 1), 0, "steps", TIME_FIRST),
        ((1, 8), 1, "scores", None),
        ((1, 8), 1, "steps", TIME_FIRST),
        ((1, 8), 1, "as fed", SAMPLES_FIRST),
    ],
)
def test_samples_lie_where_the_output_turns_round_with_the_batch(
    shape: tuple[int, int], time: int, puts_out: str, layout: str | None
) -> None:
    x, samples = drawn(*shape), shape[1 - time]
    bare, labelled = (placed(Leaky(time, puts_out), x, labels) for labels in (None, samples))
    assert bare.doubts == labelled.doubts == ()
    assert bare.network.count_samples(x, None) == samples
    assert bare.network.readout.layout == labelled.network.readout.layout == layout
    # a batch without labels is counted along the right dimension whatever its size
    assert bare.network.count_samples(drawn(4, 5), None) == (4, 5)[1 - time]
    assert labelled.network.forward is call_module


@pytest.mark.parametrize(("samples", "steps"), [(1, 4), (8, 1), (8, 4), (8, 8)])
def test_grey_pictures_that_are_shown_for_some_steps_lie_along_the_first_dimension(
    samples: int, steps: int
) -> None:
    class Shown(Leaky):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1).expand(steps, -1, -1))

    found = placed(Shown(0, "steps"), drawn(samples, 1))  # (N, 1, width)
    assert found.doubts == ()
    assert found.network.forward is call_module
    assert found.network.readout.layout == TIME_FIRST


@pytest.mark.parametrize(("module", "shape"), [(Mixing(), (9,)), (Summing(), (9, 4))])
@pytest.mark.parametrize("labels", [None, 9])
def test_a_sample_that_depends_on_the_others_is_told(
    module: nn.Module, shape: tuple[int, ...], labels: int | None
) -> None:
    (doubt,) = placed(module, drawn(*shape), labels).doubts
    assert doubt.startswith("what the network puts out for a sample depends on the others in")


class Scaled(Mixing):
    """The same, in other units."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * super().forward(x)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_outputs_are_compared_in_their_own_unit(unit: float) -> None:
    x = drawn(9)
    (doubt,) = placed(Scaled(unit), x).doubts
    assert doubt.startswith("what the network puts out for a sample depends on the others in")


def test_as_many_labels_as_time_steps_are_told() -> None:
    (doubt,) = placed(Leaky(0, "steps"), drawn(8, 3), labels=8).doubts
    assert doubt.startswith("the network takes dimension 1 of a batch of shape (8, 3, 6)")
    assert "8 labels come with it" in doubt


def test_samples_that_may_lie_in_either_dimension_are_told_where_no_labels_are() -> None:
    x = drawn(4, 7)
    found = placed(Everywhere(), x)
    assert len(found.doubts) == 1
    assert f"{found.network.count_samples(x, None)} are counted" in found.doubts[0]
    assert found.network.readout.layout is None
    for labels, layout in ((4, SAMPLES_FIRST), (7, TIME_FIRST)):
        told = placed(Everywhere(), x, labels)
        assert (told.doubts, told.network.readout.layout) == ((), layout)


@pytest.mark.parametrize(("shape", "doubts"), [((5, 5), 1), ((5, 4), 0)])
def test_outputs_that_are_the_same_everywhere_tell_nothing(
    shape: tuple[int, int], doubts: int
) -> None:
    x = torch.zeros(*shape, FEATURES)
    found = placed(Everywhere(), x)
    assert try_turns(found.network, x) is None
    assert len(found.doubts) == doubts
    assert not placed(Everywhere(), x, labels=5).doubts


def test_a_network_that_draws_is_not_turned_round() -> None:
    network = placed(Leaky(0, "steps"), drawn(8, 2)).network
    assert try_turns(network, drawn(8, 2)) is not None
    assert try_turns(replace(network, draws=0), drawn(8, 2)) is None


def test_a_way_that_says_where_the_samples_lie_is_kept() -> None:
    x = drawn(4, 7)
    network = trace(Everywhere().eval(), x)
    said = CountedForward(forward=call_module, axis=1)
    found = find_placement(network.with_forward(said), x, None, ran=network.run(x))
    assert found.network.forward is said
    assert not found.doubts


def test_outputs_are_alike_where_nine_of_ten_places_are() -> None:
    scores = 1 + torch.rand(10, 3)
    one, two = scores.clone(), scores.clone()
    one[0, 1] += 1
    two[:2, 0] += 1
    assert _is_alike(one, scores)
    assert not _is_alike(two, scores)
    assert _is_alike(scores * (1 + 1e-4), scores)
    assert not _is_alike(scores * 1.1, scores)
    assert not _is_alike(scores, scores[:5])
    # what is small beside the largest score is rounding
    assert _is_alike(torch.tensor([[1.0, 1e-4]]), torch.tensor([[1.0, 0.0]]))
    assert _is_alike(torch.zeros(2, 3), torch.zeros(2, 3))
