"""The smallest cut within limits, against all cuts there are of tiny networks."""

import itertools
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.masks import RowBounds, select_in_rows
from snnprune.models import ModelSpec, build_model
from snnprune.pruning.budget import Allocated, Budget, BudgetCutting, Cap, allocate
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.repair.tuning import MaskGrowth
from snnprune.pruning.score import Scores, score
from snnprune.pruning.structure.channels import ChannelCutting

SHAPES = {"a": (2, 3), "b": (2, 2)}


def split(flat: Tensor) -> dict[str, Tensor]:
    return {
        key: part.view(SHAPES[key]) for key, part in zip(SHAPES, flat.split([6, 4]), strict=True)
    }


def join(by_key: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([by_key[key].flatten() for key in SHAPES])


def list_choices(size: int) -> Tensor:
    """Every mask of so many weights, (2^size, size) bool."""
    return torch.tensor(list(itertools.product([False, True], repeat=size)))


CHOICES, TWELVE = list_choices(10), list_choices(12)


def find_allowed(worth: Mapping[str, Tensor], budget: Budget) -> Tensor:
    """The masks in which the best weights of each layer stay and no row breaks its bounds."""
    masks = CHOICES
    rows = {key: budget.rows.get(key, RowBounds()) for key in SHAPES}
    first = join(
        {k: select_in_rows(one, budget.least.get(k, 1), rows[k]) for k, one in worth.items()}
    )
    allowed = (masks | ~first).all(1)
    for key, part in zip(SHAPES, masks.split([6, 4], dim=1), strict=True):
        if (most := rows[key].most) is not None:
            allowed &= (part.view(-1, *SHAPES[key]).sum(2) <= most).all(1)
    return masks[allowed]


def spend(cap: Cap, prices: Mapping[str, Mapping[str, Tensor]], masks: Tensor) -> Tensor:
    """What each of some masks (n, weights) costs."""
    costs = {
        key: one if cap.layer in (None, key) else torch.zeros_like(one)
        for key, one in prices[cap.price].items()
    }
    return masks.double() @ join(costs)


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], Budget]:
    # few values, so that many weights tie
    worth = split(
        torch.tensor(draw(st.lists(st.integers(1, 5), min_size=10, max_size=10))).double()
    )
    uses = split(torch.tensor(draw(st.lists(st.integers(0, 6), min_size=10, max_size=10))).double())
    prices = {"synops": uses, "weights": {key: torch.ones_like(one) for key, one in uses.items()}}
    kinds = st.sampled_from(
        [("synops", None), ("weights", None), ("synops", "a"), ("weights", "b")]
    )
    chosen = draw(st.lists(kinds, min_size=1, max_size=3, unique=True))
    caps = tuple(
        Cap(name=price, price=price, layer=layer, most=draw(st.integers(1, 15)))
        for price, layer in chosen
    )
    least = {"a": draw(st.integers(1, 3))}
    rows = {"b": RowBounds(least=draw(st.integers(0, 1)), most=draw(st.sampled_from([None, 1, 2])))}
    return worth, prices, Budget(caps=caps, rows=rows, least=least)


@given(problems())
def test_a_cut_keeps_within_every_limit_and_loses_hardly_more_than_the_best_of_all(
    problem: tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], Budget],
) -> None:
    worth, prices, budget = problem
    found, masks = allocate(worth, prices, budget), find_allowed(worth, budget)
    within = torch.ones(len(masks), dtype=torch.bool)
    for cap in budget.caps:
        within &= spend(cap, prices, masks) <= cap.most
    kept = join(found.masks)
    assert bool((masks == kept).all(1).any())
    assert found.spent == tuple(float(spend(cap, prices, kept[None])) for cap in budget.caps)
    assert found.shortest is not bool(within.any())
    if found.shortest:
        return
    assert all(spent <= cap.most for spent, cap in zip(found.spent, budget.caps, strict=True))
    lost = (~masks[within]).double() @ join(worth)
    # a bound that is proved: of a linear program as many weights are split as there are caps
    assert float((~kept).double() @ join(worth)) <= float(lost.min()) + len(budget.caps) * 5


@pytest.mark.parametrize(("alive", "told"), [(2, False), (3, True)])
def test_a_layer_is_narrowed_where_a_channel_had_more_weights_than_it_may(
    alive: int, told: bool
) -> None:
    worth = torch.tensor([[3.0, 2.0, 1.0, 1.0], [1.0, -torch.inf, -torch.inf, -torch.inf]]).double()
    worth[0, alive:] = -torch.inf
    found = allocate({"x": worth}, {}, Budget(rows={"x": RowBounds(most=2)}))
    assert found.masks["x"].tolist() == [[True, True, False, False], [True, False, False, False]]
    assert found.narrowed == (("x",) if told else ())


def cut(worth: list[float], uses: list[float], *caps: Cap, **more: object) -> Allocated:
    prices = {
        "synops": {"x": torch.tensor([uses]).double()},
        "weights": {"x": torch.ones(1, len(uses)).double()},
    }
    return allocate({"x": torch.tensor([worth]).double()}, prices, Budget(caps=caps, **more))  # type: ignore[arg-type]


def kept(found: Allocated) -> list[int]:
    return found.masks["x"].flatten().nonzero().flatten().tolist()


def test_what_is_worth_least_for_its_operations_goes_first() -> None:
    # worth by use: 3, 1, 5 and 0.5
    found = cut([3, 4, 5, 2], [1, 4, 1, 4], Cap(name="s", price="synops", most=6))
    assert kept(found) == [0, 1, 2]
    assert found.spent == (6,)
    assert found.multipliers[0] == pytest.approx(0.5)


def test_of_equals_the_later_ones_stay_and_exactly_as_many_as_fit() -> None:
    found = cut([1] * 6, [2] * 6, Cap(name="s", price="synops", most=7))
    assert kept(found) == [3, 4, 5]


def test_a_limit_that_leaves_all_prunes_nothing_and_does_not_bind() -> None:
    found = cut([1, 0, 3], [1, 1, 1], Cap(name="s", price="synops", most=3))
    assert kept(found) == [0, 1, 2]
    assert found.multipliers == (0,)


def test_weights_without_a_use_are_not_cut_for_operations_but_for_their_number() -> None:
    synops = Cap(name="s", price="synops", most=1)
    assert kept(cut([1, 2, 9], [0, 5, 1], synops)) == [0, 2]
    weights = Cap(name="w", price="weights", most=1)
    found = cut([1, 2, 9], [0, 5, 1], synops, weights)
    assert kept(found) == [2]
    assert found.multipliers[1] > 0


def test_a_limit_that_nothing_meets_leaves_what_must_stay_and_says_so() -> None:
    found = cut([1, 2, 9], [3, 3, 3], Cap(name="s", price="synops", most=2))
    assert kept(found) == [2]
    assert found.shortest
    assert found.spent == (3,)


@given(
    st.lists(st.integers(0, 4), min_size=12, max_size=12),
    st.integers(0, 12),
    st.integers(0, 2),
    st.integers(2, 4),
)
def test_of_rows_within_bounds_the_greatest_sum_is_kept(
    values: list[int], count: int, least: int, most: int
) -> None:
    table = torch.tensor(values).view(3, 4).double()
    bounds = RowBounds(least=least, most=most)
    chosen = select_in_rows(table, count, bounds)
    of_rows = chosen.sum(1)
    assert bool(((of_rows >= least) & (of_rows <= most)).all())
    assert int(chosen.sum()) == min(max(count, 3 * least), 3 * most)
    rows = TWELVE.view(-1, 3, 4).sum(2)
    others = TWELVE[((rows >= least) & (rows <= most)).all(1) & (rows.sum(1) == chosen.sum())]
    assert float(table[chosen].sum()) == float((others.double() @ table.flatten()).max())


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    args = {"in_channels": 1, "size": 12, "width": 4, "depth": 3, "time_steps": 2}
    return trace(build_model(ModelSpec(name="conv-snn", args=args)), torch.rand(2, 1, 12, 12))


def score_all(network: Network) -> tuple[dict[str, Tensor], Scores]:
    weights = {key: network.weight(key).detach() for key in network.layers}
    return weights, score(weights, load_criterion("magnitude"))


@pytest.mark.parametrize("steps", [1, 40])
def test_masks_that_grow_end_at_their_counts_and_within_the_bounds_of_channels(
    network: Network, steps: int
) -> None:
    weights, scores = score_all(network)
    key = list(weights)[1]
    rows = {key: RowBounds(least=3, most=9)}
    prices = {"weights": dict.fromkeys(weights, torch.ones(()))}
    budget = Budget(caps=(Cap(name="w", price="weights", most=150),), rows=rows)
    goal = BudgetCutting(budget, prices, network.layers)(weights, scores, 0.0, None).masks
    counts = {one: int(mask.sum()) for one, mask in goal.items()}
    whole = {one: torch.ones_like(mask) for one, mask in goal.items()}
    growth = MaskGrowth(whole, counts, steps, rows=rows, layers=network.layers)
    drawn = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):  # weights change their order, and many are equal
        moved = {one: torch.randint(0, 3, w.shape, generator=drawn) for one, w in weights.items()}
        growth.grow(step, moved.__getitem__)
    assert {one: int(mask.sum()) for one, mask in growth.masks.items()} == counts
    of_rows = growth.masks[key].flatten(1).sum(1)
    assert int(of_rows.min()) >= 3
    assert int(of_rows.max()) <= 9


def test_whole_channels_go_until_limits_of_layers_hold_and_hardly_more(network: Network) -> None:
    weights, scores = score_all(network)
    first, second, *_, last = weights
    prices = {"weights": dict.fromkeys(weights, torch.ones(()))}
    most = {second: weights[second].numel() // 2, last: weights[last].numel() // 2}
    caps = tuple(
        Cap(name="core", price="weights", layer=key, most=one) for key, one in most.items()
    )
    channels = ChannelCutting(network)
    cutting = BudgetCutting(Budget(caps=caps), prices, network.layers, path=channels)
    masks = cutting(weights, scores, 0.0, None).masks
    kept = {key: int(mask.sum()) for key, mask in masks.items()}
    assert not cutting.shortest
    assert cutting.bound == (True, True)
    assert all(0.7 * one < kept[key] <= one for key, one in most.items())
    narrow = Budget(rows={last: RowBounds(most=weights[last].shape[1] // 2)})
    cutting = BudgetCutting(narrow, prices, network.layers, path=channels)
    masks = cutting(weights, scores, 0.0, None).masks
    assert int(masks[last].sum(1).max()) == weights[last].shape[1] // 2
    assert cutting.narrowed == (last,)
    assert masks[first].all()
