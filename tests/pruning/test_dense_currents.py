"""The dense network's currents: recorded for many layers at once, the same as one by one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pruned_networks import batches
from repairing import pruned
from torch import Tensor, nn

from snnprune.measure.layer_inputs import count_usage
from snnprune.pruning.repair import Repair, layerwise
from snnprune.pruning.repair.layerwise import (
    DenseCurrents,
    choose_and_refit,
    give_back_means,
    refit,
)

NETWORKS = ("convolved", "SpikingJelly at once", "SpikingJelly stepwise", "snnTorch", "tied")


@pytest.mark.many(1)
@pytest.mark.parametrize("repair", [choose_and_refit, refit, give_back_means])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_repair_is_the_same_to_the_bit_however_many_layers_fit(
    name: str, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Tensor]] = []
    for memory in (1, 3000, 2**29):
        monkeypatch.setattr(layerwise, "MEMORY", memory)
        of = pruned(name)
        repair(of)
        found.append({key: t.clone() for key, t in of.network.module.state_dict().items()})
    for other in found[1:]:
        assert all(torch.equal(found[0][key], tensor) for key, tensor in other.items())


def counted(name: str) -> tuple[DenseCurrents, list[str], list[int]]:
    """Currents, the layers, and a list with the calls of the network so far as its one entry."""
    calls = [0]
    of = pruned(name)

    def run(module: nn.Module, x: Any) -> Any:
        calls[0] += 1
        return module(x)

    network = of.network.with_forward(run)
    usage = count_usage(network, of.batches)
    keys = [*of.masks]
    calls[0] = 0
    return DenseCurrents(replace(of, network=network), usage, keys, filtered=True), keys, calls


def test_one_pass_records_all_layers_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = len(list(batches()))
    for memory, expected in ((2**29, 1), (1, 4)):
        monkeypatch.setattr(layerwise, "MEMORY", memory)
        currents, keys, calls = counted("convolved")
        assert len(keys) == 4
        for key in keys:
            assert [len(one.calls) for one in currents.take(key)] == [1] * passes
        assert calls[0] == expected * passes


def test_as_many_layers_are_recorded_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = len(list(batches()))
    currents, keys, _ = counted("convolved")
    layers, calls = currents.pruned.network.layers, currents.usage.calls
    rows = [currents.new_sampler(key).quota * calls[key] * passes for key in keys]
    sizes = [4 * n * layers[key].shape[0] for n, key in zip(rows, keys, strict=True)]
    first, second, third, last = sizes
    assert second + third + last > first + second > second + third
    for memory, expected in ((sum(sizes), 1), (sum(sizes) - 1, 2), (first + second - 1, 3)):
        monkeypatch.setattr(layerwise, "MEMORY", memory)
        currents, keys, done = counted("convolved")
        for key in keys:
            currents.take(key)
        assert done[0] == expected * passes
