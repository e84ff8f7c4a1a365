"""Real networks of snnTorch: links, membranes, scores, and nothing left behind."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import snntorch
import torch
from behaviour import Behaviour, DropIn, Networks, cases_of, made_of
from torch import Tensor, nn
from zoo import Links, One, calibrated, images, left_out, seen

from snnprune.graph.libraries import library_of
from snnprune.graph.trace import trace

PICTURES = images(2, 3, 8, 8)


class Tutorial(nn.Module):
    """snnTorch's tutorial style: state handed round, (spikes, membranes) over time put out."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif1 = snntorch.Leaky(beta=0.8, threshold=0.7, **options)
        self.fc = nn.Linear(4 * 64, 10)
        self.lif2 = snntorch.Synaptic(alpha=0.9, beta=0.8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1 = self.lif1.init_leaky()
        syn2, mem2 = self.lif2.init_synaptic()
        spikes, membranes = [], []
        for _ in range(3):
            spk1, mem1 = self.lif1(self.bn(self.conv(x)), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc(spk1.flatten(1)), syn2, mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Hidden(nn.Module):
    """Hidden state: neurons that give spikes alone; the steps are put out as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif1 = snntorch.Leaky(beta=0.8, init_hidden=True, reset_delay=False)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.fc(self.lif1(self.bn(self.conv(x))).flatten(1)) for _ in range(3)]


def deep() -> nn.Module:
    """A container of modules, one step as the tutorials' `nn.Sequential` has it."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)),
        snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True),
        *(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)),
        snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=True),
    )


NETWORKS: Networks = {
    "tutorial": (Tutorial, PICTURES),
    "reset to zero": (
        lambda: Tutorial(reset_mechanism="zero", graded_spikes_factor=2.0),
        PICTURES,
    ),
    "hidden": (Hidden, PICTURES),
    "deep": (deep, PICTURES),
}
TUTORIAL_LINKS: Links = {
    "conv": (["lif1"], ["bn"], [], True),
    "fc": (["lif2"], [], [], False),
}
LINKS: dict[str, Links] = {
    "tutorial": TUTORIAL_LINKS,
    "reset to zero": TUTORIAL_LINKS,
    "hidden": {"conv": (["lif1"], ["bn"], [], True), "fc": ([], [], [], False)},
    "deep": {"0": (["2"], ["1"], [], True), "3": (["5"], ["4"], [], False)},
}

made = functools.partial(made_of, NETWORKS)
case = cases_of(NETWORKS, LINKS)


class TestBehaviour(Behaviour):
    results = (".reset",)


class TestDropIn(DropIn):
    network, weight = "deep", "3.weight"


@torch.no_grad()
def test_a_membrane_equals_an_independent_simulation() -> None:
    network = trace(*made("tutorial"))
    module: Any = network.module
    current = module.bn(module.conv(PICTURES)).double()
    u, expected = torch.zeros_like(current), []
    for _ in range(3):  # the reset by subtraction comes one step later
        fired = (u > 0.7).double()
        u = 0.8 * u + current - 0.7 * fired
        expected.append(u - 0.7)
    found = seen(network, PICTURES)[0]["lif1"].double()
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


def test_a_threshold_by_channel_may_have_the_form_of_a_picture() -> None:
    values = torch.tensor([0.1, 0.2, 0.4, 0.8])
    found = []
    for threshold in (values.view(4, 1, 1), torch.full((), 0.4)):
        torch.manual_seed(0)
        module = Tutorial().eval()
        module.lif1 = snntorch.Leaky(beta=0.8, threshold=threshold)
        found.append(calibrated(module, PICTURES).neurons["lif1"])
    by_channel, alike = found
    torch.testing.assert_close(by_channel.threshold, values.double())
    # the third has the same threshold in both, and nothing of other channels comes to it
    for one in ("firing_rate", "membrane_mean", "membrane_var"):
        torch.testing.assert_close(getattr(by_channel, one)[2], getattr(alike, one)[2])


def test_a_membrane_statistic_is_of_the_membrane_and_not_of_the_distance() -> None:
    network = trace(*made("tutorial"))
    found = calibrated(network, PICTURES).neurons["lif1"]
    mean = seen(network, PICTURES)[0]["lif1"].double().mean((0, 1, 3, 4)) + 0.7
    torch.testing.assert_close(found.membrane_mean, mean, rtol=1e-5, atol=1e-6)
    assert found.threshold.tolist() == pytest.approx([0.7] * 4)
    assert math.isfinite(float(found.membrane_var.sum()))


def test_constants_are_read_off_the_neurons() -> None:
    neurons = (snntorch.Leaky(beta=0.8, threshold=0.7), snntorch.Leaky(beta=torch.rand(3)))
    leaky, each = [library_of(one).constants(one) for one in neurons]  # type: ignore[union-attr]  # both known
    assert (leaky.beta, float(leaky.threshold)) == pytest.approx((0.8, 0.7))
    assert each.beta is None


EXPLAINED: dict[str, Callable[[], nn.Module]] = {
    "Lapicque": lambda: snntorch.Lapicque(beta=0.9, threshold=0.1, init_hidden=True),
    "Alpha": lambda: snntorch.Alpha(alpha=0.9, beta=0.8, threshold=0.1, init_hidden=True),
    "RLeaky": lambda: snntorch.RLeaky(beta=0.9, all_to_all=False, init_hidden=True),
    "RSynaptic": lambda: snntorch.RSynaptic(
        alpha=0.9, beta=0.8, all_to_all=False, init_hidden=True
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    found = calibrated(One(EXPLAINED[name]()).eval(), images(4, 1, 8, 8))
    assert float(found.neurons["spikes"].firing_rate.mean()) > 0.05
    assert not left_out(found)
