"""OBS criteria against formulas and against a network whose moments are taken by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.measure.second_moments import Gram, Grams
from snnprune.models.lif import LIF, Dynamics
from snnprune.pruning.criteria import Evidence, load_criterion
from snnprune.pruning.criteria.obs import RIDGE, flip_gain
from snnprune.pruning.score import EvidenceSource, score

STEPS = 3
X = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)) * 2


class Small(nn.Module):
    """A conv behind spikes and before a BatchNorm, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.lif0, self.norm = self.lif(), nn.BatchNorm1d(5)
        self.conv = nn.Conv1d(6, 5, 1, bias=False)
        self.lif1, self.fc = self.lif(), nn.Linear(5, 3)

    def lif(self) -> LIF:
        return LIF(Dynamics(beta=0.5, threshold=0.6))

    def hidden(self, x: Tensor) -> Tensor:
        """Spikes (T, N, 5)."""
        spikes = self.lif0(x.expand(STEPS, -1, -1)).flatten(0, 1).unsqueeze(2)
        current = self.norm(self.conv(spikes)).unflatten(0, (STEPS, -1))
        return self.lif1(current).squeeze(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x))


def network() -> Network:
    torch.manual_seed(1)
    module = Small()
    nn.init.uniform_(module.norm.weight, 0.5, 1.5)
    module.norm.get_buffer("running_var").uniform_(0.05, 0.3)
    return trace(module.eval(), X[:1])


def batches() -> list[tuple[Tensor, None]]:
    return [(x, None) for x in X.split(5)]


def scored(name: str, of: Network) -> dict[str, Tensor]:
    """The scores of every layer."""
    criterion = load_criterion(name)
    source = EvidenceSource(
        network=of,
        batches=Batches(begin=batches),
        calibrate=lambda: calibrate(of, batches()),
    )
    evidence = source.gather(criterion.needs)
    weights = {key: of.weight(key) for key in of.layers}
    return dict(score(weights, criterion, network=of, evidence=evidence).values)


def gram(second: Tensor, *, free: bool = False, mean: Tensor | None = None) -> Gram:
    zero = torch.zeros(second.shape[:2], dtype=torch.float64)
    return Gram(second=second, mean=zero if mean is None else mean, rows=1, free=free)


def test_a_hand_worked_example_without_correlation() -> None:
    """w^2 E[x^2], but for the ridge."""
    second = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))[None]
    evidence = Evidence(weight=torch.tensor([[3.0, 2.0]]), key="w", gram=gram(second))
    ridge = RIDGE * 2.5
    expected = torch.tensor([[9 * (1 + ridge), 4 * (4 + ridge)]], dtype=torch.float64)
    torch.testing.assert_close(load_criterion("obs")(evidence), expected)


def test_the_spikes_of_a_free_mean_count_by_their_variance() -> None:
    """An input that always fires carries nothing that a bias cannot carry."""
    mean = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    second = torch.tensor([[[1.0, 0.5], [0.5, 0.5]]], dtype=torch.float64)
    evidence = Evidence(
        weight=torch.tensor([[5.0, 1.0]]), key="w", gram=gram(second, free=True, mean=mean)
    )
    always, sometimes = load_criterion("obs")(evidence)[0].tolist()
    assert always < 0.05 < sometimes
    assert sometimes == pytest.approx(0.25, rel=0.02)  # 1^2 p (1 - p)


@pytest.mark.parametrize("name", ["obs", "obs-membrane", "sbc", "sf-obs"])
def test_scores_have_the_shape_of_a_grouped_conv_and_each_row_its_own_inputs(name: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(2, 50, 4, generator=drawn, dtype=torch.float64)
    weight = torch.randn(6, 1, 2, 2, generator=drawn)
    evidence = Evidence(weight=weight, key="w", groups=2, gram=gram(x.mT @ x / 50))
    found = load_criterion(name)(evidence)
    assert found.shape == weight.shape
    for group in range(2):
        part = gram((x.mT @ x / 50)[group : group + 1])
        alone = Evidence(weight=weight[3 * group : 3 * group + 3], key="w", gram=part)
        torch.testing.assert_close(found[3 * group : 3 * group + 3], load_criterion(name)(alone))


def test_scores_grow_with_the_square_of_the_weights() -> None:
    second = torch.eye(3, dtype=torch.float64)[None] + 0.2
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    for name in ("obs", "obs-membrane", "sbc"):
        one, double = (
            load_criterion(name)(Evidence(weight=w, key="w", gram=gram(second)))
            for w in (weight, 2 * weight)
        )
        assert load_criterion(name).degree == 2
        torch.testing.assert_close(double, 4 * one)


def spikes_of(of: Network) -> Tensor:
    """(T, N, 6), what enters the first layer."""
    found = of.module.get_submodule("lif0")(X.expand(STEPS, -1, -1))
    assert isinstance(found, Tensor)
    return found


def test_the_inputs_of_a_layer_are_taken_as_they_are_or_as_its_membrane_has_them() -> None:
    of = network()
    spikes = spikes_of(of)
    membrane = torch.stack([spikes[0], spikes[1] + 0.5 * spikes[0], torch.zeros_like(spikes[0])])
    membrane[2] = spikes[2] + 0.5 * membrane[1]
    for name, rows in (("obs", spikes), ("obs-membrane", membrane)):
        covariance = torch.cov(rows.flatten(0, 1).double().T, correction=0)[None]
        evidence = Evidence(weight=of.weight("conv.weight"), key="w", gram=gram(covariance))
        torch.testing.assert_close(
            scored(name, of)["conv.weight"], load_criterion("obs")(evidence), rtol=1e-5, atol=1e-9
        )


def test_sbc_leaves_in_the_means_of_what_the_membrane_has() -> None:
    of = network()
    spikes = spikes_of(of)
    membrane = torch.stack([spikes[0], spikes[1] + 0.5 * spikes[0], torch.zeros_like(spikes[0])])
    membrane[2] = spikes[2] + 0.5 * membrane[1]
    rows = membrane.flatten(0, 1).double()
    evidence = Evidence(
        weight=of.weight("conv.weight"), key="w", gram=gram((rows.T @ rows / len(rows))[None])
    )
    expected = load_criterion("obs")(evidence)
    torch.testing.assert_close(scored("sbc", of)["conv.weight"], expected, rtol=1e-5, atol=1e-9)
    assert not torch.allclose(scored("obs-membrane", of)["conv.weight"], expected)


def test_sf_obs_weighs_by_the_squared_chance_of_a_spike_per_current() -> None:
    of = network()
    statistics: Calibration = calibrate(of, batches())
    (drive,) = statistics.layers["conv.weight"].drives
    norm = of.module.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    neuron = drive.neuron
    variance = neuron.membrane_var
    density = (-((0.6 - neuron.membrane_mean) ** 2) / (2 * variance)).exp() / (
        2 * math.pi * variance
    ).sqrt()
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    found, losses = scored("sf-obs", of)["conv.weight"], scored("obs-membrane", of)["conv.weight"]
    expected = losses * ((scale * density * drive.time_gain) ** 2).view(-1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-12)


def test_where_no_neuron_is_known_a_current_is_as_wide_as_it_is() -> None:
    of = network()
    taken = Grams(of, Batches(begin=batches), filtered=True).of("fc.weight")
    assert taken is not None
    weight = of.weight("fc.weight")
    assert isinstance(of.module, Small)
    hidden = of.module.hidden(X).detach()
    logits = (hidden.mean(0) @ weight.T).double()
    expected = 1 / (2 * math.pi * logits.var(0, correction=0))
    torch.testing.assert_close(flip_gain(weight.double(), taken, None), expected, rtol=1e-5, atol=0)


def test_a_weight_that_its_twin_can_replace_is_worth_less_than_a_lonely_one() -> None:
    """Inputs 0 and 1 are the same; 2 is by itself and has half their weight."""
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = x[:, [0, 0, 1]]
    evidence = Evidence(
        weight=torch.tensor([[1.0, 1.0, 0.5]]), key="w", gram=gram((rows.T @ rows / 60)[None])
    )
    first, second, lonely = load_criterion("obs")(evidence)[0].tolist()
    assert min(first, second) < lonely < max(first, second)
