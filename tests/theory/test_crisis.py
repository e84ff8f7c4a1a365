"""Bounds against what really happens: random layers, resets, decays and time steps."""

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
from snnprune.theory import crisis
from snnprune.theory.crisis import CrisisEstimate, measure_crises
from snnprune.theory.shifts import measure_shifts


class Small(nn.Module):
    """A convolution or linear layer, BatchNorm or none, and a neuron; (N, ...) over T steps."""

    def __init__(self, *, linear: bool, norm: bool, **neuron: Any) -> None:
        super().__init__()
        self.steps = neuron.pop("steps")
        self.layer: nn.Module = nn.Linear(6, 4) if linear else nn.Conv2d(2, 4, 3, padding=1)
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = nn.BatchNorm1d(4) if linear else nn.BatchNorm2d(4)
            nn.init.uniform_(self.norm.get_buffer("running_mean"), -0.3, 0.3)
            nn.init.uniform_(self.norm.get_buffer("running_var"), 0.3, 2)
            nn.init.uniform_(self.norm.get_parameter("weight"), -1.5, 1.5)
        self.neuron = LIF(Dynamics(**neuron))

    def forward(self, x: Tensor) -> Tensor:
        current = self.norm(self.layer(x))
        return self.neuron(torch.stack([current] * self.steps))


def crisis_of(seed: int, change: float, **how: Any) -> tuple[Small, CrisisEstimate, int]:
    torch.manual_seed(seed)
    model = Small(**how).eval()
    shape = (8, 6) if how["linear"] else (4, 2, 5, 5)
    x = 2 * torch.rand(shape)
    network = trace(model, x)
    weight = model.layer.get_parameter("weight").detach()
    changed = {"layer.weight": weight + change * torch.randn_like(weight)}
    (found,) = measure_crises(network, calibrate(network, [x]), changed, Batches(begin=lambda: [x]))
    return model, found, how["steps"]


many = st.fixed_dictionaries(
    {
        "linear": st.booleans(),
        "norm": st.booleans(),
        "steps": st.integers(1, 5),
        "beta": st.sampled_from([0.0, 0.25, 0.5, 0.9]),
        "reset": st.sampled_from(["hard", "soft"]),
        "decay_input": st.booleans(),
    }
)


layers = given(st.integers(0, 10**6), st.sampled_from([0.001, 0.05, 0.5]), many)


@pytest.mark.slow
@layers
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_the_bounds_hold(seed: int, change: float, how: dict[str, Any]) -> None:
    assert_bounded(seed, change, how)


@pytest.mark.slow
@layers
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
def test_they_hold_for_a_thousand_layers(seed: int, change: float, how: dict[str, Any]) -> None:
    assert_bounded(seed, change, how)


def assert_bounded(seed: int, change: float, how: dict[str, Any]) -> None:
    model, found, steps = crisis_of(seed, change, **how)
    known = model.neuron.dynamics
    gathered = crisis.geometric(known.beta, steps, decay_input=known.decay_input)
    slack = 1e-5 * (1 + found.error)
    assert (found.moved.compute_furthest() <= found.error * gathered + slack).all()
    assert (found.compute_flipped() <= found.near + 1e-12).all()
    assert (found.near <= found.bound + 1e-12).all()


@pytest.mark.parametrize(
    ("beta", "steps", "decay_input", "value"),
    [(0.5, 1, False, 1.0), (0.5, 3, False, 1.75), (1.0, 4, False, 4.0), (0.5, 2, True, 0.75)],
    ids=str,
)
def test_the_geometric_factor_by_hand(
    beta: float, steps: int, decay_input: bool, value: float
) -> None:
    assert crisis.geometric(beta, steps, decay_input=decay_input) == value


def test_unchanged_weights_flip_nothing() -> None:
    _, found, _ = crisis_of(
        0, 0.0, linear=False, norm=True, steps=3, beta=0.5, reset="hard", decay_input=False
    )
    assert float(found.moved.flips.sum()) == 0
    assert float(found.moved.compute_furthest().max()) == 0


def test_flips_are_counted_by_hand_and_the_first_of_a_course_apart() -> None:
    model = OneToOne().eval()
    x = torch.tensor([[0.8, 2.0], [0.2, 0.0]])
    network = trace(model, x)
    # 0.8: silent, then fires at 1.2; with 0.5 it is silent at 0.75. 2.0 fires twice either way
    changed = {"layer.weight": torch.tensor([[0.5, 0.0], [0.0, 1.0]])}
    happened, currents = measure_shifts(network, changed, ["neuron"], [x])
    found = happened["neuron"]
    assert found.places.tolist() == [4, 4]
    assert found.flips.tolist() == [1, 0]
    assert found.first.tolist() == [1, 0]
    assert found.clean.tolist() == [4, 4]
    assert currents["layer.weight"].tolist() == pytest.approx([0.4, 0.0])
    # the membranes: 0.8 and 1.2 against 0.4 and 0.6; 0.2 and 0.3 against 0.1 and 0.15
    assert found.size.tolist() == pytest.approx([0.4 + 0.6 + 0.1 + 0.15, 0.0])
    assert found.compute_furthest().tolist() == pytest.approx([0.6, 0.0])
    assert found.compute_mean().tolist() == pytest.approx([1.25 / 4, 0.0])
    assert found.compute_rate().tolist() == [1 / 4, 0.0]


class Comparing(nn.Module):
    """Four inputs, four comparisons with 1; one step."""

    def __init__(self, *, at: bool) -> None:
        super().__init__()
        self.at, self.layer = at, nn.Linear(4, 4, bias=False)
        self.layer.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        u = self.layer(x)
        return ((u >= 1) if self.at else (u > 1)).float().unsqueeze(0)


@pytest.mark.parametrize(("at", "flips"), [(True, [0, 0, 1, 1]), (False, [1, 1, 0, 0])])
def test_a_membrane_at_the_threshold_spikes_or_not_as_its_neuron_says(
    at: bool, flips: list[int]
) -> None:
    model, x = Comparing(at=at).eval(), torch.tensor([[1.0, 2.0, 1.0, 0.5]])
    network = trace(model, x)
    changed = {"layer.weight": torch.tensor([2.0, 0.5, 0.5, 2.0]).diag()}  # to 2, 1, 0.5, 1
    happened, _ = measure_shifts(network, changed, list(network.neurons), [x])
    (found,) = happened.values()
    assert found.flips.tolist() == flips


def test_of_a_single_place_everything_is_a_share_of_one() -> None:
    model, x = Comparing(at=True).eval(), torch.tensor([[1.0, 2.0, 1.0, 0.5]])
    network = trace(model, x)
    changed = {"layer.weight": torch.tensor([2.0, 0.5, 0.5, 2.0]).diag()}  # by 1, 1, 0.5, 0.5
    (found,) = measure_crises(network, calibrate(network, [x]), changed, Batches(begin=lambda: [x]))
    assert found.moved.places.tolist() == found.moved.clean.tolist() == [1, 1, 1, 1]
    assert found.compute_flipped().tolist() == [0, 0, 1, 1]
    assert found.moved.compute_mean().tolist() == [1, 1, 0.5, 0.5]
    assert found.near.tolist() == [1, 1, 1, 1]  # 0, 1, 0, 0.5 from the threshold


def test_an_estimate_is_the_density_at_the_threshold_times_the_mean_shift() -> None:
    _, found, steps = crisis_of(
        3, 0.05, linear=False, norm=True, steps=3, beta=0.5, reset="hard", decay_input=False
    )
    assert found.reached.shape == (steps, 4)
    assert torch.equal(found.radius, found.reached[2])
    shift = found.moved.compute_mean()
    for estimate, density in (
        (found.compute_estimate(), found.densities.gaussian),
        (found.compute_counted(), found.densities.counted),
    ):
        torch.testing.assert_close(estimate, (density * shift).clamp(max=1))
    flipped = found.compute_flipped()
    assert torch.equal(flipped, found.moved.first / found.moved.places)
    expected = crisis.rank_correlation(found.compute_counted(), flipped)
    assert found.compute_correlation() == expected


def test_an_error_is_the_largest_change_of_a_current_as_the_norm_hands_it_on() -> None:
    torch.manual_seed(1)
    how = {"steps": 2, "beta": 0.5, "reset": "hard", "decay_input": False}
    model = Small(linear=True, norm=True, **how).eval()
    x = 2 * torch.rand(8, 6)
    network, weight = trace(model, x), model.layer.get_parameter("weight").detach()
    changed = {"layer.weight": weight + 0.1 * torch.randn_like(weight)}
    batches = Batches(begin=lambda: [x])
    (found,) = measure_crises(network, calibrate(network, [x]), changed, batches)
    sigma = (model.norm.get_buffer("running_var").double() + 1e-5).sqrt()
    factor = model.norm.get_parameter("weight").detach().double().abs() / sigma
    moved = (x @ (changed["layer.weight"] - weight).T).abs().amax(0).double()
    torch.testing.assert_close(found.error, moved * factor, rtol=1e-5, atol=1e-7)
    reached = torch.stack([found.error, 1.5 * found.error])
    torch.testing.assert_close(found.reached, reached, rtol=1e-4, atol=0)


def test_the_largest_change_of_a_current_is_that_of_any_batch() -> None:
    model = OneToOne().eval()
    x = torch.tensor([[0.8, 0.1], [0.2, 0.4]])
    network = trace(model, x[:1])
    changed = {"layer.weight": 0.5 * torch.eye(2)}
    _, currents = measure_shifts(network, changed, ["neuron"], [x[:1], x[1:]])
    assert currents["layer.weight"].tolist() == pytest.approx([0.4, 0.2])


def test_a_current_that_is_changed_in_place_afterwards_counts_as_the_layer_gave_it() -> None:
    class Tenfold(OneToOne):
        def forward(self, x: Tensor) -> Tensor:
            current = self.layer(x).mul_(10)
            return self.neuron(torch.stack([current] * 2))

    x = torch.tensor([[0.8, 0.1], [0.2, 0.4]])
    network = trace(Tenfold().eval(), x)
    _, currents = measure_shifts(network, {"layer.weight": 0.5 * torch.eye(2)}, ["neuron"], [x])
    assert currents["layer.weight"].tolist() == pytest.approx([0.4, 0.2])


def test_after_a_flip_a_place_is_no_longer_clean() -> None:
    model = OneToOne().eval()
    x = torch.tensor([[1.2, 0.0]])
    network = trace(model, x)
    happened, _ = measure_shifts(network, {"layer.weight": 0.5 * torch.eye(2)}, ["neuron"], [x])
    found = happened["neuron"]
    assert found.flips.tolist() == [2, 0]  # it fires at both steps, or at none (0.6, 0.9)
    assert found.first.tolist() == [1, 0]
    assert found.clean.tolist() == [1, 2]


class Twice(nn.Module):
    """One layer, twice into the same neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        self.layer.weight = nn.Parameter(0.4 * torch.eye(2))
        self.neuron = LIF(Dynamics(beta=0.5, threshold=0.75))

    def forward(self, x: Tensor) -> Tensor:
        current = self.layer(x) + self.layer(x.flip(1))
        return self.neuron(torch.stack([current] * 2))


def test_a_layer_that_is_used_twice_goes_further_than_its_current_says() -> None:
    model, x = Twice().eval(), torch.ones(4, 2)
    network = trace(model, x)
    changed = {"layer.weight": 0.35 * torch.eye(2)}  # 0.8 becomes 0.7, by 0.05 and 0.05
    (found,) = measure_crises(network, calibrate(network, [x]), changed, Batches(begin=lambda: [x]))
    assert found.error.tolist() == pytest.approx([0.05, 0.05])
    assert not found.followed
    assert found.compute_flipped().tolist() == [0.5, 0.5]  # at the first step
    assert (found.compute_flipped() <= found.near).all()


def test_the_batches_do_not_matter() -> None:
    torch.manual_seed(0)
    model = Small(
        linear=False, norm=True, steps=3, beta=0.5, reset="hard", decay_input=False
    ).eval()
    x = torch.rand(12, 2, 5, 5)
    network = trace(model, x[:2])
    weight = model.layer.get_parameter("weight").detach()
    changed = {"layer.weight": 0.8 * weight}
    one, _ = measure_shifts(network, changed, ["neuron"], [x])
    many, _ = measure_shifts(network, changed, ["neuron"], [x[:5], x[5:7], x[7:]])
    for name, values in vars(one["neuron"]).items():
        assert torch.allclose(values, getattr(many["neuron"], name), rtol=1e-6), name


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 2, 3], [1, 1, 2, 3], 1.0),
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
        ([1, 2, 2, 3], [1, 3, 2, 4], 0.9486832980505138),  # as SciPy says
    ],
    ids=str,
)
def test_rank_correlation_is_spearman_s(
    one: list[float], other: list[float], value: float | None
) -> None:
    found = crisis.rank_correlation(torch.tensor(one).double(), torch.tensor(other).double())
    assert found is value if value is None else found == pytest.approx(value)
