"""Allocations that look at shapes, against hand-worked numbers and the published procedure."""

import math

import pytest
import torch

from snnprune.errors import InputError
from snnprune.pruning.allocation import Candidates, load_allocation

Shape = tuple[int, ...]
NETWORK: dict[str, Shape] = {
    "conv1": (8, 1, 3, 3),
    "conv2": (16, 8, 3, 3),
    "conv3": (32, 16, 3, 3),
    "hidden": (64, 512),
    "classifier": (10, 64),
}


def layers(shapes: dict[str, Shape], zeros: dict[str, int] | None = None) -> Candidates:
    """Weights of 1, 2, ..., the first `zeros` of them 0."""
    weights = {key: torch.arange(math.prod(shape)) + 1.0 for key, shape in shapes.items()}
    for key, number in (zeros or {}).items():
        weights[key][:number] = 0
    sizes = {key: weight.view(shapes[key]) for key, weight in weights.items()}
    scores = {key: size.masked_fill(size == 0, -torch.inf) for key, size in sizes.items()}
    return Candidates(scores=scores, magnitudes=sizes, criterion="mine")


def pruned(name: str, candidates: Candidates, count: int) -> dict[str, int]:
    masks = load_allocation(name)(candidates, count)
    return {key: int((~mask).sum()) for key, mask in masks.items()}


def published(shapes: dict[str, Shape], density: float) -> dict[str, float]:
    """How many weights Evci et al. keep of each layer: raise what is over 1, solve for epsilon."""
    dense: set[str] = set()
    while True:
        sizes = {key: math.prod(shape) for key, shape in shapes.items()}
        raw = {key: sum(shape) / sizes[key] for key, shape in shapes.items()}
        budget = density * sum(sizes.values()) - sum(sizes[key] for key in dense)
        epsilon = budget / sum(raw[key] * sizes[key] for key in shapes if key not in dense)
        over = {key for key in shapes if key not in dense and epsilon * raw[key] > 1}
        if not over:
            return {
                key: size if key in dense else epsilon * raw[key] * size
                for key, size in sizes.items()
            }
        dense |= over


@pytest.mark.parametrize("density", [0.005, 0.02, 0.1, 0.5, 0.9])
def test_erk_keeps_what_the_published_procedure_keeps(density: float) -> None:
    candidates = layers(NETWORK)
    total = candidates.size(candidates.keys)
    count = round((1 - density) * total)
    found = pruned("erk", candidates, count)
    assert sum(found.values()) == count
    expected = published(NETWORK, 1 - count / total)
    for key, shape in NETWORK.items():
        assert abs(math.prod(shape) - found[key] - expected[key]) < 1


def test_erk_leaves_dense_what_would_be_more_than_dense() -> None:
    # 2 + 1 and 2 + 10 of 12 for each: the first has 2 weights only, so the other 10 are left
    assert pruned("erk", layers({"a": (2, 1), "b": (2, 10)}), 10) == {"a": 0, "b": 10}


def test_erk_gives_what_is_pruned_already_to_the_others() -> None:
    shapes: dict[str, Shape] = {"a": (10, 10), "b": (10, 10)}
    assert pruned("erk", layers(shapes), 60) == {"a": 30, "b": 30}
    assert pruned("erk", layers(shapes, {"a": 50}), 60) == {"a": 50, "b": 10}


def test_uniform_plus_keeps_the_first_convolution_and_a_fifth_of_the_last_layer() -> None:
    found = pruned("uniform-plus", layers(NETWORK), 36_000)
    # 640 * 4 / 5 of the classifier; the rest of 38 528 evenly: (36 000 - 512) / (38 528)
    rest = {"conv2": 1152, "conv3": 4608, "hidden": 32768}
    share = (36_000 - 512) / sum(rest.values())
    assert (found["conv1"], found["classifier"]) == (0, 512)
    assert all(abs(found[key] - share * size) < 1 for key, size in rest.items())
    assert sum(found.values()) == 36_000


def test_uniform_plus_is_uniform_but_for_the_first_layer_up_to_four_fifths() -> None:
    found = pruned("uniform-plus", layers(NETWORK), 39_168 // 2)
    assert found == {"conv1": 0, "conv2": 576, "conv3": 2304, "hidden": 16_384, "classifier": 320}


def test_uniform_plus_of_linear_layers_alone_has_no_convolution_to_keep() -> None:
    assert pruned("uniform-plus", layers({"a": (10, 10), "b": (10, 10)}), 100) == {"a": 50, "b": 50}


def test_uniform_plus_keeps_a_first_convolution_over_time_too() -> None:
    shapes: dict[str, Shape] = {"a": (8, 1, 3), "b": (4, 8, 3), "c": (10, 4)}
    assert pruned("uniform-plus", layers(shapes), 68) == {"a": 0, "b": 48, "c": 20}


def test_uniform_plus_keeps_pruned_what_was() -> None:
    shapes: dict[str, Shape] = {"a": (4, 1, 3, 3), "b": (6, 6), "c": (10, 10)}
    candidates = layers(shapes, {"a": 7, "c": 90})
    assert pruned("uniform-plus", candidates, 120) == {"a": 7, "b": 23, "c": 90}


def test_uniform_plus_says_how_many_it_can_prune_at_most() -> None:
    candidates = layers(NETWORK)
    most = 38_528 + 512
    assert sum(pruned("uniform-plus", candidates, most).values()) == most
    with pytest.raises(InputError) as caught:
        load_allocation("uniform-plus")(candidates, most + 1)
    assert str(caught.value) == (
        "--allocation: uniform-plus prunes at most 39040 weights, not 39041. choose local or erk"
    )
