"""Changes of all layers at once: how far they have come, and the bound on it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_to_one import OneToOne
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.models.lif import LIF, Dynamics
from snnprune.theory.crisis import (
    AccumulatedFlips,
    accumulate_flips,
    count_near,
    density_bound,
    find_first_empty,
    measure_crises,
)
from snnprune.theory.shifts import FlipSpread, SpreadCollector, measure_shifts


class Chain(nn.Module):
    """Two layers with a neuron each, (N, 5) in; what leads into the second is as `way` says."""

    def __init__(self, *, steps: int, way: str, **neuron: Any) -> None:
        super().__init__()
        self.steps, self.way = steps, way
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)
        if way in ("shortcut", "relu"):
            self.shortcut = nn.Linear(5, 4 if way == "relu" else 3)
        self.neuron1, self.neuron2 = LIF(Dynamics(**neuron)), LIF(Dynamics(**neuron))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([x] * self.steps)
        spikes = self.neuron1(self.first(x))
        current = 2 * self.second(spikes)
        if self.way == "shortcut":
            current = current + self.shortcut(x)
        if self.way == "relu":  # nobody follows the shortcut through it
            current = current + self.second(self.shortcut(x).relu())
        if self.way == "twice":
            current = current + self.second(spikes.flip(-1))
        return self.neuron2(current)


def spread_of(
    model: nn.Module, x: Tensor, change: float, *batches: Tensor
) -> tuple[tuple[AccumulatedFlips, ...], dict[str, FlipSpread]]:
    network = trace(model, x)
    linear = {n: one for n, one in model.named_modules() if isinstance(one, nn.Linear)}
    changed = {
        f"{name}.weight": layer.weight.detach() + change * torch.randn_like(layer.weight)
        for name, layer in linear.items()
    }
    calibration, spreading = calibrate(network, [x]), SpreadCollector()
    crises = measure_crises(network, calibration, changed, Batches(begin=lambda: [x]))
    measure_shifts(network, changed, calibration.neurons, batches or [x], spreading=spreading)
    return accumulate_flips(network, calibration, crises, spreading.found, [x]), spreading.found


many = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 5),
        "way": st.sampled_from(["plain", "shortcut", "relu", "twice"]),
        "beta": st.sampled_from([0.0, 0.5, 0.9]),
        "reset": st.sampled_from(["hard", "soft"]),
        "decay_input": st.booleans(),
    }
)


networks = given(st.integers(0, 10**6), st.sampled_from([1e-4, 0.001, 0.01]), many)


@pytest.mark.slow
@networks
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_the_bound_of_the_whole_holds(seed: int, change: float, how: dict[str, Any]) -> None:
    assert_bounded(seed, change, how)


@pytest.mark.slow
@networks
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
def test_it_holds_in_a_thousand_networks(seed: int, change: float, how: dict[str, Any]) -> None:
    assert_bounded(seed, change, how)


def assert_bounded(seed: int, change: float, how: dict[str, Any]) -> None:
    torch.manual_seed(seed)
    model = Chain(**how).eval()
    found, _ = spread_of(model, 2 * torch.rand(32, 5), change)
    assert [one.neuron for one in found] == ["neuron1", "neuron2"]
    before = torch.zeros(how["steps"]).double()
    for one in found:
        assert (one.hit >= before).all()  # what is hit before it is hit
        assert (one.hit.diff() >= 0).all()
        before = one.hit
        if one.bound is None or one.near is None:
            assert (one.neuron, how["way"]) == ("neuron2", "relu")
            continue
        assert (one.hit <= one.near + 1e-12).all()
        assert (one.near <= one.bound + 1e-12).all()
        assert (one.bound.diff() >= 0).all()


def test_the_bound_says_something_where_changes_are_small() -> None:
    torch.manual_seed(0)
    model = Chain(steps=3, way="shortcut", beta=0.5).eval()
    found, _ = spread_of(model, 2 * torch.rand(2048, 5), 1e-6)
    last = found[-1].bound
    assert last is not None
    assert 0 < float(last[-1]) < 0.01
    assert find_first_empty(found) is None


def test_membranes_near_the_threshold_are_counted_by_hand() -> None:
    x = torch.tensor([[0.75, 2.0], [0.25, 0.0]])
    network = trace(OneToOne().eval(), x)
    # from the threshold 0.25 and 0.75, then 0.125 and 0.625; the others are 1 from it at both steps
    radii = [
        torch.tensor([[0.25, 1.0], [0.625, 0.5]]).double(),
        torch.zeros(2, 2).double(),
        torch.tensor([[0.625, 1.0]]).double(),  # the last that is known holds for what comes after
    ]
    found = count_near(network, [("neuron", each) for each in radii], [(x, None)])
    assert [counts.tolist() for counts in found] == [[[1, 2], [2, 0]], [[0, 0]] * 2, [[3, 4]]]


def test_what_is_expected_near_and_its_bound_are_summed_over_places_and_steps() -> None:
    x = torch.tensor([[0.75, 1.5], [0.25, 0.0], [0.5, 1.0]])
    network = trace(OneToOne().eval(), x)
    changed = {"layer.weight": torch.diag(torch.tensor([0.875, 1.0625]))}
    calibration, spreading = calibrate(network, [x]), SpreadCollector()
    crises = measure_crises(network, calibration, changed, Batches(begin=lambda: [x]))
    measure_shifts(network, changed, ["neuron"], [x], spreading=spreading)
    (found,) = accumulate_flips(network, calibration, crises, spreading.found, [x])
    assert found.near is not None
    assert found.bound is not None
    (reached,) = (crisis.reached for crisis in crises)
    (counts,) = count_near(network, [("neuron", reached)], [(x, None)])
    near, bound = 0.0, 0.0
    for step in range(2):  # three places of each channel, and three samples
        chances = density_bound(calibration.neurons["neuron"], reached[step], counts[step] / 3)
        near, bound = near + float(counts[step].sum()) / 3, bound + float(chances.sum()) * 3 / 3
        assert float(found.near[step]) == pytest.approx(near)
        assert float(found.bound[step]) == pytest.approx(bound)
    assert 0 < near < bound


def test_before_a_changed_layer_nothing_is_near() -> None:
    torch.manual_seed(0)
    x = 2 * torch.rand(64, 5)
    network = trace(Chain(steps=2, way="plain", beta=0.5).eval(), x)
    changed = {"second.weight": network.weight("second.weight").detach() * 1.5}
    calibration, spreading = calibrate(network, [x]), SpreadCollector()
    crises = measure_crises(network, calibration, changed, Batches(begin=lambda: [x]))
    measure_shifts(network, changed, calibration.neurons, [x], spreading=spreading)
    first, second = accumulate_flips(network, calibration, crises, spreading.found, [x])
    assert first.near is not None
    assert first.bound is not None
    assert second.bound is not None
    assert not first.near.any()
    assert not first.bound.any()
    assert second.bound.any()


def test_the_first_bound_that_says_nothing_is_found_by_neuron_and_step() -> None:
    def of(neuron: str, *bound: float) -> AccumulatedFlips:
        shares = torch.tensor(bound).double()
        return AccumulatedFlips(neuron=neuron, flipped=shares, hit=shares, near=None, bound=shares)

    unknown = replace(of("c"), bound=None)
    assert find_first_empty([of("a", 0.1, 0.2, 0.99), of("b", 0.2, 1.0, 3.0)]) == ("b", 2)
    assert find_first_empty([of("a", 1.5, 2.0)]) == ("a", 1)
    assert find_first_empty([of("a", 0.1, 0.2)]) is None
    assert find_first_empty([of("a", 0.1), unknown, of("b", 1.0)]) is None


def step(
    spreading: SpreadCollector, neuron: str, flipped: Tensor, apart: Tensor, axis: int | None
) -> None:
    spreading.note_call(neuron, 1, 1)
    spreading.step(neuron, flipped, apart, axis)


@pytest.mark.parametrize("more", [(), (4,), (4, 4)])
def test_the_largest_change_of_a_channel_is_that_of_all_its_places(more: tuple[int, ...]) -> None:
    spreading, apart = SpreadCollector(), torch.rand(2, 3, *more)
    step(spreading, "n", apart < 0, apart, -1 - len(more))
    spreading.end()
    found = spreading.found["n"]
    assert found.untouched.shape == (1, 3)
    largest = [float(apart[:, channel].max()) for channel in range(3)]
    assert found.untouched[0].tolist() == pytest.approx(largest)


def test_neurons_of_different_numbers_of_steps_are_not_paired() -> None:
    spreading, none = SpreadCollector(), torch.zeros(2, 3)
    for neuron in ("a", "b", "b"):
        step(spreading, neuron, none > 0, none, -1)
    spreading.end()
    assert spreading.found == {}


class Relay(nn.Module):
    """A neuron that passes each input on, and a second one; two inputs, two steps: by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        for layer in (self.first, self.second):
            layer.weight = nn.Parameter(torch.eye(2))
        self.neuron1 = LIF(Dynamics(beta=0.5, threshold=1.0))
        self.neuron2 = LIF(Dynamics(beta=0.0, threshold=1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron2(self.second(self.neuron1(torch.stack([self.first(x)] * 2))))


def test_hits_are_counted_by_hand() -> None:
    model = Relay().eval()
    x = torch.tensor([[0.8, 2.0], [0.2, 0.0], [0.2, 2.0]])
    network = trace(model, x)
    # 0.8 fires at the second step, with 0.5 it does not; 2.0 no longer reaches the second neuron
    halved = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    spreading = SpreadCollector()
    changed = {"first.weight": halved, "second.weight": torch.diag(torch.tensor([1.0, 0.5]))}
    measure_shifts(network, changed, ["neuron1", "neuron2"], [x], spreading=spreading)
    first, second = spreading.found["neuron1"], spreading.found["neuron2"]
    assert list(spreading.found) == ["neuron1", "neuron2"]
    assert first.places.tolist() == [6, 6]
    assert first.flips.tolist() == [0, 1]
    assert first.hit.tolist() == [0, 1]  # the first sample, at the second step
    assert second.flips.tolist() == [2, 3]
    assert second.hit.tolist() == [2, 2]  # the first and the third
    assert second.samples.tolist() == [3, 3]
    # |du| of neuron1 before anything flips: 0.4 and, as the flip itself, 0.6; nothing of 2.0
    assert first.untouched.flatten().tolist() == pytest.approx([0.4, 0.0, 0.6, 0.0])
    # of neuron2, in samples that are untouched until then: 0 to 0 and 1 to 0.5
    assert second.untouched.flatten().tolist() == pytest.approx([0.0, 0.5, 0.0, 0.0])
    assert first.after == {"first.weight"}
    assert second.after == {"first.weight", "second.weight"}


def test_a_sample_is_touched_as_soon_as_a_neuron_before_has_flipped_in_the_same_step() -> None:
    x, spreading = torch.tensor([[0.8, 0.0]]), SpreadCollector()
    changed = {"first.weight": torch.diag(torch.tensor([0.5, 1.0])), "second.weight": torch.eye(2)}
    network = trace(Relay().eval(), x)
    measure_shifts(network, changed, ["neuron1", "neuron2"], [x], spreading=spreading)
    # neuron1 flips at the second step, so that neuron2 has 0 in place of 1 there
    assert spreading.found["neuron1"].hit.tolist() == [0, 1]
    assert spreading.found["neuron2"].flips.tolist() == [0, 1]
    assert spreading.found["neuron2"].untouched.flatten().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("change", [1.5, 1 + 1e-6], ids=("much", "hardly"))
def test_an_error_of_unknown_way_has_no_bound(change: float) -> None:
    """A layer without a neuron of its own before the next layer: not among what drives it."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)
            self.neuron = LIF(Dynamics(beta=0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(torch.stack([self.second(self.first(x).relu())] * 2))

    torch.manual_seed(0)
    model = Twice().eval()
    x = torch.rand(16, 5)
    network = trace(model, x)
    weight = model.first.weight.detach()
    spreading, calibration = SpreadCollector(), calibrate(network, [x])
    measure_shifts(network, {"first.weight": change * weight}, ["neuron"], [x], spreading=spreading)
    (found,) = accumulate_flips(network, calibration, [], spreading.found, [x])
    assert found.bound is None
    assert find_first_empty([found]) is None


def test_the_batches_do_not_matter() -> None:
    torch.manual_seed(0)
    model = Chain(steps=3, way="shortcut", beta=0.5).eval()
    x = 2 * torch.rand(12, 5)
    state = torch.get_rng_state()
    _, one = spread_of(model, x, 0.1)
    torch.set_rng_state(state)
    _, split = spread_of(model, x, 0.1, x[:5], x[5:7], x[7:])
    for name, spread in one.items():
        for kind, values in vars(spread).items():
            if kind != "after":
                other = getattr(split[name], kind)
                assert torch.allclose(values, other, rtol=1e-5, atol=1e-7), kind


def test_a_neuron_that_runs_twice_over_time_has_no_row_for_a_step() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
            self.neuron = LIF(Dynamics(beta=0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.second(self.neuron(self.first(torch.stack([x] * 2)))))

    torch.manual_seed(0)
    found, spread = spread_of(Shared().eval(), torch.rand(8, 5), 0.1)
    assert spread == {}
    assert found == ()
