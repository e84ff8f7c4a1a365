"""The variants of `sf` against their formulas, on membranes that are simulated here by hand."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.allocation.rules import compute_flip_energies, compute_flip_levels
from snnprune.pruning.criteria import Evidence, load_criterion
from snnprune.pruning.criteria.spiking import (
    compute_flip_energy,
    log_density_at_threshold,
    log_density_of_histogram,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports
    from spikingjelly.activation_based import layer, neuron

Array = np.ndarray[Any, np.dtype[np.float64]]
STEPS, CHANNELS = 4, 5
IMAGES = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(3)) * 2
VARIANTS = ("sf-std", "sf-steps", "sf-histogram")


def shuffled(module: nn.Module) -> nn.Module:
    """In eval mode, its BatchNorms as if trained."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -3.0, 3.0)
            nn.init.uniform_(norm.bias, 0.6, 1.2)
            assert norm.running_var is not None
            norm.running_var.uniform_(0.01, 0.1)
    return module.eval()


class Jelly(nn.Module):
    """conv, LIF, average pool, conv with BatchNorm, LIF of decayed input, with a loop of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3), neuron.LIFNode(tau=2.0, v_threshold=0.2))
        self.pool = layer.AvgPool2d(2)
        self.conv, self.norm = layer.Conv2d(4, CHANNELS, 2), layer.BatchNorm2d(CHANNELS)
        self.neuron = neuron.LIFNode(tau=4.0, v_threshold=0.6, v_reset=0.0)
        self.fc = nn.Linear(CHANNELS * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = [self.neuron(self.norm(self.conv(self.pool(self.first(x))))) for _ in range(STEPS)]
        out: Tensor = self.fc(torch.stack(steps).flatten(2)).mean(0)
        return out


class Own(nn.Module):
    """The same of our own parts, all steps at once, without the pool; spikes enter the conv."""

    def __init__(self) -> None:
        super().__init__()
        first = LIF(Dynamics(beta=0.5, decay_input=True, threshold=0.2))
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), first)
        self.conv, self.norm = nn.Conv2d(4, CHANNELS, 2), nn.BatchNorm2d(CHANNELS)
        self.neuron = LIF(Dynamics(beta=0.75, decay_input=True, threshold=0.6))
        self.fc = nn.Linear(CHANNELS * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first[1](self.first[0](x).expand(STEPS, -1, -1, -1, -1))
        current = self.norm(self.conv(spikes.flatten(0, 1))).unflatten(0, (STEPS, -1))
        out: Tensor = self.fc(self.neuron(current).flatten(2)).mean(0)
        return out


class Case:
    """A network, its calibration, and what its conv sees and its neuron holds, float64."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        torch.manual_seed(7)
        self.module: Any = shuffled(build())
        self.network: Network = trace(self.module, IMAGES[:1])
        batches = [(part, None) for part in IMAGES.split(16)]
        self.calibration: Calibration = calibrate(self.network, batches)
        self.inputs, currents = self._seen()
        self.u = membrane(currents)

    def _seen(self) -> tuple[Array, Array]:
        """Of the conv and of the neuron behind it, (T, N, C, H, W)."""
        for module in self.module.modules():
            if hasattr(module, "reset"):
                module.reset()
        kept: dict[str, list[Array]] = {"conv": [], "neuron": []}
        for name, found in kept.items():
            self.module.get_submodule(name).register_forward_pre_hook(
                lambda _, args, found=found: found.append(args[0].double().numpy())
            )
        with torch.no_grad():
            self.module(IMAGES)
        inputs, currents = (np.concatenate(found) for found in kept.values())
        shape = (STEPS, len(IMAGES))
        return inputs.reshape(*shape, *inputs.shape[-3:]), currents.reshape(
            *shape, *currents.shape[-3:]
        )

    @property
    def factor(self) -> Array:
        """|gamma| / sigma of each channel."""
        norm = self.module.norm
        sigma = np.sqrt(norm.running_var.double().numpy() + norm.eps)
        factor: Array = np.abs(norm.weight.detach().double().numpy()) / sigma
        return factor

    def evidence(self) -> Evidence:
        statistics = self.calibration.layers["conv.weight"]
        return Evidence(weight=self.module.conv.weight, key="conv.weight", statistics=statistics)

    def expected(self, effect: Array, density: Array) -> Array:
        """|w| times the effect of the input times what the channel makes of it."""
        weight = np.abs(self.module.conv.weight.detach().double().numpy())
        # the neurons' decays differ: (1 - beta^T) / (1 - beta) of a decayed input
        row = self.factor * density * (1 - 0.75**STEPS)
        p: Array = weight * effect[None, :, None, None] * row[:, None, None, None]
        return p


def membrane(currents: Array) -> Array:
    """u = 3/4 h + 1/4 x, threshold 0.6, hard reset to 0."""
    h, us = np.zeros_like(currents[0]), []
    for x in currents:
        u = 0.75 * h + 0.25 * x
        h = np.where(u >= 0.6, 0.0, u)
        us.append(u)
    return np.stack(us)


def gaussian(mean: Array, variance: Array) -> Array:
    """At the threshold."""
    density: Array = np.exp(-((0.6 - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return density


@pytest.fixture(scope="module", params=[Jelly, Own])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def of_all(case: Case) -> Array:
    return gaussian(case.u.mean((0, 1, 3, 4)), case.u.var((0, 1, 3, 4)))


def test_sf_std_takes_the_standard_deviation_of_the_input(case: Case) -> None:
    spread = case.inputs.std((0, 1, 3, 4))
    kind = case.calibration.layers["conv.weight"].input_values
    assert kind == ("analog" if isinstance(case.module, Jelly) else "binary")
    if kind == "binary":
        rate = case.inputs.mean((0, 1, 3, 4))
        np.testing.assert_allclose(spread, np.sqrt(rate * (1 - rate)))
    found = load_criterion("sf-std")(case.evidence()).exp().detach().numpy()
    np.testing.assert_allclose(found, case.expected(spread, of_all(case)), rtol=1e-4)


def test_sf_steps_is_the_mean_over_steps_of_a_gaussian_each(case: Case) -> None:
    by_step = gaussian(case.u.mean((1, 3, 4)), case.u.var((1, 3, 4)))
    rate = case.inputs.mean((0, 1, 3, 4))
    found = load_criterion("sf-steps")(case.evidence()).exp().detach().numpy()
    np.testing.assert_allclose(found, case.expected(rate, by_step.mean(0)), rtol=1e-4)
    assert not np.allclose(by_step.mean(0), of_all(case), rtol=0.1)  # or the test shows nothing


def test_sf_histogram_counts_around_the_threshold(case: Case) -> None:
    rows = np.moveaxis(case.u, 2, 0).reshape(CHANNELS, -1) - 0.6
    size = rows.shape[1]
    reach = 1.8431 * rows.std(1) * size**-0.2
    reach = np.maximum(1, np.round(reach * 16)) / 16  # whole bins of 1/16
    near = ((rows >= -reach[:, None]) & (rows < reach[:, None])).sum(1)
    assert (near > 20).sum() >= 2
    density = near / (2 * reach * size)
    rate = case.inputs.mean((0, 1, 3, 4))
    found = load_criterion("sf-histogram")(case.evidence()).exp().detach().numpy()
    expected = case.expected(rate, density)
    some = near > 0
    # float32 may put one value on the other side of an edge
    assert (np.abs(found[some] / expected[some] - 1) < 2 / near[some][:, None, None, None]).all()


def test_a_histogram_sees_the_gap_that_a_gaussian_does_not() -> None:
    two_humps = np.concatenate([np.linspace(-1.6, -0.9, 500), np.linspace(0.9, 1.6, 500)])
    (gap,) = log_density_of_histogram(neuron_of(two_humps)).exp().tolist()  # type: ignore[union-attr]  # edges are there
    (smooth,) = log_density_at_threshold(neuron_of(two_humps)).exp().tolist()
    assert smooth > 0.25
    assert gap < 0.005


def test_a_histogram_of_a_gaussian_gives_its_density() -> None:
    seed = np.random.default_rng(5)
    for mean, sigma in ((0.0, 1.0), (-0.7, 0.5), (0.3, 0.2)):
        values = neuron_of(seed.normal(mean, sigma, 200_000))
        found = log_density_of_histogram(values)
        assert found is not None
        assert found.item() == pytest.approx(log_density_at_threshold(values).item(), abs=0.05)


def test_membranes_beyond_the_bins_are_among_those_that_a_density_is_of() -> None:
    half_beyond = np.concatenate([np.linspace(-3.99, 3.99, 800), np.full(800, 9.0)])
    found = log_density_of_histogram(neuron_of(half_beyond))
    assert found is not None
    assert found.exp().item() == pytest.approx(0.5 / 7.98, rel=0.02)


@pytest.mark.parametrize("bins", [-5.5, -4.5, -3.5, 0.5, 3.5, 4.5, 5.5])
def test_a_single_count_is_one_within_reach_and_less_than_half_beyond_it(bins: float) -> None:
    values = np.append(np.linspace(-3.0, -2.0, 99), bins / 16)
    reach = round(1.8431 * float(values.std()) * 100**-0.2 * 16)
    assert reach == (4 if bins < 0 else 5)  # bins of 1/16 on each side of the threshold
    found = log_density_of_histogram(neuron_of(values))
    assert found is not None
    one = 1 / (2 * reach / 16 * 100)
    if abs(bins) < reach:
        assert found.exp().item() == pytest.approx(one)
    else:
        assert found.exp().item() < one / 2


def test_where_nothing_was_counted_the_gaussian_orders_below_half_a_count() -> None:
    near, far, never = (neuron_of(np.linspace(-1.2, -1.0, 10) - far) for far in (0, 1, 1e3))
    logs = []
    for one in (near, far, never):
        found = log_density_of_histogram(one)
        assert found is not None
        logs.append(found.item())
    reach = round(1.8431 * float(near.membrane_var.sqrt()) * 10**-0.2 * 16) or 1
    assert logs[0] <= math.log(0.5 / (2 * reach / 16 * 10))
    assert logs[0] > logs[1] > logs[2] > -math.inf
    steady = neuron_of(np.full(10, -0.2))  # a Gaussian of the floor's width
    assert log_density_of_histogram(steady) is not None


def neuron_of(values: Array) -> NeuronStatistics:
    """A neuron of one channel whose u - u_th, the threshold 1, took these values."""
    edges = np.linspace(-4, 4, 129)
    counts = np.histogram(values, [-np.inf, *edges, np.inf])[0]
    one = torch.ones(1, dtype=torch.float64)
    return NeuronStatistics(
        firing_rate=one * float((values >= 0).mean()),
        membrane_mean=one * float(values.mean() + 1),
        membrane_var=one * float(values.var()),
        membrane_histogram=torch.from_numpy(counts)[None],
        threshold=one,
        histogram_edges=torch.from_numpy(edges),
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_that_drives_two_neurons_has_the_sum_of_both(name: str, case: Case) -> None:
    evidence, variant = case.evidence(), load_criterion(name)
    assert evidence.statistics is not None
    (drive,) = evidence.statistics.drives
    other = replace(drive, bn_scale=2 * drive.bn_scale)
    both = replace(evidence.statistics, drives=(drive, other))
    found = variant(replace(evidence, statistics=both)).exp()
    torch.testing.assert_close(found, 3 * variant(evidence).exp())


@pytest.mark.parametrize(
    ("name", "ready"), [("sf-steps", False), ("sf-histogram", False), ("sf", True)]
)
def test_old_statistics_are_refused_only_by_what_needs_more(
    name: str, ready: bool, case: Case
) -> None:
    evidence = case.evidence()
    assert evidence.statistics is not None
    (drive,) = evidence.statistics.drives
    bare = replace(drive.neuron, membrane_mean_step=None, histogram_edges=None)
    statistics = replace(evidence.statistics, drives=(replace(drive, neuron=bare),))
    old = replace(evidence, statistics=statistics)
    if ready:
        assert torch.equal(load_criterion(name)(old), load_criterion(name)(evidence))
        return
    with pytest.raises(InputError) as caught:
        load_criterion(name)(old)
    assert str(caught.value) == (
        "conv.weight: the calibration has no membrane statistics that this takes. "
        "run snnprune calibrate again"
    )


def test_predicted_flips_are_those_of_a_simulated_layer() -> None:
    seed = np.random.default_rng(11)
    inputs, outputs, samples = 300, 8, 20_000
    rate = seed.uniform(0.05, 0.6, inputs)
    weight = seed.normal(0, 1, (outputs, inputs)) / np.sqrt(inputs)
    x = (seed.random((samples, inputs)) < rate).astype(np.float64)
    u = 1.5 * x @ weight.T  # a BatchNorm factor of 1.5
    threshold = u.mean(0) + seed.uniform(-1, 1, outputs) * u.std(0)
    gone = np.abs(weight) < np.quantile(np.abs(weight), 0.4)
    pruned = 1.5 * (x @ (weight * ~gone).T + rate @ (weight * gone).T)  # its mean given back
    flips = ((u >= threshold) != (pruned >= threshold)).mean(0)

    double = torch.ones(outputs, dtype=torch.float64)
    spiking = NeuronStatistics(
        firing_rate=double,
        membrane_mean=torch.from_numpy(u.mean(0)),
        membrane_var=torch.from_numpy(u.var(0)),
        membrane_histogram=torch.zeros(outputs, 3, dtype=torch.int64),
        threshold=torch.from_numpy(threshold),
    )
    statistics = LayerStatistics(
        input_rate=torch.from_numpy(rate),
        input_values="binary",
        drives=(DriveStatistics(name="n", neuron=spiking, bn_scale=1.5 * double),),
    )
    evidence = Evidence(weight=torch.from_numpy(weight), key="w", statistics=statistics)
    energies = compute_flip_energy(evidence)
    predicted = (energies * torch.from_numpy(gone)).sum(1).sqrt()
    assert flips.min() > 0.01  # of 20 000 samples
    np.testing.assert_allclose(predicted.numpy(), flips, rtol=0.15)
    queue = torch.from_numpy(gone.flatten()).nonzero().squeeze(1)
    assert compute_flip_levels(energies, queue)[-1].item() == pytest.approx(flips.mean(), rel=0.05)


def test_flips_are_known_of_every_layer_that_drives_a_neuron(case: Case) -> None:
    weights = {key: case.network.weight(key) for key in case.network.layers}
    energies = compute_flip_energies(weights, case.network, case.calibration)
    assert set(energies) == {"first.0.weight", "conv.weight"}
    p = load_criterion("sf-std")(case.evidence()).exp()
    torch.testing.assert_close(energies["conv.weight"], 2 / math.pi * p**2)
