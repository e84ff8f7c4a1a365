"""Uses of weights against operations counted one by one, and predictions against measurements."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnprune.graph.calls import LayerCall
from snnprune.graph.network import LayerKind, Network
from snnprune.graph.trace import trace
from snnprune.measure import Energy
from snnprune.measure.evaluation import evaluate
from snnprune.measure.uses import count_uses, measure_uses
from snnprune.measure.workload import Workload, count_operations
from snnprune.models import ModelSpec, build_model

BATCHES = [
    torch.rand(size, 1, 12, 12, generator=torch.Generator().manual_seed(size)) for size in (5, 3)
]


def build() -> Network:
    torch.manual_seed(0)
    args = {"in_channels": 1, "size": 12, "width": 4, "depth": 3, "time_steps": 3}
    module = build_model(ModelSpec(name="conv-snn", args=args)).eval()
    for weight in module.parameters():
        weight.data *= 2  # so that there are spikes
    return trace(module, BATCHES[0])


def measure(network: Network) -> dict[str, int]:
    work = Workload()
    evaluate(network, [(x, None) for x in BATCHES], workload=work)
    return {key: one.macs + one.acs for key, one in work.layers.items()}


def predict(network: Network, masks: dict[str, Tensor]) -> dict[str, float]:
    uses = measure_uses(network, [(x, None) for x in BATCHES])
    assert uses.samples == 8
    return {key: float((uses.count(key) * mask).sum() * 8) for key, mask in masks.items()}


def find_alive(network: Network) -> dict[str, Tensor]:
    return {key: network.weight(key) != 0 for key in network.layers}


def test_what_nothing_is_pruned_of_is_predicted_to_the_last_operation() -> None:
    network = build()
    found = measure(network)
    assert min(found.values()) > 0
    assert predict(network, find_alive(network)) == pytest.approx(found, abs=1e-6)


def test_a_layer_that_the_data_feeds_is_predicted_exactly_however_it_is_pruned() -> None:
    network = build()
    key = next(iter(network.layers))
    masks = find_alive(network)
    masks[key] = torch.rand(masks[key].shape, generator=torch.Generator().manual_seed(1)) < 0.4
    predicted = predict(network, masks)
    with torch.no_grad():
        network.weight(key).mul_(masks[key])
    found = measure(network)
    assert predicted[key] == pytest.approx(found[key], abs=1e-6)
    later = list(network.layers)[1:]
    assert any(abs(predicted[other] - found[other]) > 1 for other in later)  # their rates changed


def test_energy_is_that_of_the_workload() -> None:
    network, work, energy = build(), Workload(), Energy(mac=3.0, ac=0.5)
    evaluate(network, [(x, None) for x in BATCHES], workload=work)
    uses = measure_uses(network, [(x, None) for x in BATCHES])
    assert uses.macs
    assert uses.acs
    for key, one in work.layers.items():
        assert float(uses.price(key, energy).sum()) * 8 == pytest.approx(energy.of(one))


@pytest.mark.parametrize(
    ("kind", "shape", "weight", "groups", "geometry"),
    [
        ("conv1d", (3, 4, 9), (6, 2, 3), 2, {"stride": 2, "padding": 1}),
        ("conv2d", (2, 3, 7, 6), (5, 3, 3, 2), 1, {"padding": (1, 0), "dilation": (2, 1)}),
        ("conv3d", (2, 2, 4, 4, 4), (3, 2, 2, 2, 2), 1, {}),
        ("conv_transpose2d", (2, 4, 5, 5), (6, 2, 3, 3), 2, {"stride": 2, "padding": 1}),
        ("linear", (3, 2, 8), (6, 4), 2, {}),
    ],
)
def test_uses_of_every_kind_of_layer_add_up_to_its_operations_weight_by_weight(
    kind: LayerKind,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    groups: int,
    geometry: dict[str, object],
) -> None:
    drawn = torch.Generator().manual_seed(2)
    x = (torch.rand(shape, generator=drawn) < 0.4).float()
    call = LayerCall(
        kind=kind, input=x, weight=torch.ones(weight), groups=groups, geometry=geometry
    )
    uses = count_uses(call, x != 0)
    rows = weight[0] // groups
    for place in _some_places(weight, drawn):
        alive = torch.zeros(weight, dtype=torch.bool)
        alive[place] = True
        group, *rest = place[0] // rows, *place[1:]
        assert float(uses[(group, *rest)]) == count_operations(call, x != 0, alive)


def _some_places(shape: tuple[int, ...], drawn: torch.Generator) -> list[tuple[int, ...]]:
    return [
        tuple(int(torch.randint(size, (1,), generator=drawn)) for size in shape) for _ in range(12)
    ]
