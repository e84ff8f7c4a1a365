"""From weights and scores to masks with an exact count."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.masks import apply_masks, count_prunable, count_pruned
from snnprune.pruning.allocation import (
    ALLOCATIONS,
    Allocation,
    Candidates,
    load_allocation,
    require_sparsity,
)
from snnprune.pruning.criteria import Criterion, Evidence, criterion, load_criterion
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.score import Scores, score

GLOBAL = load_allocation("global")
Weights = dict[str, Tensor]


def drawn(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Weights:
    """Layers a, b, ... of normal weights, none of them 0."""
    generator = torch.Generator().manual_seed(0)
    return {
        chr(ord("a") + number): (torch.randn(shape, generator=generator) + 1e-3).to(dtype)
        for number, shape in enumerate(shapes)
    }


def by(name: str, weights: Weights, *, seed: int = 0) -> Scores:
    return score(weights, load_criterion(name), name=name, seed=seed)


def cut(weights: Weights, sparsity: float, allocation: Allocation = GLOBAL) -> PruneResult:
    return prune(weights, by("magnitude", weights), sparsity=sparsity, allocation=allocation)


def in_pools(weights: Weights) -> Scores:
    """Scores as of a criterion that does not suit layer a and sees dead inputs in layer b."""
    plain = by("magnitude", weights)
    dead = torch.full_like(plain.values["b"], -torch.inf)
    return Scores(
        values={**plain.values, "b": dead},
        criterion="sf",
        scale="log",
        fallback={"a": "encoding layer"},
    )


@pytest.mark.parametrize("name", ["global", "local", "pools", "pools-alike"])
@pytest.mark.parametrize(
    ("sparsity", "expected"), [(0.0, 0), (0.5, 500), (0.9, 900), (0.99, 990), (0.9996, 1000)]
)
def test_the_count_is_the_rounded_share_of_all_weights(
    name: str, sparsity: float, expected: int
) -> None:
    weights = drawn((5, 4, 3, 3), (82, 10))
    result = cut(weights, sparsity, load_allocation(name))
    assert count_pruned(result.masks) == expected
    assert count_prunable(result.masks) == 1000
    assert result.already_zero == 0


def test_a_part_of_what_was_scored_is_cut_as_if_it_were_all() -> None:
    weights = drawn((5, 4, 3, 3), (82, 10), (6, 7))
    part = {key: weights[key] for key in ("a", "c")}
    alive = {key: weight > -1 for key, weight in weights.items()}
    for allowed in (None, alive):
        own = None if allowed is None else {key: allowed[key] for key in part}
        scores = score(weights, load_criterion("magnitude"), alive=allowed)
        scores_of_part = score(part, load_criterion("magnitude"), alive=own)
        one = prune(part, scores, sparsity=0.6, alive=allowed)
        other = prune(part, scores_of_part, sparsity=0.6, alive=own)
        assert one.already_zero == other.already_zero
        assert one.masks.keys() == other.masks.keys() == part.keys()
        assert all(torch.equal(one.masks[key], other.masks[key]) for key in part)


def test_without_an_allocation_it_is_the_one_that_fits_the_scores() -> None:
    weights = drawn((5, 4), (8, 10))
    for scores, name in ((by("magnitude", weights), "global"), (in_pools(weights), "pools")):
        named = prune(weights, scores, sparsity=0.5, allocation=load_allocation(name))
        found = prune(weights, scores, sparsity=0.5)
        assert all(torch.equal(found.masks[key], mask) for key, mask in named.masks.items())


def test_the_smallest_weights_go() -> None:
    weights = {"a": torch.tensor([[0.5, -0.1], [0.2, -0.9]]), "b": torch.tensor([[-0.3, 0.4]])}
    masks = cut(weights, 0.5).masks
    assert masks["a"].tolist() == [[True, False], [False, True]]
    assert masks["b"].tolist() == [[False, True]]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_equal_weights_are_pruned_to_the_exact_count(sparsity: float) -> None:
    masks = cut({"a": torch.full((10, 10), 0.25)}, sparsity).masks
    count = round(sparsity * 100)
    assert masks["a"].flatten().tolist() == [False] * count + [True] * (100 - count)


def test_old_zeros_are_counted_once_and_told() -> None:
    weights = drawn((10, 10))
    weights["a"][:3] = 0.0
    result = cut(weights, 0.5)
    assert count_pruned(result.masks) == 50
    assert not result.masks["a"][:3].any()
    assert result.already_zero == 30
    assert result.warnings == ("30 of the 50 pruned weights were 0 already",)


def test_zeros_that_are_just_what_was_asked_for_are_all_that_goes() -> None:
    weights = drawn((10, 10))
    weights["a"][:3] = 0.0
    result = cut(weights, 0.3)
    assert torch.equal(result.masks["a"], weights["a"] != 0)
    assert result.warnings == ("30 of the 30 pruned weights were 0 already",)


@pytest.mark.parametrize("name", ALLOCATIONS.rows)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.29])
def test_more_zeros_than_asked_for_all_stay_pruned(name: str, sparsity: float) -> None:
    weights = drawn((5, 10), (5, 10))
    weights["a"][:2] = 0.0
    weights["b"][:1] = -0.0
    scores = by("magnitude", weights) if name == "global" else in_pools(weights)
    allocation, flips = load_allocation(name), {"a": weights["a"] ** 2}
    result = prune(weights, scores, sparsity=sparsity, allocation=allocation, flips=flips)
    assert all(torch.equal(result.masks[key], weights[key] != 0) for key in weights)
    asked = round(100 * sparsity)
    assert result.warnings == (f"30 of 100 weights are 0 already, more than the {asked} asked for",)


def test_dead_inputs_go_after_zeros_and_by_magnitude() -> None:
    weights = {"a": torch.tensor([[9.0]]), "b": torch.tensor([[0.3, 0.0, 0.1, 0.2]])}
    result = prune(weights, in_pools(weights), sparsity=0.4, allocation=load_allocation("pools"))
    assert result.masks["b"].tolist() == [[True, False, False, True]]


def test_a_layer_that_is_pruned_whole_is_told() -> None:
    weights = {"a": torch.tensor([[0.1, 0.2]]), "b": torch.tensor([[1.0, 2.0]])}
    assert cut(weights, 0.5).warnings == ("a is pruned whole",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["magnitude", "random"])
def test_any_precision_of_weights_gives_the_exact_count(dtype: torch.dtype, name: str) -> None:
    weights = drawn((20, 50), dtype=dtype)
    result = prune(weights, by(name, weights), sparsity=0.9, allocation=GLOBAL)
    assert count_pruned(result.masks) == 900
    after = apply_masks(weights, result.masks)
    assert after["a"].dtype == dtype
    assert int((after["a"] == 0).sum()) == 900


def test_the_smallest_float16_weights_are_told_from_zero() -> None:
    weights = {"a": torch.tensor([[6e-8, 0.0, 1.2e-7, 1.0]], dtype=torch.float16)}
    assert cut(weights, 0.25).masks["a"].tolist() == [[True, False, True, True]]
    assert cut(weights, 0.5).masks["a"].tolist() == [[False, False, True, True]]


def test_float64_weights_are_told_apart_beyond_float32() -> None:
    weights = {"a": torch.tensor([[1.0, 1.0 - 1e-12, 1e-60, 0.0]], dtype=torch.float64)}
    assert cut(weights, 0.25).masks["a"].tolist() == [[True, True, True, False]]
    assert cut(weights, 0.75).masks["a"].tolist() == [[True, False, False, False]]


@given(
    layers=st.lists(
        st.lists(st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0]), min_size=1, max_size=20),
        min_size=1,
        max_size=4,
    ),
    sparsity=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_exactly_the_count_or_all_zeros_are_pruned_and_none_revived(
    layers: list[list[float]], sparsity: float
) -> None:
    weights = {str(number): torch.tensor([values]) for number, values in enumerate(layers)}
    zeros = sum(values.count(0.0) for values in layers)
    result = cut(weights, sparsity)
    total = sum(len(values) for values in layers)
    assert count_pruned(result.masks) == max(zeros, round(sparsity * total))
    assert result.already_zero == zeros
    assert all(not bool(result.masks[key][weights[key] == 0].any()) for key in weights)


def test_an_allocation_of_the_users_own_cannot_revive_zeros() -> None:
    def keep_all(candidates: Candidates, count: int) -> dict[str, Tensor]:
        return {key: weight >= 0 for key, weight in candidates.magnitudes.items()}

    weights = {"a": torch.tensor([[0.0, 1.0]])}
    assert cut(weights, 0.0, keep_all).masks["a"].tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (None, "gives no mask for every weight in its shape"),
        ([torch.ones(2, 3)], "gives no mask for every weight in its shape"),
        ({"a": torch.ones(2, 3)}, "gives no mask for every weight in its shape"),
        ({"a": torch.ones(2, 3), "b": [True]}, "gives no mask for every weight in its shape"),
        (
            {"a": torch.ones(2, 1), "b": torch.ones(1)},
            "gives no mask for every weight in its shape",
        ),
        ({"a": torch.ones(3), "b": torch.ones(1)}, "gives no mask for every weight in its shape"),
        ({"a": torch.ones(2, 3), "b": torch.ones(1)}, "prunes 0 weights instead of 3"),
        ({"a": torch.zeros(2, 3), "b": torch.ones(1)}, "prunes 6 weights instead of 3"),
    ],
)
def test_an_allocation_of_the_users_own_that_is_wrong_is_told(chosen: Any, message: str) -> None:
    def own(_: Candidates, count: int) -> Any:
        assert count == 3  # 0.49 * 7 = 3.43
        return chosen

    with pytest.raises(InputError) as caught:
        cut(drawn((2, 3), (1,)), 0.49, own)
    assert str(caught.value) == f"--allocation: {message}"


def test_weights_and_scores_are_left_unchanged() -> None:
    weights = drawn((10, 10))
    scores = by("magnitude", weights)
    before, scored = weights["a"].clone(), scores.values["a"].clone()
    prune(weights, scores, sparsity=0.5, allocation=GLOBAL)
    assert torch.equal(weights["a"], before)
    assert torch.equal(scores.values["a"], scored)


def test_random_is_the_same_for_a_seed_and_another_for_another() -> None:
    weights = drawn((20, 20), (20, 20))
    first, again, other = (
        prune(weights, by("random", weights, seed=seed), sparsity=0.5, allocation=GLOBAL).masks
        for seed in (0, 0, 1)
    )
    assert torch.equal(first["a"], again["a"])
    assert not torch.equal(first["a"], other["a"])
    assert not torch.equal(first["a"], first["b"])
    assert count_pruned(first) == count_pruned(other) == 400


HINT = "a share is written as 0.95, not 95"


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (1.0, f"--sparsity: 1 is outside [0, 1). {HINT}"),
        (-0.1, f"--sparsity: -0.1 is outside [0, 1). {HINT}"),
        (math.nan, f"--sparsity: nan is outside [0, 1). {HINT}"),
        (math.inf, f"--sparsity: inf is outside [0, 1). {HINT}"),
        (95, "--sparsity: 95 is outside [0, 1). did you mean 0.95?"),
        (99.5, "--sparsity: 99.5 is outside [0, 1). did you mean 0.995?"),
    ],
)
def test_a_sparsity_outside_its_range_is_a_usage_error(sparsity: float, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        require_sparsity(sparsity)
    assert str(caught.value) == message
    with pytest.raises(UsageError):
        cut(drawn((2, 2)), sparsity)


def test_masked_zeroes_what_is_pruned_and_keeps_order_and_type() -> None:
    tensors = {"b": torch.tensor([1.0, -2.0]).half(), "a": torch.tensor([3])}
    after = apply_masks(tensors, {"b": torch.tensor([False, True])})
    assert list(after) == ["b", "a"]
    assert after["b"].tolist() == [0.0, -2.0]
    assert after["b"].dtype == torch.float16
    assert after["a"] is tensors["a"]


def test_masked_makes_zeros_of_what_was_not_finite() -> None:
    after = apply_masks({"a": torch.tensor([math.nan, 1.0])}, {"a": torch.tensor([False, True])})
    assert after["a"].tolist() == [0.0, 1.0]


def test_scores_are_in_the_weights_shape_and_lowest_at_zeros() -> None:
    scores = by("random", {"a": torch.tensor([[1.0, 0.0], [2.0, 3.0]], dtype=torch.float64)})
    assert scores.values["a"].isinf().tolist() == [[False, True], [False, False]]
    assert scores.used("a") == "random"


def test_a_criterion_that_needs_spikes_asks_for_network_and_data() -> None:
    with pytest.raises(InputError) as caught:
        by("sf", drawn((2, 2)))
    assert str(caught.value) == (
        "--criterion: sf needs the network and data to calibrate on. "
        "give --model and --data, or choose magnitude"
    )


@criterion(needs="weight")
def whole_numbers(evidence: Evidence) -> Tensor:
    return (10 * evidence.weight).abs().round().int()


def test_scores_that_are_whole_numbers_rank_too() -> None:
    weights = {"a": torch.tensor([[0.3, 0.0, -0.1, 0.52]])}
    scores = score(weights, whole_numbers)
    assert scores.values["a"].tolist() == [[3, -math.inf, 1, 5]]
    assert prune(weights, scores, sparsity=0.5).masks["a"].tolist() == [[True, False, False, True]]


@criterion(needs="weight")
def not_a_number(evidence: Evidence) -> Tensor:
    return evidence.weight / 0 * 0


@criterion(needs="weight")
def one_per_row(evidence: Evidence) -> Tensor:
    return evidence.weight.sum(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (not_a_number, "a: mine gives NaN for 6 weights"),
        (one_per_row, "a: mine gives (2,) instead of a tensor of (2, 3)"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(wrong: Criterion, message: str) -> None:
    with pytest.raises(InputError) as caught:
        score(drawn((2, 3)), wrong, name="mine")
    assert str(caught.value) == message
