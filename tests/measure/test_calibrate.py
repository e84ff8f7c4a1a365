"""Calibration against a direct computation on everything at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import snntorch
import torch
from safetensors.torch import load_file
from spikingjelly.activation_based.neuron import IFNode
from torch import Tensor, nn
from two_ranks import run_both

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.network import Layer, Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import (
    LATER_NEURON_FIELDS,
    NEURON_FIELDS,
    Calibration,
    DriveStatistics,
    LayerStatistics,
    read_calibration,
    write_calibration,
)
from snnprune.measure.channel_sums import find_membrane_axis
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics
from snnprune.models.networks import SpikingConv


def network_of(**neuron: object) -> Network:
    torch.manual_seed(1)
    args = {"width": 4, "depth": 2, "neuron": neuron}
    module = build_model(ModelSpec(name="conv-snn", args=args)).eval()
    for name, block in module.named_modules():
        if isinstance(block, SpikingConv):
            module.get_buffer(f"{name}.norm.running_var").uniform_(0.2, 2.0)
            module.get_buffer(f"{name}.norm.running_mean").uniform_(-0.3, 0.3)
            torch.nn.init.uniform_(block.norm.weight, -1.5, 1.5)
    return trace(module, torch.rand(1, 1, 28, 28))


def network_of_two_scales() -> Network:
    """Of neurons of one decay, of which one takes (1 - beta) of its input."""
    network = network_of(beta=0.5)
    block: Any = network.module.get_submodule("blocks.0")
    block.neuron.dynamics = replace(block.neuron.dynamics, decay_input=True)
    return trace(network.module, torch.rand(1, 1, 28, 28))


def drive(found: Calibration, key: str) -> DriveStatistics:
    """The only way from a layer to a neuron."""
    (only,) = found.layers[key].drives
    return only


def batches(size: int, x: Tensor) -> list[tuple[Tensor, None]]:
    return [(part, None) for part in x.split(size)]


@torch.no_grad()
def test_statistics_equal_those_of_one_pass_over_everything() -> None:
    network, x = network_of(), torch.rand(12, 1, 28, 28)
    found = calibrate(network, batches(5, x))

    module: Any = network.module
    drive = module.encoder.norm(module.encoder.conv(x)).double()
    h, membranes, spikes = torch.zeros_like(drive), [], []
    for _ in range(4):
        u = h + drive
        s = (u >= 1).double()
        h = 0.5 * u * (1 - s)
        membranes.append(u)
        spikes.append(s)
    u, s = torch.stack(membranes), torch.stack(spikes)
    pooled = torch.nn.functional.max_pool2d(s.flatten(0, 1), 2)

    neuron = found.neurons["encoder.neuron"]
    over = (0, 1, 3, 4)
    torch.testing.assert_close(neuron.membrane_mean, u.mean(over), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(neuron.membrane_var, u.var(over, correction=0), rtol=1e-5, atol=1e-7)
    by_step = (1, 3, 4)
    torch.testing.assert_close(neuron.membrane_mean_step, u.mean(by_step), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        neuron.membrane_var_step, u.var(by_step, correction=0), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(neuron.firing_rate, s.mean(over))
    torch.testing.assert_close(
        found.layers["blocks.0.conv.weight"].input_rate, pooled.mean((0, 2, 3))
    )
    images = found.layers["encoder.conv.weight"]
    torch.testing.assert_close(images.input_mean, x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        images.input_square, x.double().square().mean((0, 2, 3)), rtol=1e-6, atol=0
    )
    assert found.layers["blocks.0.conv.weight"].input_values == "binary"
    assert found.layers["encoder.conv.weight"].input_values == "analog"
    assert neuron.membrane_histogram.sum().item() == u.numel()
    assert neuron.membrane_histogram[:, 65:].sum() == s.sum()  # the threshold is an edge
    assert (found.samples, found.time_steps) == (12, 4)


def test_statistics_do_not_depend_on_the_batches() -> None:
    network, x = network_of(), torch.rand(12, 1, 28, 28)
    one = calibrate(network, batches(12, x))
    many = calibrate(network, batches(1, x.flip(0)))
    for name, neuron in one.neurons.items():
        other = many.neurons[name]
        torch.testing.assert_close(neuron.membrane_mean, other.membrane_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(neuron.membrane_var, other.membrane_var, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(neuron.firing_rate, other.firing_rate, rtol=0, atol=1e-3)


def test_each_of_several_processes_has_the_statistics_of_all() -> None:
    network, x = network_of(), torch.rand(9, 1, 28, 28)
    whole = calibrate(network, [x])
    for found in run_both(lambda ranks: calibrate(network, x.split(2), ranks=ranks)):
        assert (found.samples, found.time_steps, found.warnings) == (9, 4, whole.warnings)
        for name, neuron in whole.neurons.items():
            for key in (*NEURON_FIELDS, *LATER_NEURON_FIELDS):
                one, other = getattr(found.neurons[name], key), getattr(neuron, key)
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for key, layer in whole.layers.items():
            each = found.layers[key]
            assert each.input_values == layer.input_values
            assert each.refused == layer.refused
            torch.testing.assert_close(each.input_rate, layer.input_rate)
            torch.testing.assert_close(each.input_square, layer.input_square)
            for one_way, other_way in zip(each.drives, layer.drives, strict=True):
                torch.testing.assert_close(one_way.bn_scale, other_way.bn_scale)


def test_an_integrator_beside_a_leaky_neuron_gathers_every_step() -> None:
    network = network_of(beta=0.5)
    block: Any = network.module.get_submodule("blocks.0")
    block.neuron.dynamics = replace(block.neuron.dynamics, beta=1.0)
    found = calibrate(trace(network.module, torch.rand(1, 1, 28, 28)), [torch.rand(2, 1, 28, 28)])
    assert drive(found, "encoder.conv.weight").time_gain == 1 + 0.5 + 0.25 + 0.125
    assert drive(found, "blocks.0.conv.weight").time_gain == 4


def test_the_batchnorm_factor_is_absolute_gamma_over_sigma_with_its_own_eps() -> None:
    network = network_of()
    norm: Any = network.module.get_submodule("encoder.norm")
    norm.eps = 0.25
    network = trace(network.module, torch.rand(1, 1, 28, 28))
    expected = norm.weight.detach().double().abs() / (norm.running_var.double() + 0.25).sqrt()
    found = calibrate(network, [(torch.rand(1, 1, 28, 28), None)])
    torch.testing.assert_close(drive(found, "encoder.conv.weight").bn_scale, expected)
    assert bool((norm.weight < 0).any())  # the sign is what this is about


def test_layers_without_batchnorm_have_factor_one() -> None:
    module = build_model(
        ModelSpec(name="6conv2fc", args={"time_steps": 1, "size": 8, "in_channels": 1})
    ).eval()
    network = trace(module, torch.rand(1, 1, 8, 8))
    found = calibrate(network, [(torch.rand(2, 1, 8, 8), None)])
    assert drive(found, "hidden.linear.weight").bn_scale.unique().tolist() == [1.0]


def test_layers_whose_decay_differs_get_their_share_of_the_geometric_sum() -> None:
    network = network_of(beta=0.5)
    block: Any = network.module.get_submodule("blocks.0")
    block.neuron.dynamics = replace(block.neuron.dynamics, beta=0.25, decay_input=True)
    network = trace(network.module, torch.rand(1, 1, 28, 28))
    found = calibrate(network, [(torch.rand(2, 1, 28, 28), None)])
    assert drive(found, "encoder.conv.weight").time_gain == 1 + 0.5 + 0.25 + 0.125
    assert drive(found, "blocks.0.conv.weight").time_gain == pytest.approx(1 - 0.25**4)
    same = calibrate(network_of(beta=0.9), [(torch.rand(2, 1, 28, 28), None)])
    gains = [one.time_gain for layer in same.layers.values() for one in layer.drives]
    assert set(gains) == {1.0}


def test_layers_of_one_decay_whose_input_is_scaled_differently_get_their_share_too() -> None:
    found = calibrate(network_of_two_scales(), [(torch.rand(2, 1, 28, 28), None)])
    gathered = 1 + 0.5 + 0.25 + 0.125
    assert drive(found, "encoder.conv.weight").time_gain == gathered
    assert drive(found, "blocks.0.conv.weight").time_gain == gathered * (1 - 0.5)


def test_a_neuron_that_never_spikes_is_named() -> None:
    network = network_of(threshold=1e6)
    found = calibrate(network, [(torch.rand(2, 1, 28, 28), None)])
    assert "encoder.neuron never spikes on the calibration data" in found.warnings


def test_a_neuron_that_spikes_at_every_step_is_named() -> None:
    found = calibrate(network_of(threshold=-1e6, reset="soft"), [torch.rand(2, 1, 28, 28)])
    assert found.warnings == tuple(
        f"{name} spikes at every step on the calibration data" for name in found.neurons
    )


@pytest.mark.parametrize(("above", "rate"), [(0.0, 0.0), (0.5, 1.0)])
def test_a_membrane_at_the_threshold_is_no_spike_of_a_neuron_that_has_to_be_above_it(
    above: float, rate: float
) -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), snntorch.Leaky(beta=0.5, init_hidden=True))
    nn.init.ones_(module.get_parameter("0.weight"))
    x = torch.full((3, 1), 1.0 + above)  # the membrane is that after one step; the threshold is 1
    found = calibrate(trace(module, x), [(x, None)])
    (neuron,) = found.neurons.values()
    assert neuron.firing_rate.tolist() == [rate]


@pytest.mark.parametrize(("below", "rate"), [(0.0, 1.0), (0.5, 0.0)])
def test_a_membrane_at_the_threshold_is_a_spike_of_a_neuron_that_need_not_be_above_it(
    below: float, rate: float
) -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), IFNode())
    nn.init.ones_(module.get_parameter("0.weight"))
    x = torch.full((3, 1), 1.0 - below)
    found = calibrate(trace(module, x), [(x, None)])
    (neuron,) = found.neurons.values()
    assert neuron.firing_rate.tolist() == [rate]
    assert not any("left out" in warning for warning in found.warnings)


def test_nothing_to_calibrate_on_is_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        calibrate(network_of(), [])


def test_a_membrane_that_is_not_finite_is_refused_with_its_neuron() -> None:
    network = network_of()
    with torch.no_grad():
        network.module.get_parameter("encoder.conv.weight").fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"encoder\.neuron"):
        calibrate(network, [(torch.rand(1, 1, 28, 28), None)])


def test_the_training_mode_is_put_back() -> None:
    network = network_of()
    network.module.train()
    mean = network.module.get_buffer("encoder.norm.running_mean")
    before = mean.clone()
    calibrate(network, [(torch.rand(2, 1, 28, 28), None)])
    assert network.module.training
    assert torch.equal(before, mean)


def test_a_calibration_file_gives_back_what_was_written(tmp_path: Path) -> None:
    found = calibrate(network_of(), [(torch.rand(4, 1, 28, 28), None)], source={"data": "x"})
    write_calibration(tmp_path / "c.safetensors", found, {"format": "pt"})
    again = read_calibration(tmp_path / "c.safetensors")
    assert (again.samples, again.time_steps, again.source) == (4, 4, {"data": "x"})
    assert list(again.layers) == list(found.layers)
    for key, layer in found.layers.items():
        other = again.layers[key]
        assert torch.equal(layer.input_rate, other.input_rate)
        assert layer.input_values == other.input_values
        assert len(layer.drives) == len(other.drives)
        for one, read in zip(layer.drives, other.drives, strict=True):
            assert (one.name, one.time_gain) == (read.name, read.time_gain)
            assert torch.equal(one.bn_scale, read.bn_scale)
            for name in (*NEURON_FIELDS, *LATER_NEURON_FIELDS, "histogram_edges"):
                assert torch.equal(getattr(one.neuron, name), getattr(read.neuron, name))
        for name in ("input_mean", "input_square"):
            assert torch.equal(getattr(layer, name), getattr(other, name))
        assert other.weight is None


def test_the_second_way_to_a_neuron_is_numbered_in_the_file(tmp_path: Path) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.lif1, self.lif2 = (LIF(Dynamics(beta=0.5, threshold=one)) for one in (0.1, 0.2))

        def forward(self, x: Tensor) -> Tensor:
            current = self.fc(x).expand(2, -1, -1)
            out: Tensor = self.lif1(current) + self.lif2(current)
            return out

    network = trace(Forked().eval(), torch.rand(2, 3))
    write_calibration(
        tmp_path / "c.safetensors",
        calibrate(network, [(torch.rand(5, 3), None)]),
        {"format": "pt"},
    )
    names = {name for name in load_file(tmp_path / "c.safetensors") if name.startswith("bn_scale")}
    assert names == {"bn_scale/fc.weight", "bn_scale/fc.weight@2"}


def test_a_calibration_file_gives_back_how_much_gathers_in_each_membrane(tmp_path: Path) -> None:
    found = calibrate(network_of_two_scales(), [(torch.rand(2, 1, 28, 28), None)])
    write_calibration(tmp_path / "c.safetensors", found, {"format": "pt"})
    again = read_calibration(tmp_path / "c.safetensors")
    for key in ("encoder.conv.weight", "blocks.0.conv.weight"):
        assert drive(again, key).time_gain == drive(found, key).time_gain != 1


def of_before(layer: LayerStatistics) -> LayerStatistics:
    """Without what was added to calibrations later."""
    drives = tuple(
        replace(one, neuron=replace(one.neuron, membrane_mean_step=None, membrane_var_step=None))
        for one in layer.drives
    )
    return replace(layer, drives=drives, input_mean=None, input_square=None)


def test_a_file_of_before_steps_and_squares_were_taken_is_read_without_them(
    tmp_path: Path,
) -> None:
    found = calibrate(network_of(), [(torch.rand(4, 1, 28, 28), None)])
    layers = {key: of_before(layer) for key, layer in found.layers.items()}
    write_calibration(tmp_path / "c.safetensors", replace(found, layers=layers), {"format": "pt"})
    again = read_calibration(tmp_path / "c.safetensors")
    for key, layer in again.layers.items():
        assert torch.equal(layer.input_rate, found.layers[key].input_rate)
        assert (layer.input_mean, layer.input_square) == (None, None)
        assert all(one.neuron.membrane_var_step is None for one in layer.drives)


def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for metadata in ({}, {"snnprune.calibration": "[]"}, {"snnprune.measure": "{"}):
        write_safetensors(path, {"a": torch.zeros(1)}, metadata)
        with pytest.raises(InputError, match="not a calibration file"):
            read_calibration(path)


@pytest.mark.parametrize(
    ("kind", "shape", "axis"),
    [
        ("conv2d", (4, 2, 3, 8, 8), -3),
        ("conv2d", (3, 2, 3), -1),  # pooled and flattened: time is not taken for channels
        ("conv2d", (4, 2, 12), None),
        ("conv2d", (4, 2, 5, 8, 8), None),
        ("conv1d", (4, 2, 3, 8), -2),
        ("linear", (4, 2, 3), -1),
        ("linear", (4, 2, 7, 3), -1),  # tokens
        ("linear", (4, 2, 3, 7), None),
    ],
)
def test_the_channels_of_a_membrane_are_found_or_refused(
    kind: Any, shape: tuple[int, ...], axis: int | None
) -> None:
    layer = Layer(weight="w", kind=kind, shape=(3, 1, 3, 3), encoding=False)
    assert find_membrane_axis(layer, torch.Size(shape)) == axis


class Encoder(nn.Module):
    """Pictures of two channels make spikes before any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.fc = LIF(Dynamics(beta=0.5, threshold=1.0)), nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lif(x.expand(2, -1, -1, -1, -1)).flatten(2))


def test_a_neuron_that_no_layer_drives_has_statistics_over_everything() -> None:
    x = 2 * torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = calibrate(trace(Encoder().eval(), x[:1]), batches(3, x)).neurons["lif"]
    later = torch.where(x < 1, 1.5 * x, x)  # a spike has set the membrane back
    u = torch.stack([x, later]).double()
    assert found.firing_rate.tolist() == pytest.approx([float((u >= 1).double().mean())])
    assert found.membrane_mean.tolist() == pytest.approx([float(u.mean())])
    assert found.membrane_var.tolist() == pytest.approx([float(u.var(correction=0))])
    assert found.membrane_histogram.sum(1).tolist() == [u.numel()]
    assert found.threshold.tolist() == [1]


class Backwards(LIF):
    """Puts its last spikes out first."""

    def forward(self, current: Tensor) -> Tensor:
        return super().forward(current).flip(0)


class Between(nn.Module):
    """A layer, something, and a neuron."""

    def __init__(self, between: Callable[[Tensor], Tensor], lif: LIF) -> None:
        super().__init__()
        self.fc, self.between, self.lif, self.out = nn.Linear(8, 4), between, lif, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lif(self.between(self.fc(x)).expand(3, -1, -1)))


UNKNOWN = {
    "an obstacle": (torch.tanh, LIF, "tanh stands between it and lif"),
    "other spikes": (
        lambda y: y,
        Backwards,
        "lif: its spikes do not follow from the membrane that was seen",
    ),
    "channels elsewhere": (
        lambda y: y.view(-1, 2, 2).transpose(1, 2).flatten(1),
        LIF,
        "lif: its membrane has no axis that is surely that of its channels",
    ),
    "nothing": (lambda y: 2 * y, LIF, None),
}


@pytest.mark.parametrize(("between", "kind", "why"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_layer_whose_effect_is_not_known_says_why(
    between: Callable[[Tensor], Tensor], kind: type[LIF], why: str | None
) -> None:
    torch.manual_seed(0)
    x = 3 * torch.rand(6, 8)
    network = trace(Between(between, kind(Dynamics(threshold=0.9))).eval(), x[:1])
    found = calibrate(network, [x])
    layer = found.layers["fc.weight"]
    assert layer.refused == why
    assert [drive.name for drive in layer.drives] == ([] if why else ["lif"])
    of_neuron = why is not None and why.startswith("lif: ")
    assert list(found.neurons) == ([] if of_neuron else ["lif"])
    assert found.warnings == ((f"{why}; it is left out",) if of_neuron else ())
