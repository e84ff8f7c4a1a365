"""LAMP and the allocation by predicted flips against their formulas, weight by weight."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.masks import Masks
from snnprune.pruning.allocation import Candidates, load_allocation

SHAPES = {"a": (4, 3, 3, 3), "b": (6, 4), "c": (3, 6)}


@pytest.fixture
def scores() -> dict[str, Tensor]:
    """Of layers of very different sizes of scores."""
    seed = torch.Generator().manual_seed(2)
    drawn = {
        key: torch.rand(shape, generator=seed, dtype=torch.float64) for key, shape in SHAPES.items()
    }
    return {"a": drawn["a"], "b": 50 * drawn["b"], "c": 1e-3 * drawn["c"]}


def target(scores: dict[str, Tensor], **others: object) -> Candidates:
    about = {"magnitudes": {key: torch.ones_like(score) for key, score in scores.items()}, **others}
    return Candidates(scores=scores, criterion="mine", **about)  # type: ignore[arg-type]  # by name


def gone(masks: Masks) -> dict[str, int]:
    return {key: int((~mask).sum()) for key, mask in masks.items()}


def same(one: Masks, other: Masks) -> bool:
    return all(torch.equal(mask, other[key]) for key, mask in one.items())


@pytest.mark.parametrize("count", [1, 10, 60, 120, 147])
def test_lamp_prunes_what_its_formula_ranks_lowest(scores: dict[str, Tensor], count: int) -> None:
    lamp = {
        key: np.array([s**2 / (s_all[s_all >= s] ** 2).sum() for s in s_all])
        for key, s_all in ((key, score.flatten().numpy()) for key, score in scores.items())
    }
    cut = np.sort(np.concatenate(list(lamp.values())))[count]
    masks = load_allocation("lamp")(target(scores), count)
    for key, mask in masks.items():
        assert mask.flatten().tolist() == (lamp[key] >= cut).tolist()


def test_lamp_gives_logarithms_and_squares_of_scores_the_same_masks(
    scores: dict[str, Tensor],
) -> None:
    lamp = load_allocation("lamp")
    expected = lamp(target(scores), 100)
    logs = {key: score.log() for key, score in scores.items()}
    squares = {key: score**2 for key, score in scores.items()}
    assert same(lamp(target(logs, scale="log"), 100), expected)
    assert same(lamp(target(squares, degree=2), 100), expected)
    twice = {key: 2 * log for key, log in logs.items()}
    assert same(lamp(target(twice, scale="log", degree=2), 100), expected)


def test_lamp_ranks_logarithms_whose_scores_underflow() -> None:
    far = torch.tensor([-2000.0, -2000.0 + math.log(2)])  # 1 / (1 + 4)
    near = torch.tensor([-1.0, -1.0 + math.log(3)])  # 1 / (1 + 9)
    masks = load_allocation("lamp")(target({"far": far, "near": near}, scale="log"), 1)
    assert gone(masks) == {"far": 0, "near": 1}


def test_lamp_takes_layers_scored_by_magnitude_in_degree_one(scores: dict[str, Tensor]) -> None:
    lamp = load_allocation("lamp")
    mixed = {**{key: score**2 for key, score in scores.items()}, "c": scores["c"]}
    masks = lamp(target(mixed, degree=2, by_magnitude=frozenset({"c"})), 100)
    assert same(masks, lamp(target(scores), 100))


def test_lamp_leaves_every_layer_its_best_weight(scores: dict[str, Tensor]) -> None:
    silent = {**scores, "silent": torch.zeros(3, 3)}
    masks = load_allocation("lamp")(target(silent), 108 + 24 + 18 + 9 - 4)
    assert {key: int(mask.sum()) for key, mask in masks.items()} == dict.fromkeys(silent, 1)


def test_lamp_takes_negative_scores_for_zero_in_their_order() -> None:
    scores = {"a": torch.tensor([-3.0, -5.0, 1.0]), "b": torch.tensor([2.0, 2.0])}
    masks = load_allocation("lamp")(target(scores), 1)
    assert masks["a"].tolist() == [True, False, True]


def test_lamp_keeps_infinite_scores_to_the_end() -> None:
    scores = {"a": torch.tensor([math.inf, math.inf, 1.0]), "b": torch.tensor([1.0, 3.0])}
    assert gone(load_allocation("lamp")(target(scores), 2)) == {"a": 1, "b": 1}


def test_lamp_empties_no_layer_before_one_of_infinite_scores_has_a_single_weight() -> None:
    scores = {"a": torch.tensor([math.inf, math.inf, 1.0]), "b": torch.tensor([1.0, 3.0])}
    lamp = load_allocation("lamp")
    assert gone(lamp(target(scores), 3)) == {"a": 2, "b": 1}
    alone_first = {"b": torch.tensor([3.0]), "a": torch.tensor([math.inf, math.inf])}
    assert gone(lamp(target(alone_first), 1)) == {"b": 0, "a": 1}


def test_lamp_of_magnitudes_takes_as_many_as_lamp_would_and_those_of_the_lowest_scores(
    scores: dict[str, Tensor],
) -> None:
    others = {key: score.flip(0) ** 2 for key, score in scores.items()}
    about: dict[str, Any] = {"magnitudes": scores, "degree": 2, "by_magnitude": frozenset("c")}
    masks = load_allocation("lamp-magnitude")(target(others, **about), 100)
    assert gone(masks) == gone(load_allocation("lamp")(target(scores), 100))
    for key, mask in masks.items():
        assert others[key][mask].min() > others[key][~mask].max()


def predicted(energies: Tensor, gone: Tensor) -> float:
    """The share of flipped spikes, output by output."""
    rows = zip(energies.flatten(1).tolist(), gone.flatten(1).tolist(), strict=True)
    roots = [math.sqrt(sum(e for e, out in zip(*row, strict=True) if out)) for row in rows]
    return sum(roots) / len(roots)


def one_more(scores: Tensor, mask: Tensor) -> Tensor:
    """What is gone once the next weight is too."""
    best = int(scores.masked_fill(~mask, math.inf).argmin())
    out = ~mask.clone()
    out.view(-1)[best] = True
    return out


@pytest.mark.parametrize("count", [5, 40, 100, 140])
def test_flips_takes_every_layer_to_the_same_predicted_share(
    scores: dict[str, Tensor], count: int
) -> None:
    energies = {key: score.flip(0) ** 2 for key, score in scores.items()}
    masks = load_allocation("flips")(target(scores, flips=energies), count)
    assert sum(gone(masks).values()) == count
    now = [predicted(energies[key], ~mask) for key, mask in masks.items()]
    then = [
        predicted(energies[key], one_more(scores[key], mask))
        for key, mask in masks.items()
        if mask.any()
    ]
    assert max(now) <= min(then)  # whichever went further would go above all others


def test_flips_takes_of_unknown_layers_what_lamp_would(scores: dict[str, Tensor]) -> None:
    known = {"a": scores["a"] ** 2, "b": 1e9 * scores["b"]}
    candidates = target(scores, flips=known)
    by_lamp, masks = (load_allocation(name)(candidates, 80) for name in ("lamp", "flips"))
    assert gone(masks)["c"] == gone(by_lamp)["c"] > 0
    assert gone(masks) != gone(by_lamp)


def test_flips_counts_what_goes_beside_what_was_pruned_already() -> None:
    scores = {"a": torch.tensor([[-math.inf, 1.0, 2.0]]), "b": torch.tensor([[1.0, 2.0, 3.0]])}
    alive = {"a": torch.tensor([[False, True, True]]), "b": torch.ones(1, 3, dtype=torch.bool)}
    flips = {"a": torch.tensor([[9.0, 4.0, 1.0]]), "b": torch.tensor([[1.0, 2.0, 7.0]])}
    # beside the one of a, sqrt(4) of a against sqrt(1) and sqrt(1 + 2) of b
    masks = load_allocation("flips")(target(scores, flips=flips, alive=alive), 3)
    assert gone(masks) == {"a": 1, "b": 2}


def test_flips_without_statistics_says_what_it_needs(scores: dict[str, Tensor]) -> None:
    with pytest.raises(InputError) as caught:
        load_allocation("flips")(target(scores), 10)
    assert str(caught.value) == (
        "--allocation: flips needs statistics of spikes. give --model and --data, or choose lamp"
    )
