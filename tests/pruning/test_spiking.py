"""The spiking-firing criterion against Eq. 12 and 13, computed here from the formula alone."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF
from snnprune.pruning.criteria import Evidence, load_criterion
from snnprune.pruning.score import NetworkEvidence, Scores, score

Array = np.ndarray[Any, np.dtype[np.float64]]
SF = load_criterion("sf")
KINDS = {
    "first conv of a stage": (
        "blocks.3.first.conv",
        "blocks.3.first.norm",
        "blocks.3.first.neuron",
    ),
    "last conv of a residual block": ("blocks.3.conv", "blocks.3.norm", "blocks.3.neuron"),
    "shortcut conv": ("blocks.3.shortcut.conv", "blocks.3.shortcut.norm", "blocks.3.neuron"),
    "last conv of a block with identity": ("blocks.4.conv", "blocks.4.norm", "blocks.4.neuron"),
}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    neuron = {"beta": 0.25, "decay_input": True, "threshold": 0.6}
    args = {"time_steps": 3, "size": 16, "neuron": neuron}
    module = build_model(ModelSpec(name="res-snn-19-light", args=args)).eval()
    for name, child in module.named_modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, -2.0, 2.0)
            nn.init.uniform_(child.bias, 0.0, 1.0)
            module.get_buffer(f"{name}.running_var").uniform_(0.05, 0.5)
    return trace(module, torch.rand(1, 3, 16, 16))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def calibration(network: Network, images: Tensor) -> Calibration:
    return calibrate(network, [(part, None) for part in images.split(4)])


@pytest.fixture(scope="module")
def scores(network: Network, calibration: Calibration) -> Scores:
    weights = {key: network.weight(key) for key in network.layers}
    return score(
        weights, SF, name="sf", network=network, evidence=NetworkEvidence(calibration=calibration)
    )


@pytest.fixture(scope="module")
def seen(network: Network, images: Tensor) -> dict[str, Array]:
    """What enters every module, kept by plain hooks of this test."""
    kept: dict[str, Array] = {}
    handles = [
        module.register_forward_hook(
            lambda _, args, __, name=name: kept.__setitem__(name, args[0].double().numpy())
        )
        for name, module in network.module.named_modules()
        if isinstance(module, nn.Conv2d | LIF)
    ]
    with torch.no_grad():
        network.module(images)
    for handle in handles:
        handle.remove()
    return kept


def membrane(current: Array) -> Array:
    """u of decayed input, hard reset to 0: u = beta h + (1 - beta) x, threshold 0.6."""
    v, us = np.zeros_like(current[0]), []
    for x in current:
        u = 0.25 * v + 0.75 * x
        v = np.where(u >= 0.6, 0.0, u)
        us.append(u)
    return np.stack(us)


@pytest.mark.parametrize("kind", KINDS)
def test_p_equals_the_formula_on_every_weight(
    kind: str, network: Network, scores: Scores, seen: dict[str, Array]
) -> None:
    conv_name, norm_name, neuron_name = KINDS[kind]
    conv: Any = network.module.get_submodule(conv_name)
    norm: Any = network.module.get_submodule(norm_name)
    rate = seen[conv_name].mean((0, 2, 3))  # (T * N, C_in, H, W)
    u = membrane(seen[neuron_name])  # (T, N, C_out, H, W)
    mean, variance = u.mean((0, 1, 3, 4)), u.var((0, 1, 3, 4))
    density = np.exp(-((0.6 - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    gamma = np.abs(norm.weight.detach().double().numpy())
    sigma = np.sqrt(norm.running_var.double().numpy() + norm.eps)
    weight = np.abs(conv.weight.detach().double().numpy())
    expected = weight * rate[None, :, None, None] * (gamma / sigma * density)[:, None, None, None]

    found = np.exp(scores.values[f"{conv_name}.weight"].double().numpy())
    possible = expected > 1e-300
    assert possible.mean() > 0.5
    relative = np.abs(found[possible] / expected[possible] - 1)
    assert relative.max() < 1e-4
    assert (found[~possible] < 1e-290).all()


def test_encoding_layer_and_linear_layers_without_norm_are_left_to_magnitude(
    scores: Scores,
) -> None:
    assert set(scores.fallback) == {
        "encoder.conv.weight",
        "hidden.linear.weight",
        "classifier.weight",
    }
    assert "encoding" in scores.fallback["encoder.conv.weight"]
    assert "BatchNorm" in scores.fallback["hidden.linear.weight"]
    assert "no spiking neuron" in scores.fallback["classifier.weight"]


def test_magnitude_scores_in_a_log_file_are_logarithms(scores: Scores, network: Network) -> None:
    expected = network.weight("classifier.weight").abs().log()
    torch.testing.assert_close(scores.values["classifier.weight"], expected)
    assert scores.scale == "log"


def by_hand(**changes: Tensor) -> LayerStatistics:
    one = torch.ones(1, dtype=torch.float64)
    neuron = {
        "firing_rate": one * 0.5,
        "membrane_mean": one * 0.25,
        "membrane_var": one * 4.0,
        "membrane_histogram": torch.zeros(1, 3, dtype=torch.int64),
        "threshold": one,
    }
    neuron |= {name: value for name, value in changes.items() if name in neuron}
    return LayerStatistics(
        input_rate=changes.get("input_rate", torch.tensor([0.5, 0.0], dtype=torch.float64)),
        input_values="binary",
        drives=(
            DriveStatistics(
                name="spikes",
                neuron=NeuronStatistics(**neuron),
                bn_scale=changes.get("bn_scale", one * 3.0),
            ),
        ),
    )


def test_a_hand_worked_example() -> None:
    weight = torch.tensor([[-0.2, 0.7]])
    found = SF(Evidence(weight=weight, key="w", statistics=by_hand()))
    # 0.2 * 0.5 * 3 * N(1; 0.25, 4), and nothing from a silent input
    density = math.exp(-(0.75**2) / 8) / math.sqrt(2 * math.pi * 4)
    assert found[0, 0].item() == pytest.approx(math.log(0.2 * 0.5 * 3 * density), rel=1e-6)
    assert found[0, 1].item() == -math.inf


def test_a_layer_that_drives_two_neurons_has_the_sum_of_their_probabilities() -> None:
    near, far = by_hand(), by_hand(membrane_mean=torch.zeros(1, dtype=torch.float64))
    both = replace(near, drives=(*near.drives, *far.drives))
    weight = torch.tensor([[-0.2, 0.7]])
    found, one, other = (
        SF(Evidence(weight=weight, key="w", statistics=statistics)).exp()
        for statistics in (both, near, far)
    )
    torch.testing.assert_close(found, one + other)


def test_a_membrane_that_never_moves_has_a_finite_score() -> None:
    still = by_hand(membrane_var=torch.zeros(1, dtype=torch.float64))
    found = SF(Evidence(weight=torch.tensor([[0.2, 0.7]]), key="w", statistics=still))
    # variance floor 1e-6: -(0.75^2) / 2e-6 - log(2 pi 1e-6) / 2
    rest = -(0.75**2) / 2e-6 - 0.5 * math.log(2 * math.pi * 1e-6)
    assert found[0, 0].item() == pytest.approx(math.log(0.2 * 0.5 * 3) + rest, rel=1e-9)


def test_underflowing_probabilities_keep_their_order() -> None:
    far = by_hand(
        membrane_mean=torch.full((1,), -1e3, dtype=torch.float64),
        input_rate=torch.tensor([0.5, 0.25], dtype=torch.float64),
    )
    found = SF(Evidence(weight=torch.tensor([[0.1, 0.3]]), key="w", statistics=far))
    assert math.exp(found[0, 0]) == 0.0  # P itself underflows
    assert found[0, 1] > found[0, 0]  # 0.3 * 0.25 > 0.1 * 0.5


def test_grouped_convolutions_take_the_rates_of_their_own_group() -> None:
    statistics = by_hand(
        input_rate=torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
        bn_scale=torch.ones(2, dtype=torch.float64),
        membrane_mean=torch.zeros(2, dtype=torch.float64),
        membrane_var=torch.ones(2, dtype=torch.float64),
        threshold=torch.zeros(2, dtype=torch.float64),
    )
    weight = torch.ones(2, 2, 1, 1)  # two groups of two inputs each
    found = SF(Evidence(weight=weight, key="w", groups=2, statistics=statistics)).exp()
    rates = found.flatten(1) * math.sqrt(2 * math.pi)
    torch.testing.assert_close(rates, torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64))
