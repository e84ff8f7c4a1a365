"""BatchNorm statistics taken again, against float64 and against torch's own training mode."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.repair.batchnorm import find_batchnorms, recalibrate_batchnorm

SIZES = (7, 12, 5)  # of the batches


@pytest.fixture
def network() -> Network:
    """A conv-snn of three layers in eval mode, with statistics unlike any data's."""
    torch.manual_seed(0)
    args = {"width": 4, "depth": 3, "size": 8, "time_steps": 3, "in_channels": 2}
    module = build_model(ModelSpec(name="conv-snn", args=args)).eval()
    for norm in find_batchnorms(module).values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.0, 0.5)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.fill_(5.0)
        norm.running_var.fill_(9.0)
        norm.num_batches_tracked.fill_(17)
    return trace(module, torch.rand(2, 2, 8, 8))


def images() -> Tensor:
    return torch.rand(sum(SIZES), 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 3


def batches() -> Iterator[tuple[Tensor, None]]:
    for x in images().split(SIZES):
        yield x, None


def modes(network: Network) -> dict[str, bool]:
    return {name: module.training for name, module in network.module.named_modules()}


def test_the_first_statistics_are_those_of_all_images_together(network: Network) -> None:
    recalibrate_batchnorm(network, batches())
    weight = network.weight("encoder.conv.weight").double()
    current = functional.conv2d(images().double(), weight, padding=1)
    norm = find_batchnorms(network.module)["encoder.norm.running_var"]
    expected_mean, expected_var = current.mean((0, 2, 3)), current.var((0, 2, 3), correction=1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean.double(), expected_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), expected_var, rtol=1e-5, atol=1e-6)


def test_every_norm_gets_what_training_on_one_batch_would_give(network: Network) -> None:
    reference = copy.deepcopy(network.module)
    for norm in find_batchnorms(reference).values():
        norm.momentum = 1.0
    with torch.no_grad():
        reference.train()(images())
    recalibrate_batchnorm(network, [(images(), None)])
    found, expected = find_batchnorms(network.module), find_batchnorms(reference)
    assert list(found) == [
        "encoder.norm.running_var",
        "blocks.0.norm.running_var",
        "blocks.1.norm.running_var",
    ]
    for key, norm in found.items():
        torch.testing.assert_close(norm.running_mean, expected[key].running_mean)
        torch.testing.assert_close(norm.running_var, expected[key].running_var)


def test_only_running_statistics_change(network: Network) -> None:
    before = copy.deepcopy(network.module.state_dict())
    recalibrate_batchnorm(network, batches())
    after = network.module.state_dict()
    assert list(after) == list(before)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if "running" in key}


def test_counters_momentum_and_modes_are_as_they_were(network: Network) -> None:
    norms = list(find_batchnorms(network.module).values())
    for index, norm in enumerate(norms):
        norm.momentum = 0.1 * (index + 1)
    norms[0].train()
    before = modes(network)
    recalibrate_batchnorm(network, batches())
    assert modes(network) == before
    assert [norm.momentum for norm in norms] == pytest.approx([0.1, 0.2, 0.3])
    assert [int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked] == [17] * 3


def test_an_exception_on_the_way_leaves_everything_as_it_was(network: Network) -> None:
    def breaking() -> Iterator[tuple[Tensor, None]]:
        yield images(), None
        raise OSError("the disk is gone")

    before, state = modes(network), copy.deepcopy(network.module.state_dict())
    with pytest.raises(OSError, match="the disk is gone"):
        recalibrate_batchnorm(network, breaking())
    after = network.module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert modes(network) == before
    assert {norm.momentum for norm in find_batchnorms(network.module).values()} == {0.1}


def test_every_batch_counts_by_its_images_not_by_its_place(network: Network) -> None:
    other = Network(
        module=copy.deepcopy(network.module), layers=network.layers, neurons=network.neurons
    )
    recalibrate_batchnorm(network, [(images()[:1], None), (images()[1:], None)])
    recalibrate_batchnorm(other, [(images()[1:], None), (images()[:1], None)])
    key = "encoder.norm.running_var"
    first, second = find_batchnorms(network.module)[key], find_batchnorms(other.module)[key]
    torch.testing.assert_close(first.running_var, second.running_var)


def test_a_last_batch_of_one_sample_counts_though_it_has_no_variance() -> None:
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(2))
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), LIF(Dynamics()))
    network = trace(Steps(module).eval(), x)
    recalibrate_batchnorm(network, [(x[:4], None), (x[4:], None)])
    norm = next(iter(find_batchnorms(network.module).values()))
    current = module[0](x).detach()
    torch.testing.assert_close(norm.running_mean, current.mean(0))
    torch.testing.assert_close(norm.running_var, current.var(0))
    assert modes(network) == dict.fromkeys(modes(network), False)


class Steps(nn.Module):
    """One time step of layers for (N, C)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](self.layers[:2](x).unsqueeze(0))


def test_no_batches_leave_the_statistics_as_they_were(network: Network) -> None:
    state = copy.deepcopy(network.module.state_dict())
    recalibrate_batchnorm(network, [])
    after = network.module.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_a_norm_without_running_statistics_is_left_alone() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm1d(3))
    assert list(find_batchnorms(module)) == ["1.running_var"]


def test_dropout_stays_off_also_in_a_network_that_was_training() -> None:
    torch.manual_seed(0)
    args = {"width": 4, "depth": 2, "size": 8, "time_steps": 2}
    inner = build_model(ModelSpec(name="conv-snn", args=args))
    module = nn.Sequential(nn.Dropout(0.9), inner)
    network = trace(module, torch.rand(2, 1, 8, 8))
    module.train()
    x = torch.rand(20, 1, 8, 8)
    recalibrate_batchnorm(network, [(x, None)])
    current = functional.conv2d(x, network.weight("1.encoder.conv.weight"), padding=1)
    found = find_batchnorms(module)["1.encoder.norm.running_var"].running_mean
    torch.testing.assert_close(found, current.mean((0, 2, 3)))
    assert all(modes(network).values())


class Counting(nn.BatchNorm2d):
    """Counts batches by itself, as many write their threshold-dependent BatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
        return super().forward(x)


def test_a_norm_that_counts_its_batches_by_itself_is_repaired_and_keeps_its_count() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), Counting(3), LIF(Dynamics()))
    recalibrate_batchnorm(trace(module.eval(), images()[:2]), batches())
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    assert float(norm.running_mean.abs().sum()) > 0
    assert int(norm.num_batches_tracked) == 0
