"""N:M patterns, against a search of each group by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.pruning.score import Scores
from snnprune.pruning.structure import PatternCutting, Structure, parse_structure

SHAPES = [(4, 8, 3, 3), (3, 16), (2, 8, 5)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scores_of(values: Tensor) -> Scores:
    return Scores(values={"w": values}, criterion="any", scale="linear")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:2"])
def test_each_group_keeps_its_highest_scores(shape: tuple[int, ...], pattern: str) -> None:
    structure = parse_structure(pattern)
    weight, values = drawn(shape), drawn(shape, seed=1)
    mask = PatternCutting(structure)({"w": weight}, scores_of(values), 0.0, None).masks["w"]
    n, m = structure.kept, structure.group
    others = [range(size) for axis, size in enumerate(shape) if axis != 1]
    for first, *place in product(*others):
        for begin in range(0, shape[1], m):
            group = [(first, begin + i, *place) for i in range(m)]
            best = sorted(group, key=lambda at: float(values[at]))[-n:]
            assert {at for at in group if mask[at]} == set(best)
    assert int(mask.sum()) == weight.numel() * n // m


def test_ties_go_by_magnitude_and_then_by_place() -> None:
    weight = torch.tensor([[0.5, -2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    cut = PatternCutting(parse_structure("2:4"))(
        {"w": weight}, scores_of(torch.zeros(2, 4)), 0.0, None
    )
    assert cut.masks["w"].tolist() == [[False, True, False, True], [False, False, True, True]]


def test_what_is_pruned_already_goes_first_and_never_comes_back() -> None:
    weight = torch.tensor([[0.0, 9.0, 8.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    values = weight.masked_fill(weight == 0, -torch.inf)
    cut = PatternCutting(parse_structure("2:4"))({"w": weight}, scores_of(values), 0.0, None)
    assert cut.masks["w"].tolist() == [[False, True, True, False], [False, False, False, True]]
    assert cut.already_zero == 4


def test_a_layer_of_other_inputs_stays_whole_and_is_told() -> None:
    weight = drawn((4, 1, 3, 3))
    cut = PatternCutting(parse_structure("2:4"))({"w": weight}, scores_of(weight), 0.0, None)
    assert bool(cut.masks["w"].all())
    assert cut.warnings == ("w has no 2:4: 1 inputs are no multiple of 4",)


@pytest.mark.parametrize("text", ["4:2", "0:4", "2:2", "2:65", "2-4", "rows", ""])
def test_an_unknown_structure_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown structure"):
        parse_structure(text)
    with pytest.raises(InputError, match="unknown structure"):
        parse_structure(text, field="prune.structure")


def test_the_names_are_read() -> None:
    assert parse_structure("channels") == Structure(name="channels")
    assert parse_structure("2:4").sparsity == 0.5
    assert parse_structure("63:64") == Structure(name="63:64", kept=63, group=64)
    assert [parse_structure(text).is_pattern for text in ("1:2", "channels")] == [True, False]
