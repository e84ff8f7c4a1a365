"""Mask files: bits, and files that only look like them."""

import tempfile
from pathlib import Path
from typing import cast

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from torch import BoolTensor, Tensor

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.mask_file import read_masks, write_masks
from snnprune.errors import InputError


def mask(values: object) -> BoolTensor:
    return cast(BoolTensor, torch.tensor(values, dtype=torch.bool))


def test_the_first_position_is_the_lowest_bit_of_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    kept = mask([[1, 0, 0, 0, 1], [0, 0, 1, 0, 1]])  # bits 0, 4, 7 and 9
    write_masks(path, {"fc.weight": kept}, {"snnprune.criterion": "sf"})
    stored = safetensors.torch.load_file(path)["fc.weight"]
    assert stored.dtype == torch.uint8
    assert stored.tolist() == [0b10010001, 0b00000010]
    assert read_checkpoint(path).metadata == {
        "snnprune.criterion": "sf",
        "snnprune.shapes": '{"fc.weight": [2, 5]}',
    }


shapes = st.lists(st.integers(0, 6), max_size=4).map(tuple)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("ab.é", max_size=6), shapes, min_size=1, max_size=4))
def test_masks_come_back_as_they_were_written(shapes: dict[str, tuple[int, ...]]) -> None:
    masks = {name: cast(BoolTensor, torch.rand(shape) < 0.5) for name, shape in shapes.items()}
    with tempfile.TemporaryDirectory() as folder:
        write_masks(Path(folder) / "mask", masks, {})
        read = read_masks(Path(folder) / "mask")
    assert list(read) == list(masks)
    for name, expected in masks.items():
        assert read[name].dtype == torch.bool
        assert read[name].shape == expected.shape
        assert torch.equal(read[name], expected)


def test_a_mask_that_was_turned_keeps_its_positions(tmp_path: Path) -> None:
    kept = mask([[1, 0, 1], [0, 0, 0]])
    write_masks(tmp_path / "mask", {"w": cast(BoolTensor, kept.T)}, {})
    assert read_masks(tmp_path / "mask")["w"].tolist() == kept.T.tolist()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (None, "is not a mask file"),
        ("[2, 5]", "snnprune.shapes: is not a table of shapes"),
        ('{"w": 10}', "snnprune.shapes: is not a table of shapes"),
        ('{"w": [-2, -5]}', "snnprune.shapes: is not a table of shapes"),
        ('{"w": [4294967296, 4294967296]}', "snnprune.shapes: is not a table of shapes"),
        ('{"w": [2, 5], "w": [2, 5]}', "snnprune.shapes: the text has the name 'w' twice"),
        ('{"w": [2, 5', "snnprune.shapes: the text is not JSON"),
        ("[" * 100_000, "snnprune.shapes: the text is nested too deep"),
        ("{}", "w: has no shape"),
        ('{"w": [2, 5], "v": [1]}', "v: has no tensor"),
        ('{"w": [2, 8, 2]}', r"w: a mask of shape \[2, 8, 2\] is 4 bytes, .* of shape \[2\]"),
        ('{"w": [2, 4]}', "w: a mask of shape .* is 1 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_a_mask_file_is_refused(tmp_path: Path, shapes: str | None, words: str) -> None:
    metadata = {} if shapes is None else {"snnprune.shapes": shapes}
    path = tmp_path / "mask.safetensors"
    safetensors.torch.save_file({"w": torch.tensor([1, 2], dtype=torch.uint8)}, path, metadata)
    with pytest.raises(InputError, match=words):
        read_masks(path)


@pytest.mark.parametrize(
    "packed", [torch.ones(2), torch.ones(2, 1, dtype=torch.uint8)], ids=["dtype", "dims"]
)
def test_bits_of_another_type_or_shape_are_refused(tmp_path: Path, packed: Tensor) -> None:
    path = tmp_path / "mask.safetensors"
    safetensors.torch.save_file({"w": packed}, path, {"snnprune.shapes": '{"w": [16]}'})
    with pytest.raises(InputError, match="w: a mask of shape"):
        read_masks(path)


def test_a_torch_file_is_not_a_mask_file(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "mask.safetensors")
    with pytest.raises(InputError, match=r"is not a mask file\. snnprune prune writes one"):
        read_masks(tmp_path / "mask.safetensors")
