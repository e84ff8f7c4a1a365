"""The ranking of stored weights against a plain sort, and guesses that are wrong."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from snnprune.checkpoint import stored as pieces
from snnprune.checkpoint.header import NAMES, TYPES, StoredType
from snnprune.checkpoint.safetensors import require_dtype
from snnprune.checkpoint.stored import StoredTensor, cut_into_pieces, map_pieces, open_stored
from snnprune.errors import InputError
from snnprune.pruning import stored as ranking
from snnprune.pruning.stored import Interval, MaskMaker, find_cuts

Arrays = dict[str, npt.NDArray[np.float32]]
Masks = dict[str, npt.NDArray[np.bool_]]


def store(arrays: Arrays, folder: Path) -> dict[str, StoredTensor]:
    save_file(arrays, folder / "n.safetensors")
    opened = open_stored(folder / "n.safetensors")
    assert opened is not None
    return {key: opened.tensors[key] for key in arrays}


def make_masks(weights: dict[str, StoredTensor], sparsity: float, rule: str) -> Masks:
    zeros = dict.fromkeys(weights, 0)
    cuts = find_cuts(weights, zeros, sparsity, rule)
    masks = {}
    for key, weight in weights.items():
        maker = MaskMaker(cuts[key], key)
        found = map_pieces(lambda _, bits: bits.copy(), cut_into_pieces(weight))
        masks[key] = np.concatenate([maker.make(piece, bits) for piece, bits in found])
    return masks


def sort_masks(arrays: Arrays, sparsity: float) -> Masks:
    """True but for the lowest of all, by a stable sort."""
    flat = np.concatenate([np.abs(one.astype(np.float64)).ravel() for one in arrays.values()])
    kept = np.ones(len(flat), bool)
    kept[np.argsort(flat, kind="stable")[: round(sparsity * len(flat))]] = False
    ends = np.cumsum([one.size for one in arrays.values()])
    return dict(zip(arrays, np.split(kept, ends[:-1]), strict=True))


@pytest.mark.many(2)
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_sort_finds(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 128)
    monkeypatch.setattr(ranking, "FEW", 1000)
    monkeypatch.setattr(ranking, "RUN", 16)
    monkeypatch.setattr(ranking, "DIGIT", 3 + 2 * seed)
    draws = np.random.default_rng(seed)
    arrays = {
        f"l{i}.weight": np.round(draws.standard_normal((17, 60)) * 10**i, 2 * seed).astype(
            np.float32
        )
        for i in range(3)
    }
    weights = store(arrays, tmp_path)
    for sparsity in (0.001, 0.5, 0.9, 0.999):
        expected = sort_masks(arrays, sparsity)
        for key, mask in make_masks(weights, sparsity, "global").items():
            assert (mask == expected[key]).all()
        for key, mask in make_masks(weights, sparsity, "local").items():
            size = arrays[key].size
            assert abs(int((~mask).sum()) - sparsity * size) <= 1
            alone = sort_masks({key: arrays[key]}, int((~mask).sum()) / size)
            assert (mask == alone[key]).all()


def test_a_sample_that_misleads_costs_a_pass_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "FEW", 1000)
    values = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    values[0] = 1e-9  # all that a sample sees
    looked: list[Interval] = []
    counted = ranking._count_in

    def watch(weights: object, interval: Interval, *, wide: bool) -> object:
        looked.append(interval)
        return counted(weights, interval, wide=wide)  # type: ignore[arg-type]

    monkeypatch.setattr(ranking, "_count_in", watch)
    masks = make_masks(store({"w.weight": values}, tmp_path), 0.8, "global")
    assert (masks["w.weight"] == sort_masks({"w.weight": values}, 0.8)["w.weight"]).all()
    assert looked[1] == Interval(low=0, high=2**32)
    assert len(looked) < 5


def test_one_pass_is_enough_where_a_sample_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal((2048, 1024)).astype(np.float32)
    looked: list[Interval] = []
    counted = ranking._count_in

    def watch(weights: object, interval: Interval, *, wide: bool) -> object:
        looked.append(interval)
        return counted(weights, interval, wide=wide)  # type: ignore[arg-type]

    monkeypatch.setattr(ranking, "_count_in", watch)
    masks = make_masks(store({"w.weight": values}, tmp_path), 0.9, "global")
    assert (~masks["w.weight"]).sum() == round(0.9 * values.size)
    assert len(looked) < 3
    assert looked[0].high - looked[0].low < 2**22


def test_the_types_are_torch_s() -> None:
    for name, kind in TYPES.items():
        found = require_dtype(kind, Path("some.safetensors"), name)
        assert str(found) == f"torch.{kind}"
        assert (found.itemsize, found.is_floating_point) == (kind.itemsize, kind.is_floating_point)
        assert NAMES[kind.name] == name


def test_a_type_that_this_torch_lacks_is_refused_with_the_tensor_s_name() -> None:
    later = StoredType("float8_of_some_day", 1)
    with pytest.raises(InputError, match="has no float8_of_some_day") as refused:
        require_dtype(later, Path("some.safetensors"), "w.weight")
    assert refused.value.field == "w.weight"
