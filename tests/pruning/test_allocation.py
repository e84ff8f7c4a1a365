"""How a number of weights is shared between layers."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.masks import Masks, count_pruned
from snnprune.pruning.allocation import ALLOCATIONS, Candidates, load_allocation

Layer = tuple[list[tuple[int, float]], bool]  # (|w|, score) of its weights; scored by magnitude
LAYERS: st.SearchStrategy[list[Layer]] = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([-math.inf, 0.0, 1.0, 2.0])),
            min_size=1,
            max_size=12,
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def candidates(layers: list[Layer]) -> Candidates:
    """Layers a, b, ...; as in `pruning/score.py`, a weight of 0 scores -inf."""
    names = [chr(ord("a") + number) for number in range(len(layers))]
    magnitudes, scores = {}, {}
    for name, (weights, by_magnitude) in zip(names, layers, strict=True):
        size = torch.tensor([float(magnitude) for magnitude, _ in weights])
        given_scores = size if by_magnitude else torch.tensor([score for _, score in weights])
        magnitudes[name] = size
        scores[name] = given_scores.masked_fill(size == 0, -math.inf)
    outside = frozenset(name for name, (_, flag) in zip(names, layers, strict=True) if flag)
    return Candidates(
        scores=scores,
        magnitudes=magnitudes,
        criterion="sf",
        by_magnitude=outside,
        flips={names[0]: magnitudes[names[0]].unsqueeze(0)},
    )


def two_layers() -> Candidates:
    """Layer a is scored by magnitude, layer b by a criterion that reverses its order."""
    return Candidates(
        scores={"a": torch.tensor([0.1, 0.9, 0.5]), "b": torch.tensor([[4.0, 3.0], [2.0, 1.0]])},
        magnitudes={
            "a": torch.tensor([0.1, 0.9, 0.5]),
            "b": torch.tensor([[0.2, 0.3], [0.4, 0.6]]),
        },
        criterion="sf",
        by_magnitude=frozenset({"a"}),
        flips={"b": torch.tensor([[0.1, 0.2], [0.3, 0.4]])},
    )


def kept(masks: Masks) -> dict[str, list[bool]]:
    return {key: mask.flatten().tolist() for key, mask in masks.items()}


def possible(name: str, target: Candidates, count: int) -> bool:
    """Whether an allocation can do it at all, by its own words."""
    outside, scored = (target.pool(by_magnitude=flag) for flag in (True, False))
    if name == "global":
        return not (outside and scored)
    left = count - target.count_pruned_already(outside)
    return name != "pools-dense" or left <= target.size(scored)


@pytest.mark.parametrize("name", ALLOCATIONS.rows)
@settings(max_examples=30, deadline=None)
@given(layers=LAYERS, data=st.data())
def test_every_allocation_prunes_exactly_the_count_and_every_zero(
    name: str, layers: list[Layer], data: st.DataObject
) -> None:
    target = candidates(layers)
    least = target.count_pruned_already(target.keys)
    count = data.draw(st.integers(least, target.size(target.keys)))
    assume(possible(name, target, count))
    masks = load_allocation(name)(target, count)
    assert count_pruned(masks) == count
    assert set(masks) == set(target.keys)
    assert all(masks[key].shape == target.magnitudes[key].shape for key in target.keys)
    assert not any(bool(masks[key][target.magnitudes[key] == 0].any()) for key in target.keys)


@pytest.mark.many(5)
@pytest.mark.parametrize("name", ALLOCATIONS.rows)
@settings(max_examples=30, deadline=None)
@given(layers=LAYERS, data=st.data())
def test_within_a_layer_nothing_kept_scores_below_anything_pruned(
    name: str, layers: list[Layer], data: st.DataObject
) -> None:
    target = candidates(layers)
    least = target.count_pruned_already(target.keys)
    count = data.draw(st.integers(least, target.size(target.keys)))
    assume(possible(name, target, count))
    for key, mask in load_allocation(name)(target, count).items():
        stays, goes = target.scores[key][mask], target.scores[key][~mask]
        if name == "pools-dense" and key in target.by_magnitude:
            assert torch.equal(mask, target.magnitudes[key] != 0)
        elif len(stays) and len(goes):
            assert goes.max() <= stays.min()


@pytest.mark.parametrize("name", [name for name in ALLOCATIONS.rows if name != "global"])
def test_the_same_candidates_give_the_same_masks(name: str) -> None:
    first, second = (load_allocation(name)(two_layers(), 3) for _ in range(2))
    assert kept(first) == kept(second)


def test_global_ranks_all_layers_together_and_ties_by_magnitude() -> None:
    target = Candidates(
        scores={"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([1.0, 2.0])},
        magnitudes={"a": torch.tensor([0.4, 0.1]), "b": torch.tensor([0.3, 0.2])},
        criterion="sf",
    )
    rank = load_allocation("global")
    assert kept(rank(target, 1)) == {"a": [True, True], "b": [False, True]}
    assert kept(rank(target, 3)) == {"a": [False, True], "b": [False, False]}


@pytest.mark.parametrize("outside", [frozenset(), frozenset({"a", "b"})])
def test_global_takes_scores_of_one_kind(outside: frozenset[str]) -> None:
    mixed = two_layers()
    target = Candidates(
        scores=mixed.scores, magnitudes=mixed.magnitudes, criterion="sf", by_magnitude=outside
    )
    assert kept(load_allocation("global")(target, 2)) == {
        "a": [False, True, False],
        "b": [True, True, True, True],
    }


def test_global_refuses_scores_of_two_kinds() -> None:
    with pytest.raises(InputError) as caught:
        load_allocation("global")(two_layers(), 3)
    assert str(caught.value) == (
        "--allocation: global cannot rank sf and magnitude scores together. choose pools or local"
    )


def test_local_takes_the_same_share_of_every_layer() -> None:
    target = candidates([([(2, 1.0)] * 10, False), ([(1, 5.0)] * 20, False)])
    masks = load_allocation("local")(target, 15)
    assert {key: int((~mask).sum()) for key, mask in masks.items()} == {"a": 5, "b": 10}


def test_local_takes_more_where_more_is_zero_already() -> None:
    weights: list[tuple[int, float]] = [(0, 1.0)] * 8 + [(1, 1.0)] * 2
    target = candidates([(weights, False), ([(1, 1.0)] * 10, False)])
    masks = load_allocation("local")(target, 10)
    assert {key: int((~mask).sum()) for key, mask in masks.items()} == {"a": 8, "b": 2}


def test_pools_takes_from_unscored_layers_what_magnitude_would() -> None:
    # By magnitude the lowest three are 0.1 of a, 0.2 and 0.3 of b: one from a, so two from b,
    # and there the score decides: 1.0 and 2.0.
    assert kept(load_allocation("pools")(two_layers(), 3)) == {
        "a": [False, True, True],
        "b": [True, True, False, False],
    }


def test_pools_is_magnitude_pruning_where_the_score_is_the_magnitude() -> None:
    mixed = two_layers()
    target = Candidates(
        scores=mixed.magnitudes,
        magnitudes=mixed.magnitudes,
        criterion="magnitude",
        by_magnitude=mixed.by_magnitude,
    )
    plain = Candidates(scores=mixed.magnitudes, magnitudes=mixed.magnitudes, criterion="magnitude")
    for count in range(8):
        pooled = load_allocation("pools")(target, count)
        assert kept(pooled) == kept(load_allocation("global")(plain, count))


def test_pools_does_not_take_what_is_pruned_already_for_a_large_weight() -> None:
    # the 9 is masked only, as in a forward pass under masks: beside it the 1 of a and the 2 of b go
    sizes = {"a": torch.tensor([9.0, 1.0, 8.0]), "b": torch.tensor([2.0, 7.0])}
    alive = {"a": torch.tensor([False, True, True]), "b": torch.tensor([True, True])}
    scores = {key: size.masked_fill(~alive[key], -math.inf) for key, size in sizes.items()}
    outside = frozenset({"a"})
    target = Candidates(
        scores=scores, magnitudes=sizes, criterion="sf", by_magnitude=outside, alive=alive
    )
    assert kept(load_allocation("pools")(target, 3)) == {
        "a": [False, False, True],
        "b": [False, True],
    }


def test_pools_alike_takes_the_same_share_of_both_pools() -> None:
    weights: list[tuple[int, float]] = [(1, 1.0)] * 10
    target = candidates([(weights, True), (weights, True), (weights, False), ([(3, 2.0)], False)])
    masks = load_allocation("pools-alike")(target, 20)
    by_layer = {key: int((~mask).sum()) for key, mask in masks.items()}
    assert by_layer["a"] + by_layer["b"] == 13  # 20 * 20 / 31 = 12.9
    assert by_layer["c"] + by_layer["d"] == 7


def test_pools_dense_leaves_unscored_layers_as_they_are() -> None:
    assert kept(load_allocation("pools-dense")(two_layers(), 3)) == {
        "a": [True, True, True],
        "b": [True, False, False, False],
    }


def test_pools_dense_refuses_more_than_the_scored_layers_hold() -> None:
    assert count_pruned(load_allocation("pools-dense")(two_layers(), 4)) == 4
    with pytest.raises(InputError) as caught:
        load_allocation("pools-dense")(two_layers(), 5)
    assert str(caught.value) == (
        "--allocation: 5 weights to prune, but only 4 in scored layers. choose pools"
    )


def test_the_number_of_what_is_pruned_already_has_its_name_of_before_for_one_release() -> None:
    target = candidates([([(0, 1.0), (1, 2.0)], False), ([(0, 1.0), (0, 1.0)], True)])
    assert target.count_pruned_already(["a"]) == 1
    with pytest.warns(DeprecationWarning, match="is count_pruned_already now"):
        assert target.zeros(["a", "b"]) == 3


def test_an_unknown_allocation_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"unknown allocation 'pool'\. did you mean"):
        load_allocation("pool")


def test_a_file_of_the_users_own_allocates(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def keep_all(candidates, count):\n"
        "    return {key: weight >= 0 for key, weight in candidates.magnitudes.items()}\n"
    )
    allocation = load_allocation(f"{tmp_path / 'mine.py'}:keep_all")
    masks: dict[str, Tensor] = allocation(two_layers(), 3)
    assert count_pruned(masks) == 0
