"""Every allocation prunes exactly as many as asked, whatever is pruned, tied or 0 already."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnprune.errors import InputError
from snnprune.masks import count_pruned
from snnprune.pruning.allocation import ALLOCATIONS, Candidates, load_allocation

SHAPES = st.lists(
    st.sampled_from([(2, 3), (5, 1), (1, 4), (2, 2, 3), (2, 1, 3, 3), (4, 2, 1, 1)]),
    min_size=1,
    max_size=5,
)
SCORES = torch.tensor([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0])
ENERGIES = torch.tensor([0.0, 1e-30, 0.1, 0.2])
PARTLY = ("global", "pools-dense", "uniform-plus", "flips")  # these may refuse, in words


def drawn(shape: tuple[int, ...], choices: Tensor, seed: torch.Generator) -> Tensor:
    return choices[torch.randint(len(choices), shape, generator=seed)]


@st.composite
def subjects(draw: st.DrawFn) -> Candidates:
    """Layers of few different values; what is alive may be 0 and what is pruned may be not."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shapes = {f"layer{number}": shape for number, shape in enumerate(draw(SHAPES))}
    some = st.sets(st.sampled_from(list(shapes)))
    by_magnitude, flipping = draw(some), draw(some)
    scale: Literal["linear", "log"] = draw(st.sampled_from(["linear", "log"]))
    scores, magnitudes, alive = {}, {}, {}
    for key, shape in shapes.items():
        alive[key] = drawn(shape, torch.tensor([True, True, False]), seed)
        size = drawn(shape, torch.tensor([0.0, 1.0, 2.0]), seed)
        own = size.log() if scale == "log" else size
        score = own if key in by_magnitude else drawn(shape, SCORES, seed)
        magnitudes[key], scores[key] = size, score.masked_fill(~alive[key], -math.inf)
    return Candidates(
        scores=scores,
        magnitudes=magnitudes,
        criterion="mine",
        by_magnitude=frozenset(by_magnitude),
        alive=alive,
        scale=scale,
        degree=draw(st.sampled_from([1, 2])),
        flips={key: drawn(shapes[key], ENERGIES, seed) for key in flipping},
    )


@pytest.mark.parametrize("name", ALLOCATIONS.rows)
@settings(max_examples=60, deadline=None)
@given(target=subjects(), share=st.floats(0, 1))
def test_the_count_is_exact_and_the_lowest_of_each_layer_go(
    name: str, target: Candidates, share: float
) -> None:
    count = round(share * target.size(target.keys))
    try:
        masks = load_allocation(name)(target, count)
    except InputError:
        assert name in PARTLY
        return
    masks = {key: mask & target.kept(key) for key, mask in masks.items()}
    assert count_pruned(masks) == max(count, target.count_pruned_already(target.keys))
    for key, mask in masks.items():
        assert mask.shape == target.magnitudes[key].shape
        stays, goes = target.scores[key][mask], target.scores[key][~mask]
        if name != "pools-dense" and len(stays) and len(goes):
            assert goes.max() <= stays.min()
