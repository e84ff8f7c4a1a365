"""Where the weights and the scores come from."""

import math

import pytest
import torch
from small_networks import conv_snn, traced
from torch import Tensor

from snnprune.training.edge_popup import draw_scores, draw_weight, randomize_network

CONV, LINEAR = torch.Size([64, 32, 3, 3]), torch.Size([64, 288])


@pytest.mark.parametrize("shape", [CONV, LINEAR])
@pytest.mark.parametrize("kept", [0.1, 0.5, 1.0])
def test_the_spread_is_that_of_kaiming_for_the_inputs_that_are_left(
    shape: torch.Size, kept: float
) -> None:
    expected = math.sqrt(2) / math.sqrt(288) / math.sqrt(kept)
    normal = draw_weight(shape, "kaiming-normal", kept=kept, seed=0, key="a")
    assert float(normal.std()) == pytest.approx(expected, rel=0.02)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02 * expected)
    signed = draw_weight(shape, "signed-constant", kept=kept, seed=0, key="a")
    torch.testing.assert_close(signed.abs(), torch.full(shape, expected))
    assert torch.equal(signed > 0, normal > 0)


def test_the_draw_is_as_wide_as_torchs_own() -> None:
    reference = torch.nn.init.kaiming_normal_(
        torch.empty(CONV), nonlinearity="relu", generator=torch.Generator().manual_seed(0)
    )
    drawn = draw_weight(CONV, "kaiming-normal", kept=1.0, seed=0, key="a")
    assert float(drawn.std()) == pytest.approx(float(reference.std()), rel=0.03)


def test_scores_are_uniform_within_one_over_the_root_of_the_inputs() -> None:
    scores, bound = draw_scores(CONV, seed=0, key="a"), 1 / math.sqrt(288)
    assert 0.99 * bound < float(scores.abs().max()) <= bound
    assert float(scores.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_every_draw_follows_from_seed_and_key_alone() -> None:
    def draws(seed: int, key: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(torch.seed())
        weight = draw_weight(LINEAR, "kaiming-normal", kept=0.5, seed=seed, key=key)
        return weight, draw_scores(LINEAR, seed=seed, key=key)

    for each, again in zip(draws(0, "a"), draws(0, "a"), strict=True):
        assert torch.equal(each, again)
    for other in (draws(1, "a"), draws(0, "b")):
        for each, different in zip(draws(0, "a"), other, strict=True):
            assert not torch.equal(each, different)


def test_the_weights_of_a_search_are_the_draws_whatever_was_there() -> None:
    found = []
    for seed in (1, 2):
        module = conv_snn()
        torch.manual_seed(seed)
        for parameter in module.parameters():
            torch.nn.init.uniform_(parameter)
        with randomize_network(
            traced(module), weights="kaiming-normal", kept=0.3, seed=5
        ) as search:
            found.append(search.state_dict())
            key = "blocks.0.conv.weight"
            shape = search.weight(key).shape
            expected = draw_weight(shape, "kaiming-normal", kept=0.3, seed=5, key=key)
            assert torch.equal(search.weight(key), expected)
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
