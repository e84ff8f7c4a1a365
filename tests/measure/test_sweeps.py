"""The kernel of the calibration pass against NumPy, and against torch's operations bit by bit."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from snnprune.errors import NonFiniteError
from snnprune.graph.trace import trace
from snnprune.measure import sweeps
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.measure.channel_sums import (
    HISTOGRAM,
    ONE_CHANNEL,
    ChannelHistogram,
    ChannelMean,
    ChannelMoments,
    StepMoments,
)
from snnprune.measure.sweeps import (
    NativeSweeps,
    choose_native,
    find_native_sweeps,
    fits,
    sum_channels,
)
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics
from snnprune.runtime import UnavailableError


@pytest.fixture(scope="module")
def kernel() -> NativeSweeps:
    if isinstance(found := find_native_sweeps(), str):
        pytest.skip(f"no kernel: {found}")
    return found


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=drawn) * 2 + 0.5


@pytest.mark.parametrize("shape", [(2, 3, 4), (7, 5, 9), (3, 16, 49), (33, 20, 200), (4, 2, 3000)])
def test_moments_and_counts_are_those_of_numpy(
    shape: tuple[int, int, int], kernel: NativeSweeps, threads: int
) -> None:
    x = draw(2, *shape).mul(64).round().div(64)  # no bin depends on how a position is rounded
    moments, histogram = ChannelMoments(), ChannelHistogram(*HISTOGRAM)
    assert all(kernel.add_membrane(block, moments, histogram) for block in x)
    exact = x.double().numpy().transpose(2, 0, 1, 3).reshape(shape[1], -1)
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(1), rtol=1e-6, atol=1e-6)
    variance = moments.compute_variance().numpy()
    np.testing.assert_allclose(variance, exact.var(1), rtol=1e-5)
    edges = [-np.inf, *np.linspace(-4, 4, 129), np.inf]
    expected = [np.histogram(row, edges)[0] for row in exact]
    np.testing.assert_array_equal(histogram.counts.numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 300),
    channels=st.integers(2, 70),
    space=st.one_of(st.integers(2, 70), st.integers(70, 3000)),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_moments_and_counts_have_the_bits_of_torch(
    samples: int, channels: int, space: int, threads: int, seed: int
) -> None:
    if isinstance(kernel := find_native_sweeps(), str):
        pytest.skip(f"no kernel: {kernel}")
    x = draw(max(1, min(samples, 2**20 // (channels * space))), channels, space, seed=seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert sweeps._are_same(kernel, x)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("space", [1, 2, 9, 64, 1000])
def test_spikes_are_counted_where_they_follow_from_the_membrane(
    space: int, kernel: NativeSweeps, threads: int
) -> None:
    distance = draw(50, 6, space).round()  # some lie at the threshold
    for at_threshold in (False, True):
        fires = distance >= 0 if at_threshold else distance > 0
        expected = fires.numpy().sum((0, 2)).tolist()
        spikes = fires.float()
        found = kernel.count_spikes(spikes, distance, at_threshold=at_threshold)
        assert found is not None
        assert found.tolist() == expected
        assert kernel.count_spikes(spikes, distance, at_threshold=not at_threshold) is None
        ones = kernel.count_ones(spikes)
        assert ones is not None
        assert ones.tolist() == expected


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan"), float("inf"), 1e-40])
@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_value_that_is_no_spike_is_found(
    value: float, place: int, kernel: NativeSweeps, threads: int
) -> None:
    x = torch.zeros(40, 8, 150)
    x[:, :, ::3] = -0.0
    assert kernel.count_ones(x) is not None
    x.view(-1)[place] = value
    assert kernel.count_ones(x) is None
    distance = torch.where(x == 0, -1.0, 1.0)
    assert kernel.count_spikes(x, distance, at_threshold=True) is None


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 1.0, 2.0], [0.0, 0.1]], ids=str)
@pytest.mark.parametrize("axis", [-3, -1, ONE_CHANNEL])
def test_spikes_of_a_channel_are_as_many_with_the_kernel_and_without(
    values: list[float], axis: int, kernel: NativeSweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = torch.randint(len(values), (3, 4, 5, 6, 7), generator=torch.Generator().manual_seed(1))
    spikes = torch.tensor(values)[drawn]
    with_kernel = sum_channels(spikes, axis)
    monkeypatch.setattr(sweeps, "choose_native", lambda _: None)
    others = tuple(dim for dim in range(-5, 0) if dim != axis)
    expected = np.sum(spikes.double().numpy(), axis=others if axis else None).reshape(-1)
    assert torch.equal(with_kernel, sum_channels(spikes, axis))
    np.testing.assert_allclose(with_kernel.numpy(), expected, rtol=1e-12)


def test_a_spike_of_no_membrane_is_found(kernel: NativeSweeps) -> None:
    spikes, distance = torch.ones(2, 3, 4), torch.ones(2, 3, 4)
    distance[1, 2, 3] = float("nan")
    assert kernel.count_spikes(spikes, distance, at_threshold=True) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("use_kernel", [True, False])
def test_what_is_not_finite_is_told(
    value: float, use_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not use_kernel:
        monkeypatch.setattr(sweeps, "choose_native", lambda _: None)
    u = draw(2, 64, 16, 8, 8)
    u[1, 63, 15, 7, 7] = value
    moments, histogram = StepMoments(), ChannelHistogram(*HISTOGRAM)
    assert not sweeps.add_membrane(moments, histogram, u, -3, first=0)


class InALoop(nn.Module):
    """snnTorch neurons, one step after the other, by subtraction and by setting to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 10, 3)
        self.lif1 = snntorch.Leaky(beta=0.7)
        self.lif2 = snntorch.Leaky(beta=0.5, reset_mechanism="zero")
        self.fc = nn.Linear(10 * 28 * 28, 5)

    def forward(self, x: Tensor) -> Tensor:
        first, second, steps = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for _ in range(3):
            spikes, first = self.lif1(4 * self.conv1(x), first)
            spikes, second = self.lif2(3 * self.conv2(spikes), second)
            steps.append(self.fc(spikes.flatten(1)))
        return torch.stack(steps)


class AtOnce(nn.Module):
    """SpikingJelly's neurons in multi-step mode, sums of spikes and average pooling."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"surrogate_function": surrogate.ATan(), "tau": 2.0}
        self.body = nn.Sequential(
            layer.Conv2d(3, 12, 3, bias=False), layer.BatchNorm2d(12), neuron.LIFNode(**options)
        )
        self.pool, self.conv = layer.AvgPool2d(2), layer.Conv2d(12, 7, 3)
        self.lif, self.fc = neuron.IFNode(), nn.Linear(7, 4)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        spikes = self.body(x.unsqueeze(0).repeat(4, 1, 1, 1, 1))
        more = self.lif(9 * self.conv(self.pool(spikes + spikes)))
        return self.fc(more.mean((-2, -1)))


class LastAxis(nn.Module):
    """Neurons whose channels lie last, behind places, and no layer of space."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 40), nn.Linear(40, 9)
        self.lif1, self.lif2 = LIF(Dynamics(threshold=0.2)), LIF(Dynamics(reset="soft"))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.first(x.mean(1)).expand(3, -1, -1, -1))
        return self.lif2(4 * self.second(spikes)).mean(2)


def conv_snn(**args: Any) -> nn.Module:
    return build_model(ModelSpec(name="conv-snn", args={"width": 8, "depth": 3, **args}))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv-snn": (conv_snn, (40, 1, 28, 28)),
    "odd channels": (lambda: conv_snn(width=5, size=19, time_steps=3), (40, 1, 19, 19)),
    "soft": (lambda: conv_snn(neuron={"reset": "soft", "threshold": 0.4}), (40, 1, 28, 28)),
    "events": (conv_snn, (6, 20, 1, 28, 28)),
    "half": (lambda: conv_snn().bfloat16(), (24, 1, 28, 28)),
    "double": (lambda: conv_snn().double(), (24, 1, 28, 28)),
    "channels last": (lambda: conv_snn().to(memory_format=torch.channels_last), (24, 1, 28, 28)),
    "in a loop": (InALoop, (30, 3, 32, 32)),
    "at once": (AtOnce, (30, 3, 32, 32)),
    "last axis": (LastAxis, (30, 3, 32, 32)),
}


def collect_tensors(found: Calibration) -> dict[str, object]:
    """All that a calibration says, by name."""
    said: dict[str, object] = {"all": (found.samples, found.time_steps, found.warnings)}
    for name, statistics in found.neurons.items():
        said |= {f"{name}.{one.name}": getattr(statistics, one.name) for one in fields(statistics)}
    for key, inputs in found.layers.items():
        for part in ("input_rate", "input_mean", "input_square", "input_values", "refused"):
            said[f"{key}.{part}"] = getattr(inputs, part)
        said |= {f"{key} to {drive.name}": drive.bn_scale for drive in inputs.drives}
    return said


@pytest.mark.many(4)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_calibration_has_the_same_bits_with_the_kernel_and_without(
    name: str, kernel: NativeSweeps, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    module = make().train()
    x = torch.rand(shape).to(next(module.parameters()).dtype)
    with torch.no_grad():
        module(x)
    time_first = name == "events"
    network = trace(module.eval(), x[:, :2] if time_first else x[:2])
    batches = x.split(9, 1) if time_first else x.split(17)
    found = collect_tensors(calibrate(network, batches))
    monkeypatch.setattr(sweeps, "choose_native", lambda _: None)
    plain = collect_tensors(calibrate(network, batches))
    assert found.keys() == plain.keys()
    assert len(network.neurons) > 1
    for key, one in plain.items():
        other = found[key]
        if isinstance(one, Tensor):
            assert isinstance(other, Tensor)
            assert (other.dtype, other.shape) == (one.dtype, one.shape)
            assert torch.equal(other, one), key
        else:
            assert other == one, key


def test_the_kernel_is_used_where_there_is_much_to_add_up(
    kernel: NativeSweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChannelMoments, "add", lambda *_: pytest.fail("by torch"))
    monkeypatch.setattr(ChannelHistogram, "add", lambda *_: pytest.fail("by torch"))
    module = conv_snn().eval()
    found = calibrate(trace(module, torch.rand(1, 1, 28, 28)), [torch.rand(64, 1, 28, 28)])
    assert found.neurons["encoder.neuron"].membrane_histogram.sum() == 4 * 64 * 8 * 28 * 28


def test_a_membrane_that_is_not_finite_is_an_error_with_the_kernel_too(
    kernel: NativeSweeps,
) -> None:
    x = torch.rand(64, 1, 28, 28)
    network = trace(conv_snn().eval(), x[:1])
    x[50, 0, 3, 3] = 3e38  # finite, but not the squares of what comes of it
    with pytest.raises(NonFiniteError, match="membrane potential is not finite"):
        calibrate(network, [x])


def test_only_plain_numbers_in_memory_are_for_the_kernel() -> None:
    x = torch.ones(4, 3, 8)
    assert fits(x)
    assert fits(nn.Parameter(x))
    assert not fits(x.double())
    assert not fits(x.transpose(0, 1))
    assert not fits(x[:0])
    assert not fits(torch._neg_view(x))
    assert not fits(x.to("meta"))
    assert not fits(x.as_subclass(type("Own", (Tensor,), {})))


def test_spikes_in_another_layout_are_taken_as_they_were(kernel: NativeSweeps) -> None:
    distance = draw(3, 5, 4, 6)
    samples_first = (distance >= 0).float().transpose(0, 1).contiguous()
    mean = ChannelMean()
    assert sweeps.add_spikes(mean, samples_first, [distance], -2, at_threshold=True)
    expected = (distance >= 0).double().mean((0, 1, 3))
    torch.testing.assert_close(mean.compute_mean(), expected, rtol=1e-12, atol=0)
    assert not sweeps.add_spikes(mean, samples_first.flip(0), [distance], -2, at_threshold=True)


def test_without_a_compiler_or_with_other_bits_torch_adds_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise UnavailableError("no C++ compiler")

    x = torch.zeros(sweeps.LARGE, 2, 2)
    find_native_sweeps.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "load_library", refuse)
        assert find_native_sweeps() == "no C++ compiler"
        assert choose_native(x) is None
    find_native_sweeps.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "gives_the_same_bits", lambda _: False)
        assert isinstance(find_native_sweeps(), str)
        assert choose_native(x) is None
    find_native_sweeps.cache_clear()


def test_little_to_add_up_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    find_native_sweeps.cache_clear()
    monkeypatch.setattr(sweeps, "load_library", lambda _: pytest.fail("loaded"))
    assert choose_native(torch.zeros(4, 3, 5)) is None
