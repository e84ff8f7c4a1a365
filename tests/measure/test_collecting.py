"""Gram matrices of whole networks against inputs that plain hooks caught."""

from contextlib import suppress

import pytest
import torch
from pruned_networks import BETA, NETWORKS, PICTURES, STEPS, batches, entering, lif, made
from torch import Tensor, nn
from torch.nn import functional

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.replay import PassEnd
from snnprune.graph.trace import trace
from snnprune.measure.layer_inputs import RowSampler, count_usage
from snnprune.measure.second_moments import Grams


def grams(network: Network, *, filtered: bool, size: int = 4) -> Grams:
    return Grams(network, Batches(begin=lambda: batches(size)), filtered=filtered)


def unfolded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Rows (groups, n, d) of (S, C, H, W), by torch's own unfold."""
    assert isinstance(conv.padding, tuple)
    seen = functional.unfold(
        x, conv.kernel_size, padding=conv.padding, stride=conv.stride, dilation=conv.dilation
    )
    return seen.unflatten(1, (conv.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)


def mean_square(rows: Tensor) -> Tensor:
    """E[x x'], (groups, d, d) float64."""
    return torch.einsum("gni,gnj->gij", rows.double(), rows.double()) / rows.shape[1]


def added_up(x: Tensor, decay: float) -> Tensor:
    """What a membrane has of (T, ...) at each step."""
    found = torch.zeros_like(x)
    for t in range(len(x)):
        for earlier in range(t + 1):
            found[t] += decay ** (t - earlier) * x[earlier]
    return found


@pytest.mark.parametrize("filtered", [False, True])
def test_a_grouped_conv_in_the_middle_by_unfold(filtered: bool) -> None:
    network = made("convolved")
    (caught,) = entering(network.module, "conv2")
    if filtered:
        caught = added_up(caught.unflatten(0, (STEPS, -1)), BETA).flatten(0, 1)
    conv = network.module.get_submodule("conv2")
    assert isinstance(conv, nn.Conv2d)
    rows = unfolded(caught, conv)
    found = grams(network, filtered=filtered).of("conv2.weight")
    assert found is not None
    torch.testing.assert_close(found.second, mean_square(rows), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.mean, rows.double().mean(1), rtol=1e-6, atol=1e-9)
    assert found.rows == rows.shape[1]
    assert not found.free
    assert found.compute_matrix() is found.second


def test_a_conv1d_of_spikes_by_unfold() -> None:
    network = made("convolved")
    (caught,) = entering(network.module, "conv3")
    rows = caught.unfold(2, 2, 1).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (n, C * 2)
    found = grams(network, filtered=False).of("conv3.weight")
    assert found is not None
    torch.testing.assert_close(found.second, mean_square(rows[None]), rtol=1e-6, atol=1e-9)
    assert found.free  # it has a bias
    covariance = torch.cov(rows.double().T, correction=0)
    torch.testing.assert_close(found.compute_matrix()[0], covariance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("filtered", [False, True])
def test_one_picture_for_all_steps_is_not_added_up(filtered: bool) -> None:
    network = made("convolved")
    conv = network.module.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    found = grams(network, filtered=filtered).of("conv1.weight")
    assert found is not None
    expected = mean_square(unfolded(PICTURES, conv))
    torch.testing.assert_close(found.second, expected, rtol=1e-6, atol=1e-9)
    assert found.free  # the BatchNorm takes the mean off


@pytest.mark.parametrize(
    ("name", "layer", "decay"),
    [("snnTorch", "fc1", BETA), ("sinabs", "fc2", 1.0), ("SpikingJelly at once", "fc", None)],
)
def test_linear_layers_of_libraries_as_the_membrane_or_the_output_has_them(
    name: str, layer: str, decay: float | None
) -> None:
    network = made(name)
    caught = entering(network.module, layer)
    by_time = {
        "snnTorch": lambda: torch.stack(caught),
        "sinabs": lambda: caught[0].unflatten(0, (-1, STEPS)).transpose(0, 1),
        "SpikingJelly at once": lambda: caught[0],
    }[name]()
    rows = by_time.mean(0) if decay is None else added_up(by_time, decay).flatten(0, 1)
    found = grams(network, filtered=True).of(f"{layer}.weight")
    assert found is not None
    assert float(found.second.abs().sum()) > 0
    torch.testing.assert_close(found.second, mean_square(rows[None]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("key", ["conv1.weight", "conv2.weight", "fc.weight"])
def test_a_network_has_the_same_gram_at_once_and_step_by_step(key: str, filtered: bool) -> None:
    at_once, stepwise = made("SpikingJelly at once"), made("SpikingJelly stepwise")
    stepwise.module.load_state_dict(at_once.module.state_dict())
    one, other = (grams(network, filtered=filtered).of(key) for network in (at_once, stepwise))
    assert one is not None
    assert other is not None
    assert one.rows == other.rows
    torch.testing.assert_close(one.second, other.second, rtol=1e-6, atol=1e-9)


@pytest.mark.many(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_size_of_batches_does_not_matter_and_nothing_stays_behind(name: str) -> None:
    network = made(name)
    before = {key: tensor.clone() for key, tensor in network.module.state_dict().items()}
    for key in network.layers:
        one, other = (grams(network, filtered=True, size=size).of(key) for size in (6, 2))
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one.second, other.second, rtol=1e-6, atol=1e-9)
    after = network.module.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert not any(child._forward_hooks for child in network.module.modules())


def test_a_layer_that_a_pass_skips_has_none() -> None:
    network = made("linears")
    skipping = trace(network.module, PICTURES[:1])

    def half(module: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(module, nn.Module)
        return module.get_submodule("lif1")(
            module.get_submodule("fc1")(x.flatten(1)).expand(STEPS, -1, -1)
        )

    found = Grams(skipping.with_forward(half), Batches(begin=batches), filtered=False)
    assert found.of("fc2.weight") is None
    assert found.of("fc1.weight") is not None


def test_a_few_rows_of_many_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made("convolved")
    whole = grams(network, filtered=False).of("conv3.weight")
    monkeypatch.setattr("snnprune.measure.layer_inputs.LEAST_ROWS", 40)
    monkeypatch.setattr("snnprune.measure.layer_inputs.ROWS_PER_INPUT", 1)
    first, again = (grams(network, filtered=False).of("conv3.weight") for _ in range(2))
    assert whole is not None
    assert first is not None
    assert again is not None
    assert first.rows == 40 < whole.rows
    assert torch.equal(first.second, again.second)
    # 40 rows of 0 and 1: a mean is off by 3 / (2 sqrt(40)) in one of 400 cases
    assert float((first.second - whole.second).abs().max()) < 0.3


def test_no_batch_is_an_error() -> None:
    with pytest.raises(InputError, match="no samples"):
        count_usage(made("linears"), Batches(begin=list))


@pytest.mark.parametrize(
    ("key", "filtered", "gain"),
    [
        ("fc1.weight", True, (1 + 1.5 + 1.75) / 3),  # a membrane of decay 1/2 over three steps
        ("fc1.weight", False, 1),
        ("fc2.weight", True, 1),  # the mean over time
    ],
)
def test_a_bias_counts_by_what_has_come_together_of_it(
    key: str, filtered: bool, gain: float
) -> None:
    network = made("snnTorch")
    usage = count_usage(network, Batches(begin=batches))
    sampler = RowSampler(network, key, usage, filtered=filtered, seed=0)
    for number, (x, _) in enumerate(batches()):
        seen = sampler.watched(len(x), number, lambda *_: None)
        with observe(network, on_layer=seen) as start, suppress(PassEnd):
            start()
            network.run(x)
    assert sampler.constant == pytest.approx(gain)


class Clipped(nn.Module):
    """The weight of a layer is that of its parameter, clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif, self.fc = nn.Linear(128, 6), lif(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.first(x.flatten(1)).expand(STEPS, -1, -1))
        return functional.linear(spikes, self.fc.weight.clamp(-0.1, 0.1))


def test_a_weight_that_a_function_makes_is_kept_once_its_inputs_were_seen() -> None:
    torch.manual_seed(0)
    network = trace(Clipped().eval(), PICTURES[:1])
    assert network.layers["fc.weight"].shaped
    found = grams(network, filtered=False)
    assert found.weight("fc.weight") is None
    for key in ("first.weight", "fc.weight"):
        assert found.of(key) is not None
    clipped = found.weight("fc.weight")
    assert clipped is not None
    assert torch.equal(clipped, network.weight("fc.weight").clamp(-0.1, 0.1))
    assert found.weight("first.weight") is None
