"""What comparisons in somebody's code are neurons, and what is said of those that are not sure."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph import comparisons
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
STEPS, SAMPLES = 4, 10


def fire(x: Tensor) -> Tensor:
    return (x > 0).float()


class Loop(nn.Module):
    """Two layers and a step function that takes a membrane and a current to (spikes, membrane)."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.second, self.norm2 = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)
        self.readout = nn.Linear(6 * 16, 3)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        u = torch.zeros(len(x), 6, 6, 6)
        u2 = torch.zeros(len(x), 6, 4, 4)
        outputs = []
        for _ in range(STEPS):
            s, u = self.step(u, self.norm(self.first(x)))
            s2, u2 = self.step(u2, self.norm2(self.second(s)))
            outputs.append(self.readout(s2.flatten(1)))
        return torch.stack(outputs)


def network(step: Step) -> Network:
    torch.manual_seed(0)
    module = Loop(step).eval()
    for norm in (module.norm, module.norm2):
        nn.init.uniform_(norm.bias, 0.0, 0.5)
    return trace(module, images()[:2])


def images() -> Tensor:
    return torch.rand(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def found(step: Step, size: int = SAMPLES) -> Calibration:
    return calibrate(network(step), images().split(size))


def plain(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    u = 0.5 * u + current
    s = fire(u - 0.5)
    return s, u * (1 - s)


SECOND = "spikes after second"


def same(one: Calibration, other: Calibration, name: str = SECOND) -> None:
    """That both know the same of a neuron."""
    for field in ("membrane_mean", "membrane_var", "firing_rate"):
        found, expected = (getattr(c.neurons[name], field) for c in (one, other))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert one.time_steps == other.time_steps == STEPS


@pytest.mark.many(1)
@pytest.mark.parametrize("size", [1, 3, 4])
def test_every_batch_counts_whatever_its_size(size: int) -> None:
    many = found(plain, size)
    same(many, found(plain))
    histogram = many.neurons[SECOND].membrane_histogram
    assert int(histogram.sum()) == STEPS * SAMPLES * 6 * 4 * 4


class Growing(nn.Module):
    """From the second step on, another layer adds to the drive."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back, self.out = nn.Linear(9, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        u, spikes, total = torch.zeros(len(x), 5), None, torch.zeros(len(x), 3)
        for _ in range(STEPS):
            u = 0.9 * u + self.forth(x)
            if spikes is not None:
                u = u + self.back(spikes)
            spikes = fire(u - 0.3)
            u = u - 0.3 * spikes
            total = total + self.out(spikes)
        return total


def test_a_drive_that_grows_after_the_first_step_counts_in_every_batch() -> None:
    torch.manual_seed(0)
    traced = trace(Growing().eval(), torch.rand(2, 9))
    x = torch.rand(12, 9)
    one, many = (calibrate(traced, x.split(size)) for size in (12, 4))
    name = "spikes after forth"
    same(many, one, name)
    assert int(one.neurons[name].membrane_histogram.sum()) == STEPS * 12 * 5


def test_a_membrane_that_is_compared_in_another_scale_is_the_same_membrane() -> None:
    def divided(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.5 * u + current
        s = fire(u / 0.5 - 1)
        return s, u * (1 - s)

    def steep(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.5 * u + current
        s = fire(10 * (u - 0.5))
        return s, u * (1 - s)

    def mirrored_twice(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.5 * u + current
        s = fire(-4 * (0.5 - u))
        return s, u * (1 - s)

    expected = found(plain)
    for step in (divided, steep, mirrored_twice):
        other = found(step)
        # thresholds are told as 0, and the membrane as its distance to it
        same(other, expected)


def test_a_first_step_without_a_state_is_a_step_of_the_same_neuron() -> None:
    def stateless_first(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = current if not u.any() else 0.5 * u + current
        s = fire(u / 0.5 - 1)
        return s, u * (1 - s)

    same(found(stateless_first), found(plain))


def test_a_clamp_by_comparison_is_no_neuron() -> None:
    def clamped(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.5 * u + current
        u = torch.where(u < -1e6, torch.full_like(u, -1e6), u)
        return plain(2 * u, torch.zeros_like(u))

    same(found(clamped), found(plain))


def test_two_populations_under_one_current_are_two_neurons() -> None:
    def two(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        return plain(u, current)

    class Populations(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(9, 5), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            slow, fast, outputs = torch.zeros(len(x), 5), torch.zeros(len(x), 5), []
            for _ in range(STEPS):
                current = self.layer(x)
                s1, slow = plain(1.8 * slow, current)
                s2, fast = plain(0.1 * fast, current)
                outputs.append(self.out(torch.cat([s1, s2], dim=1)))
            return torch.stack(outputs)

    torch.manual_seed(0)
    traced = trace(Populations().eval(), torch.rand(2, 9))
    links = traced.layers["layer.weight"].links
    assert len({link.neuron for link in links}) == 2
    statistics = calibrate(traced, torch.rand(20, 9).split(7))
    assert statistics.time_steps == STEPS
    means = [statistics.neurons[link.neuron].membrane_mean for link in links]
    assert not torch.allclose(means[0], means[1])


LEVELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "taken off": lambda u, threshold: u - threshold,
    "divided by": lambda u, threshold: u / threshold - 1,
    "scaled to one": lambda u, threshold: 0.5 / threshold * u - 0.5,
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("form", LEVELS)
def test_thresholds_that_a_loop_goes_through_are_neurons_of_their_own(
    form: str, late: bool
) -> None:
    class Graded(nn.Module):
        """Spikes are counted by levels; the second may be there from the second step on."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(9, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            u, outputs = torch.zeros(len(x), 5), []
            for t in range(STEPS):
                u = 0.5 * u + self.layer(x)
                levels = (0.2,) if late and t == 0 else (0.2, 0.5)
                s = torch.stack([fire(LEVELS[form](u, level)) for level in levels]).sum(0)
                u = u - 0.2 * s
                outputs.append(self.out(s))
            return torch.stack(outputs)

    torch.manual_seed(0)
    module, x = Graded().eval(), torch.rand(20, 9)
    statistics = calibrate(trace(module, x[:2]), x.split(8))
    assert statistics.time_steps == STEPS
    u, distances = torch.zeros(20, 5), list[Tensor]()
    for t in range(STEPS):
        u = 0.5 * u + module.layer(x).detach()
        distances.append(torch.stack([u - 0.2, u - 0.5]).double())
        u = u - 0.2 * (fire(u - 0.2) + (0 if late and t == 0 else fire(u - 0.5)))
    one, two = torch.stack(distances, 1).unbind()
    for name, expected in (("spikes after layer", one), ("spikes after layer (1)", two[late:])):
        found = statistics.neurons[name]
        torch.testing.assert_close(found.membrane_mean, expected.mean((0, 1)))
        torch.testing.assert_close(found.firing_rate, fire(expected).double().mean((0, 1)))
    assert len(statistics.neurons) == 2


@pytest.mark.parametrize("form", LEVELS)
def test_a_threshold_that_changes_from_step_to_step_is_that_of_one_neuron(form: str) -> None:
    levels = (0.2, 0.3, 0.4, 0.5)

    class Tiring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(9, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            u, outputs = torch.zeros(len(x), 5), []
            for level in levels:
                u = 0.5 * u + self.layer(x)
                outputs.append(self.out(fire(LEVELS[form](u, level))))
            return torch.stack(outputs)

    torch.manual_seed(0)
    module, x = Tiring().eval(), torch.rand(20, 9)
    statistics = calibrate(trace(module, x[:2]), x.split(8))
    current = module.layer(x).detach().double()
    u = torch.stack([current * (2 - 0.5**t) for t in range(STEPS)])
    expected = (u - torch.tensor(levels).double().view(-1, 1, 1)).mean((0, 1))
    (found,) = statistics.neurons.values()
    assert statistics.time_steps == STEPS
    torch.testing.assert_close(found.membrane_mean, expected, rtol=1e-5, atol=1e-6)


def test_ternary_spikes_are_two_neurons_with_a_threshold_each() -> None:
    def ternary(u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.5 * u + current
        return (u >= 0.4).float() - (u <= -0.4).float(), u

    traced = network(ternary)
    (up, down) = traced.layers["second.weight"].links
    statistics = calibrate(traced, images().split(4))
    rates = [statistics.neurons[link.neuron].firing_rate for link in (up, down)]
    apart = [statistics.neurons[link.neuron].membrane_mean for link in (up, down)]
    assert all(float(rate.sum()) > 0 for rate in rates)
    torch.testing.assert_close(apart[1] - apart[0], torch.full_like(apart[0], 0.8))


@pytest.mark.parametrize("joined", ["product", "condition"])
def test_a_neuron_that_something_else_holds_back_is_left_out(joined: str) -> None:
    class Refractory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.out = nn.Linear(9, 5), nn.Linear(5, 5), nn.Linear(5, 3)
            self.norm = nn.BatchNorm1d(5)

        def forward(self, x: Tensor) -> Tensor:
            u, rest, outputs = torch.zeros(len(x), 5), torch.zeros(len(x), 5), []
            u2 = torch.zeros(len(x), 5)
            for _ in range(STEPS):
                u = 0.9 * u + self.norm(self.first(x))
                if joined == "product":
                    s = fire(u - 0.3) * (rest <= 0)
                else:
                    s = ((u > 0.3) & (rest <= 0)).float()
                rest = torch.where(s > 0, torch.full_like(rest, 2.0), rest - 1)
                s2, u2 = plain(u2, self.second(s))
                outputs.append(self.out(s2))
            return torch.stack(outputs)

    torch.manual_seed(0)
    traced = trace(Refractory().eval(), torch.rand(2, 9))
    (link,) = traced.layers["first.weight"].links
    statistics = calibrate(traced, torch.rand(8, 9).split(4))
    assert link.neuron not in statistics.neurons
    assert "something else decides" in " ".join(statistics.warnings)


def test_a_relu_by_comparison_is_no_neuron_to_score_by() -> None:
    class Rectified(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.out = nn.Linear(9, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            h = h * (h > 0)
            u, outputs = torch.zeros(len(x), 5), []
            for _ in range(STEPS):
                s, u = plain(u, self.second(h))
                outputs.append(self.out(s))
            return torch.stack(outputs)

    torch.manual_seed(0)
    traced = trace(Rectified().eval(), torch.rand(2, 9))
    statistics = calibrate(traced, [torch.rand(8, 9)])
    assert set(statistics.neurons) == {"spikes after second"}
    assert not statistics.layers["first.weight"].drives


GAINS: dict[str, tuple[Callable[[Tensor], Tensor], float | None, str]] = {
    "a number": (lambda y: y * 3.0, 3.0, ""),
    "a number below": (lambda y: y / 4.0, 0.25, ""),
    "per channel": (
        lambda y: y * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1),
        None,
        "",
    ),
    "per place": (lambda y: y * torch.rand(4, 4), None, "not the same everywhere in a channel"),
    "tanh": (torch.tanh, None, "tanh stands between"),
    "permuted": (lambda y: y[:, torch.tensor([5, 4, 3, 2, 1, 0])], None, "index stands between"),
    "flipped": (lambda y: y.flip(1), None, "flip stands between"),
    "another weight": (
        lambda y: functional.conv_transpose2d(y, torch.eye(6).view(6, 6, 1, 1)),
        None,
        "conv_transpose2d stands between",
    ),
}


@pytest.mark.many(4)
@pytest.mark.parametrize("name", GAINS)
def test_what_stands_between_a_norm_and_its_neuron_counts_or_is_told(name: str) -> None:
    change, factor, reason = GAINS[name]

    class Changed(Loop):
        def forward(self, x: Tensor) -> Tensor:
            u, u2 = torch.zeros(len(x), 6, 6, 6), torch.zeros(len(x), 6, 4, 4)
            outputs = []
            for _ in range(STEPS):
                s, u = plain(u, self.norm(self.first(x)))
                s2, u2 = plain(u2, change(self.norm2(self.second(s))))
                outputs.append(self.readout(s2.flatten(1)))
            return torch.stack(outputs)

    torch.manual_seed(0)
    traced = trace(Changed(plain).eval(), images()[:2])
    statistics = calibrate(traced, [images()]).layers["second.weight"]
    if reason:
        assert reason in (statistics.refused or "")
        return
    module = traced.module.get_submodule("norm2")
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_var is not None
    expected = (module.weight.detach().abs() / (module.running_var + module.eps).sqrt()).double()
    expected = expected * (factor or torch.arange(1.0, 7.0, dtype=torch.float64))
    torch.testing.assert_close(statistics.drives[0].bn_scale, expected)


def test_spikes_that_are_written_into_a_tensor_are_followed() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(9, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            u, spikes = torch.zeros(len(x), 5), torch.zeros(STEPS, len(x), 5)
            for t in range(STEPS):
                spikes[t], u = plain(u, self.first(x))
            return self.second(spikes)

    traced = trace(Written().eval(), torch.rand(2, 9))
    assert [link.neuron for link in traced.layers["first.weight"].links] == ["spikes after first"]
    assert not traced.layers["second.weight"].encoding


def test_data_stay_as_they_are_where_a_network_works_in_place() -> None:
    class InPlace(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).div_(0.25))

    torch.manual_seed(0)
    x = images()
    traced = trace(InPlace(plain).eval(), x)
    assert torch.equal(x, images())
    calibrate(traced, x.split(4))
    assert torch.equal(x, images())


@pytest.mark.parametrize("also_equal", [False, True])
def test_steps_at_rest_before_any_input_count(also_equal: bool) -> None:
    # channels begin below, at and above the threshold
    start, threshold = torch.tensor([0.0, 0.25, 1.0]), 0.25

    class FiresFirst(nn.Module):
        """Compares the membrane of the step before, and then lets the current in."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(9, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            u, outputs = start.expand(len(x), 3), []
            for t in range(STEPS):
                s = (u >= threshold if also_equal else u > threshold).float()
                u = 0.5 * u * (1 - s)
                if t > 1:  # it comes two steps late
                    u = u + self.layer(x)
                outputs.append(self.out(s))
            return torch.stack(outputs)

    torch.manual_seed(0)
    module, x = FiresFirst().eval(), torch.rand(20, 9)
    found = calibrate(trace(module, x[:2]), x.split(8)).neurons["spikes after layer"]
    u, membranes, spikes = start.double().expand(20, 3), [], []
    for t in range(STEPS):
        spikes.append((u >= threshold if also_equal else u > threshold).double())
        membranes.append(u - threshold)
        u = 0.5 * u * (1 - spikes[-1])
        if t > 1:
            u = u + module.layer(x).detach()
    torch.testing.assert_close(found.membrane_mean, torch.cat(membranes).mean(0))
    torch.testing.assert_close(found.firing_rate, torch.cat(spikes).mean(0))
    assert int(found.membrane_histogram.sum()) == STEPS * 20 * 3


def test_of_a_long_rest_before_any_input_the_first_steps_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparisons, "RESTING", 2)

    class Late(nn.Module):
        """Compares the membrane of the step before; the current comes at the last step."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(9, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            u, outputs = torch.zeros(len(x), 3), []
            for t in range(5):
                outputs.append(self.out((u > 0.25).float()))
                u = 0.5 * u + self.layer(x) if t == 3 else u
            return torch.stack(outputs)

    torch.manual_seed(0)
    x = torch.rand(20, 9)
    found = calibrate(trace(Late().eval(), x[:2]), [x]).neurons["spikes after layer"]
    assert int(found.membrane_histogram.sum()) == (2 + 1) * 20 * 3
