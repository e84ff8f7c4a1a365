"""The factor per channel of what normalises a current on its way, and of what scales it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.calls import NormCall
from snnprune.graph.network import Gain, Layer, Link, Network, Norm
from snnprune.measure.calibrate import NormFactors, _find_channel_gain, _measure_gain

CHANNELS = 3
SIGMA = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


class ByHand(nn.Module):
    """2 x / sigma per channel of (N, C, S), by no call of `batch_norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", SIGMA**2)

    def forward(self, x: Tensor) -> Tensor:
        return -2 * x / self.get_buffer("running_var").sqrt()[:, None]


def links(*chains: tuple[str, ...], gains: tuple[Gain, ...] = ()) -> Link:
    """Chains of normalisations by the keys of their variances; those of `hand` are by hand."""
    norms = tuple(
        tuple(
            Norm(scale=None, variance=key, eps=None if key.startswith("hand") else 0.0)
            for key in chain
        )
        for chain in chains
    )
    return Link(neuron="lif", norms=norms, gains=gains)


def factors_of(link: Link, module: nn.Module | None = None) -> tuple[NormFactors, Layer]:
    layer = Layer(weight="w", kind="linear", shape=(CHANNELS, 2), encoding=True, links=(link,))
    network = Network(module=module or nn.Identity(), layers={"w": layer})
    return NormFactors(network, {}), layer


def call(variance: Tensor | None, scale: Tensor | None = None, eps: float = 0.0) -> NormCall:
    x = torch.zeros(2, CHANNELS)
    return NormCall(input=x, mean=None, variance=variance, scale=scale, eps=eps, training=False)


def test_the_factor_of_a_call_is_that_of_the_first_which_holds_a_variance() -> None:
    factors, _ = factors_of(links(("a",)))
    factors.on_norm("a", call(None))
    factors.on_norm("a", call(SIGMA**2 - 0.5, torch.tensor([1.0, -6.0, 2.0]), eps=0.5))
    factors.on_norm("a", call(SIGMA))
    factors.on_norm("b", call(SIGMA**2))
    assert factors.factors["a"].tolist() == [1, 3, 0.5]
    assert factors.factors["b"].tolist() == [1, 0.5, 0.25]


def test_factors_of_a_chain_are_multiplied_and_those_of_several_have_their_mean() -> None:
    link = links(("a", "b"), ("a",), ())
    factors, layer = factors_of(link)
    factors.factors.update(a=torch.tensor([1.0, 2.0, 4.0]).double(), b=torch.full((3,), 3.0))
    assert factors.of(layer, link).tolist() == pytest.approx([5 / 3, 3, 17 / 3])


def test_constants_on_the_way_count_by_their_size_and_divide_where_the_network_does() -> None:
    gains = (Gain(value=-2.0), Gain(value=SIGMA.view(-1, 1, 1), divides=True))
    link = links((), gains=gains)
    factors, layer = factors_of(link)
    assert factors.of(layer, link).tolist() == [2, 1, 0.5]
    assert factors.explain_refusal(layer, link) is None


@pytest.mark.parametrize("shape", [(2,), (3, 2), (3, 1, 3)])
def test_a_constant_of_no_single_value_per_channel_is_told(shape: tuple[int, ...]) -> None:
    link = links((), gains=(Gain(value=1.0), Gain(value=torch.ones(shape))))
    factors, layer = factors_of(link)
    assert factors.explain_refusal(layer, link) == (
        "on the way to lif: it is scaled by what is not the same everywhere in a channel"
    )


def test_a_normalisation_by_hand_is_probed_with_the_first_that_came() -> None:
    module = nn.ModuleDict({"hand": ByHand()})
    link = links(("hand.running_var",))
    factors, layer = factors_of(link, module)
    told = factors.explain_refusal(layer, link)
    assert told == (
        "hand.running_var: what normalises it is not the same factor everywhere in a channel"
    )
    with factors.keep_inputs():
        module["hand"](torch.rand(2, CHANNELS, 5))
        module["hand"](torch.full((2, CHANNELS, 5), torch.nan))
    module["hand"](torch.zeros(1, CHANNELS, 1))
    assert not module["hand"]._forward_pre_hooks
    factors.probe()
    assert factors.explain_refusal(layer, link) is None
    torch.testing.assert_close(factors.of(layer, link), 2 / SIGMA, rtol=1e-4, atol=0)
    assert not factors.inputs


@pytest.mark.parametrize(
    ("module", "given"),
    [
        (nn.Tanh(), (torch.ones(2, 3),)),
        (nn.Linear(3, 1), (torch.ones(2, 3),)),
        (nn.Bilinear(3, 3, 3), (torch.ones(2, 3), torch.ones(2, 3))),
        (nn.Identity(), ([torch.ones(2, 3)],)),
    ],
    ids=["not linear", "of another shape", "of two inputs", "of a list"],
)
@torch.no_grad()
def test_what_is_no_factor_is_none(module: nn.Module, given: tuple[Any, ...]) -> None:
    assert _find_channel_gain(_measure_gain(module, *given), CHANNELS) is None


def test_the_channels_of_a_factor_are_where_it_is_even_and_are_not_the_samples() -> None:
    by_channel = torch.tensor([1.0, 2.0, 3.0])
    last, second = by_channel.expand(3, 3, 3), by_channel[:, None].expand(3, 3, 3)
    for gain in (last, second):
        found = _find_channel_gain(gain, CHANNELS)
        assert found is not None
        assert torch.equal(found, by_channel)
    assert _find_channel_gain(by_channel[:, None].expand(3, 2), CHANNELS) is None
    uneven = last.clone()
    uneven[0, 0, 0] += 0.1
    assert _find_channel_gain(uneven, CHANNELS) is None
    even = _find_channel_gain(torch.full((3, 3, 3), 2.0), 3)
    assert even is not None
    assert torch.equal(even, torch.full((3,), 2.0))
