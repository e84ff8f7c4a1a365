"""Networks without any library's neurons: links, membranes, scores, and nothing left behind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hand_written import (
    DECAY,
    STEPS,
    THRESHOLD,
    BatchFirst,
    ByHand,
    HandNorm,
    InPlace,
    PerStep,
    Recurrent,
    Scripted,
    Stbp,
    Stepwise,
    SumOfCurrents,
)
from torch import Tensor, nn

from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import _find_channel_gain, calibrate
from snnprune.measure.evaluation import evaluate
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.score import NetworkEvidence, score


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def lively(build: Callable[[], nn.Module]) -> nn.Module:
    """Weights and norms that make an untrained network fire, each channel its own way."""
    torch.manual_seed(0)
    module = build()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, -1.0, 2.0)
            nn.init.uniform_(child.bias, 0.0, 1.0)
            assert child.running_var is not None
            child.running_var.uniform_(0.1, 0.5)
        elif isinstance(child, nn.Conv2d | nn.Linear) and child.bias is not None:
            nn.init.uniform_(child.bias, 0.0, 1.0)
    return module.eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "batch first": (BatchFirst, images(2, STEPS, 3, 8, 8)),
    "stbp": (Stbp, images(2, 3, 8, 8)),
    "scripted": (lambda: Stepwise(Scripted), images(2, 3, 8, 8)),
    "in place": (lambda: Stepwise(InPlace), images(2, 3, 8, 8)),
    "recurrent": (Recurrent, images(2, 3, 2, 2)),
    "a norm per step": (PerStep, images(2, 3, 8, 8)),
    "a norm by hand": (lambda: ByHand(HandNorm(5)), images(2, 3, 8, 8)),
    "sum of currents": (SumOfCurrents, images(2, 3, 8, 8)),
}

# layer: the neurons that it drives, the BatchNorms on the way, whether it is the encoding layer
LINKS: dict[str, dict[str, tuple[list[str], list[list[str]], bool]]] = {
    "batch first": {
        "conv1": (["lif1"], [["bn1"]], True),
        "conv2": (["lif2"], [["bn2"]], False),
        "fc": ([], [], False),
    },
    "stbp": {
        "conv1": (["spikes after conv1"], [[]], True),
        "conv2": (["spikes after conv2"], [["norm"]], False),
        "fc1": (["spikes after fc1"], [[]], False),
        "fc2": (["spikes after fc2"], [[]], False),
    },
    "scripted": {"conv": (["lif"], [["bn"]], True), "fc": ([], [], False)},
    "in place": {"conv": (["lif"], [["bn"]], True), "fc": ([], [], False)},
    "recurrent": {
        "forth": (["spikes after forth"], [[]], True),
        "out": ([], [], False),
        "back": (["spikes after forth"], [[]], False),
    },
    "a norm per step": {
        "conv1": (["spikes after conv1"], [["bns1.0"], ["bns1.1"], ["bns1.2"]], True),
        "conv2": (["spikes after conv2"], [["bns2.0"], ["bns2.1"], ["bns2.2"]], False),
        "fc": ([], [], False),
    },
    "a norm by hand": {
        "conv1": (["lif1"], [[]], True),
        "conv2": (["lif2"], [["norm"]], False),
        "fc": ([], [], False),
    },
    "sum of currents": {
        "stem": (["spikes after stem", "spikes after conv"], [["bn0"]], True),
        "conv": (["spikes after conv"], [["bn1"]], False),
        "last": ([], [], False),
    },
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[str, Network, Tensor]:
    build, x = NETWORKS[request.param]
    return request.param, trace(lively(build), x), x


def test_links_are_those_read_off_the_code(case: tuple[str, Network, Tensor]) -> None:
    name, network, _ = case
    found = {
        key.removesuffix(".weight"): (
            [link.neuron for link in layer.links],
            [
                [norm.variance.removesuffix(".running_var") for norm in chain]
                for link in layer.links[:1]
                for chain in link.norms
            ],
            layer.encoding,
        )
        for key, layer in network.layers.items()
    }
    assert found == LINKS[name]


@torch.no_grad()
def output(module: nn.Module, x: Tensor) -> Tensor:
    found = module(x)
    return torch.stack(found) if isinstance(found, list) else found


@pytest.mark.many(4)
def test_watching_changes_no_bit_and_leaves_nothing(case: tuple[str, Network, Tensor]) -> None:
    name, network, x = case
    module = network.module
    expected = output(lively(NETWORKS[name][0]), x)
    before = {key: copy.copy(vars(part)) for key, part in module.named_modules()}
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    outputs: list[Tensor] = []
    run = lambda module, x: outputs.append(output(module, x))  # noqa: E731
    calibrate(network, [(x, None), (x[:1], None), (x, None)], run=run)
    assert torch.equal(outputs[0], expected)
    assert torch.equal(outputs[2], expected)  # at rest again after a batch of another size
    assert {key: value.shape for key, value in module.named_buffers()} == {
        key: value.shape for key, value in buffers.items()
    }
    assert all(torch.equal(value, buffers[key]) for key, value in module.named_buffers())
    for key, part in module.named_modules():
        assert vars(part).keys() == before[key].keys()
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert torch.equal(output(module, x), expected)


def test_spikes_follow_from_the_membranes_and_there_are_some(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, x = case
    found = calibrate(network, [(x, None)])
    assert not [warning for warning in found.warnings if "left out" in warning]
    assert set(found.neurons) == set(network.neurons)
    rates = [float(one.firing_rate.mean()) for one in found.neurons.values()]
    assert all(0 < rate < 1 for rate in rates)


def drives(name: str, module: Any, x: Tensor) -> Tensor:
    """The currents (T, N, ...) into the last hidden neuron, by the layers' own modules."""
    seen: list[Tensor] = []
    place = {
        "batch first": module.bn2 if name == "batch first" else None,
        "stbp": getattr(module, "fc1", None),
        "scripted": getattr(module, "bn", None),
        "in place": getattr(module, "bn", None),
        "a norm by hand": getattr(module, "norm", None),
    }[name]
    assert place is not None
    handle = place.register_forward_hook(lambda _, __, out: seen.append(out.detach().clone()))
    output(module, x)
    handle.remove()
    return torch.stack(seen)


# neuron, soft reset, whether u = u_th fires
SIMULATED = {
    "batch first": ("lif2", False, False),
    "stbp": ("spikes after fc1", False, False),
    "scripted": ("lif", True, True),
    "in place": ("lif", False, True),
    "a norm by hand": ("lif2", False, False),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_membranes_equal_an_independent_simulation(name: str) -> None:
    build, x = NETWORKS[name]
    neuron, soft, at_threshold = SIMULATED[name]
    current = drives(name, lively(build), x)
    if name == "batch first":  # (1, N T, C, H, W)
        current = current[0].unflatten(0, (2, STEPS)).transpose(0, 1)
    elif name == "a norm by hand":
        current = current[0]
    h, distances, spikes = torch.zeros_like(current[0], dtype=torch.float64), [], []
    for step in current.double():
        u = DECAY * h + step
        fired = ((u >= THRESHOLD) if at_threshold else (u > THRESHOLD)).double()
        # a soft reset comes one step later here, and is then not decayed
        h = u - fired * THRESHOLD / DECAY if soft else u * (1 - fired)
        distances.append(u - THRESHOLD)
        spikes.append(fired)
    seen: list[Tensor] = []
    fired_then: list[Tensor] = []
    network = trace(lively(build), x)
    with observe(
        network,
        on_membrane=lambda n, u: seen.append(u.clone()) if n == neuron else None,
        on_spikes=lambda n, s: fired_then.append(s.clone()) if n == neuron else None,
    ):
        output(network.module, x)
    torch.testing.assert_close(torch.cat(seen).double(), torch.stack(distances), rtol=0, atol=1e-5)
    assert torch.equal(torch.stack(fired_then).double(), torch.stack(spikes))


def formula(rate: Tensor, weight: Tensor, scale: Tensor, u: Tensor) -> Tensor:
    """Eq. 12 in float64; u is u - u_th, (T, N, C, H, W)."""
    mean, var = u.double().mean((0, 1, 3, 4)), u.double().var((0, 1, 3, 4), correction=0)
    density = torch.exp(-(mean**2) / (2 * var)) / (2 * torch.pi * var).sqrt()
    return (
        weight.double().abs() * rate[None, :, None, None] * (scale * density)[:, None, None, None]
    )


def seen_by(network: Network, x: Tensor, neuron: str, layer: str) -> tuple[Tensor, Tensor]:
    """The membranes of a neuron and the mean input of a layer."""
    membranes: list[Tensor] = []
    inputs: list[Tensor] = []
    with observe(
        network,
        on_membrane=lambda n, u: membranes.append(u.clone()) if n == neuron else None,
        on_input=lambda n, y: inputs.append(y.clone()) if n == layer else None,
    ):
        output(network.module, x)
    return torch.cat(membranes), torch.stack(inputs).double().mean((0, 1, 3, 4))


def scores(network: Network, x: Tensor) -> dict[str, Tensor]:
    found = calibrate(network, [(x, None)])
    weights = {key: network.weight(key) for key in network.layers}
    values = score(
        weights, load_criterion("sf"), network=network, evidence=NetworkEvidence(calibration=found)
    )
    return {key: values.values[key].exp() for key in weights if key not in values.fallback}


def scale_of(*norms: Any) -> Tensor:
    """The mean of |gamma| / sigma."""
    each = [
        norm.weight.detach().double().abs() / (norm.running_var.double() + norm.eps).sqrt()
        for norm in norms
    ]
    return torch.stack(each).mean(0)


class Even(nn.Module):
    """All membranes are the same at every step, below the threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 4), nn.Linear(4, 2)
        nn.init.zeros_(self.hidden.weight)
        nn.init.constant_(self.hidden.bias, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        mem, outputs = torch.zeros(len(x), 4), []
        for _ in range(STEPS + 1):
            mem = DECAY * mem + self.hidden(x)
            spike = (mem > THRESHOLD).float()
            mem = mem * (1 - spike)
            outputs.append(self.out(spike))
        return torch.stack(outputs)


def test_the_decay_of_membranes_that_do_not_differ_is_found() -> None:
    network = trace(Even().eval(), images(2, 3))
    assert network.neurons["spikes after hidden"].constants.beta == DECAY


class Leaky(nn.Module):
    """The input is scaled by 1 - beta, of which there are several."""

    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        self.conv, self.out, self.beta = nn.Conv2d(2, 3, 3), nn.Linear(3 * 16, 2), beta

    def forward(self, x: Tensor) -> Tensor:
        mem, outputs = torch.zeros(len(x), 3, 4, 4), []
        for _ in range(STEPS + 1):
            mem = self.beta * mem + (1 - self.beta) * self.conv(x)
            spike = (mem > 0.1).float()
            mem = mem * (1 - spike)
            outputs.append(self.out(spike.flatten(1)))
        return torch.stack(outputs)


@pytest.mark.parametrize(
    ("beta", "shape", "own"),
    [
        ([0.5], (), True),
        ([0.2, 0.5, 0.8], (3, 1, 1), True),
        ([0.2, 0.5, 0.8, 0.9], (4, 1), False),  # by place: no number of a channel
    ],
)
def test_one_less_decay_is_the_neurons_own_where_it_is_so_for_each_channel(
    beta: list[float], shape: tuple[int, ...], own: bool
) -> None:
    torch.manual_seed(0)
    network = trace(Leaky(torch.tensor(beta).view(shape)).eval(), images(2, 2, 6, 6))
    constants = network.neurons["spikes after conv"].constants
    assert constants.beta == (beta[0] if len(beta) == 1 else None)
    assert constants.decay_input == own
    (link,) = network.layers["conv.weight"].links
    assert (link.gains == ()) == own


def test_a_norm_per_step_counts_by_the_mean_of_its_factors() -> None:
    module: Any = lively(PerStep)
    network, x = trace(module, images(2, 3, 8, 8)), images(2, 3, 8, 8)
    u, rate = seen_by(network, x, "spikes after conv2", "conv2.weight")
    expected = formula(rate, network.weight("conv2.weight"), scale_of(*module.bns2), u)
    found = scores(network, x)
    assert set(found) == {"conv2.weight"}
    torch.testing.assert_close(found["conv2.weight"], expected, rtol=1e-4, atol=0)


def test_a_norm_written_by_hand_is_probed() -> None:
    module: Any = lively(lambda: ByHand(HandNorm(5)))
    network, x = trace(module, images(2, 3, 8, 8)), images(2, 3, 8, 8)
    u, rate = seen_by(network, x, "lif2", "conv2.weight")
    expected = formula(rate, network.weight("conv2.weight"), 0.7 * scale_of(module.norm), u)
    torch.testing.assert_close(scores(network, x)["conv2.weight"], expected, rtol=1e-3, atol=0)


def test_a_norm_by_hand_is_probed_where_channels_and_places_are_as_many() -> None:
    module: Any = lively(lambda: HandNorm(8))
    x = torch.rand(8, 8, 8, 8, 8)
    gain = module(x + 1) - module(x)
    found = _find_channel_gain(gain.abs(), 8)
    assert found is not None
    torch.testing.assert_close(found.double(), 0.7 * scale_of(module), rtol=1e-3, atol=0)


def test_a_layer_behind_a_sum_of_currents_has_the_sum_over_both_neurons() -> None:
    module: Any = lively(SumOfCurrents)
    module.stem = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), module.stem)
    network, x = trace(module, images(2, 3, 8, 8)), images(2, 3, 8, 8)
    assert network.layers["stem.2.weight"].encoding
    found = calibrate(network, [(x, None)]).layers["stem.2.weight"]
    assert [drive.name for drive in found.drives] == ["spikes after stem.2", "spikes after conv"]


class Standardised(HandNorm):
    """No factor per channel: it depends on what else is in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.std()


class Squashed(HandNorm):
    """A normalisation by hand that is not linear."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.mark.parametrize(
    ("norm", "why"),
    [
        (nn.GroupNorm(1, 5), "group_norm stands between it and lif2"),
        (nn.LayerNorm([5, 8, 8]), "layer_norm stands between it and lif2"),
        (nn.BatchNorm3d(STEPS, track_running_stats=False), "batch_norm stands between"),
        (Standardised(5), "std stands between it and lif2"),
        (Squashed(5), "not the same factor everywhere"),
    ],
)
def test_what_no_factor_describes_is_left_to_magnitude_with_the_reason(
    norm: nn.Module, why: str
) -> None:
    if isinstance(norm, nn.GroupNorm):
        norm = nn.Sequential(nn.Flatten(0, 1), norm, nn.Unflatten(0, (STEPS, -1)))
    if isinstance(norm, nn.BatchNorm3d):
        norm = Transposed(norm)
    network, x = trace(lively(lambda: ByHand(norm)), images(2, 3, 8, 8)), images(2, 3, 8, 8)
    found = calibrate(network, [(x, None)]).layers["conv2.weight"]
    assert not found.drives
    assert why in (found.refused or "")


class Transposed(nn.Module):
    """A norm over time steps as channels."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(0, 1)).transpose(0, 1)


def test_evaluation_counts_the_spikes_of_comparisons() -> None:
    network, x = trace(lively(Stbp), images(2, 3, 8, 8)), images(2, 3, 8, 8)
    found = evaluate(network, [(x, torch.tensor([1, 2]))])
    assert set(found.firing_rates) == set(network.neurons)
    rates = calibrate(network, [(x, None)]).neurons
    for name, rate in found.firing_rates.items():
        assert rate == pytest.approx(float(rates[name].firing_rate.mean()))
