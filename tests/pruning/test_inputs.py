"""What criteria know of a layer's inputs, from the inputs alone."""

import math

import pytest
import torch
from torch import nn

from snnprune.errors import InputError
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import LayerStatistics
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.criteria import Evidence, load_criterion
from snnprune.pruning.criteria.weight import variance

WANDA = load_criterion("wanda")


class Net(nn.Module):
    """Signed images into a grouped convolution, averaged spikes into a linear layer; 2 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, groups=2)
        self.neuron = LIF(Dynamics(beta=0.5, threshold=0.2))
        self.pool, self.fc = nn.AvgPool2d(3), nn.Linear(6 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.neuron(self.conv(x).expand(2, -1, -1, -1, -1))
        out: torch.Tensor = self.fc(self.pool(spikes.flatten(0, 1)).flatten(1))
        return out.unflatten(0, (2, -1)).mean(0)


def test_wanda_is_the_weight_times_the_root_mean_square_of_its_input() -> None:
    torch.manual_seed(1)
    net, x = Net().eval(), torch.randn(5, 4, 8, 8)
    kept: list[torch.Tensor] = []
    net.fc.register_forward_pre_hook(lambda _, args: kept.append(args[0].double()))
    network = trace(net, x[:1])
    found = calibrate(network, [(part, None) for part in x.split(2)])
    kept.clear()
    with torch.no_grad():
        net(x)

    def scores(key: str) -> torch.Tensor:
        layer = network.layers[key]
        return WANDA(
            Evidence(
                weight=network.weight(key),
                key=key,
                groups=layer.groups,
                statistics=found.layers[key],
            )
        )

    (pooled,) = kept
    expected = net.fc.weight.double().abs() * pooled.square().mean(0).sqrt()
    torch.testing.assert_close(scores("fc.weight"), expected, rtol=1e-6, atol=0)
    norms = x.double().square().mean((0, 2, 3)).sqrt()
    by_output = torch.stack([norms[:2]] * 3 + [norms[2:]] * 3)[:, :, None, None]
    expected = net.conv.weight.double().abs() * by_output
    torch.testing.assert_close(scores("conv.weight"), expected, rtol=1e-6, atol=0)

    exact = pooled.var(0, correction=0)
    statistics = found.layers["fc.weight"]
    assert statistics.input_values == "analog"
    spread = variance(Evidence(weight=net.fc.weight, key="fc.weight", statistics=statistics))
    torch.testing.assert_close(spread, exact, rtol=1e-5, atol=1e-8)


def test_wanda_scores_every_layer_that_something_enters() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 4, 8, 8)
    network = trace(Net().eval(), x)
    found = calibrate(network, [(x, None)])
    assert set(found.layers) == {"conv.weight", "fc.weight"}
    assert WANDA.needs == "inputs"


def old(values: str) -> LayerStatistics:
    """As read from a file of before squares were taken."""
    rate = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)
    return LayerStatistics(input_rate=rate, input_values=values)  # type: ignore[arg-type]  # a str


def test_the_square_of_a_spike_is_the_spike() -> None:
    evidence = Evidence(weight=-torch.ones(1, 3), key="w", statistics=old("binary"))
    assert WANDA(evidence).tolist() == [[math.sqrt(0.25), 1.0, 0.0]]
    assert variance(evidence).tolist() == [0.25 * 0.75, 0.0, 0.0]


@pytest.mark.parametrize("values", ["counts", "analog"])
def test_old_statistics_of_other_inputs_are_refused_with_what_to_do(values: str) -> None:
    with pytest.raises(InputError) as caught:
        WANDA(Evidence(weight=torch.ones(1, 3), key="w", statistics=old(values)))
    assert str(caught.value) == (
        "w: the calibration has no mean squares of inputs. run snnprune calibrate again"
    )
