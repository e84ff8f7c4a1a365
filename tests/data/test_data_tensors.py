"""Samples in a tensor file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError

X = torch.arange(48, dtype=torch.float32).view(4, 3, 2, 2)
Y = torch.tensor([0, 2, 1, 2])


def opened(path: Path, **tensors: Tensor) -> DataSet:
    write_safetensors(path, tensors, {})
    return open_data(f"tensors:{path}", options=DataOptions())


def batch(data: DataSet) -> tuple[Tensor, Tensor | None]:
    assert data.given is not None
    return next(iter(data.given.batches(4)))


def test_samples_are_given_to_train_on(tmp_path: Path) -> None:
    data = opened(tmp_path / "d.safetensors", x=X, y=Y)
    assert data.name == f"tensors:{tmp_path / 'd.safetensors'}"
    assert (data.classes, data.channels, data.size) == (3, 3, 2)
    assert isinstance(data.train, ImageSplit)
    x, y = batch(data)
    assert torch.equal(x, X)
    assert torch.equal(x, data.train.images)
    assert y is not None
    assert torch.equal(y, Y)


def test_a_torch_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    torch.save({"x": X, "y": Y}, path)
    assert torch.equal(batch(open_data(f"tensors:{path}", options=DataOptions()))[0], X)


def test_labels_are_optional(tmp_path: Path) -> None:
    data = opened(tmp_path / "d.safetensors", x=X)
    assert data.classes is None
    assert batch(data)[1] is None


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.tensor([[0, 51, 255]], dtype=torch.uint8), [0.0, 0.2, 1.0]),
        (torch.tensor([[0, 1, 3]]), [0.0, 1.0, 3.0]),
        (torch.tensor([[True, False]]), [1.0, 0.0]),
        (torch.tensor([[0.5, -2.0]], dtype=torch.float16), [0.5, -2.0]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_bytes_are_pixels_and_everything_else_is_a_value(
    x: Tensor, expected: list[float], tmp_path: Path
) -> None:
    got, _ = batch(opened(tmp_path / "d.safetensors", x=x))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor([expected]))


def test_samples_need_not_be_pictures(tmp_path: Path) -> None:
    data = opened(tmp_path / "d.safetensors", x=torch.zeros(4, 5, 3, 8, 8), y=Y)
    assert (data.channels, data.size) == (None, None)
    assert batch(data)[0].shape == (4, 5, 3, 8, 8)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"images": X, "labels": Y}, "x: holds images, labels. name the samples x"),
        ({"x": X[:, 0, 0, 0]}, r"x: has shape \(4,\) and type torch.float32"),
        ({"x": X[:0]}, r"x: has shape \(0, 3, 2, 2\)"),
        ({"x": torch.full((2, 3), float("nan"))}, "x: has NaN or infinity in it$"),
        ({"x": X, "y": Y[:3]}, r"y: has shape \(3,\) and type torch.int64, expected 4 whole"),
        ({"x": X, "y": Y.view(4, 1)}, r"y: has shape \(4, 1\)"),
        ({"x": X, "y": Y.float()}, r"y: has shape \(4,\) and type torch.float32"),
        ({"x": X, "y": Y - 1}, r"label -1 is outside 0 \.\. 1"),
    ],
    ids=["no x", "one dimension", "empty", "nan", "lengths", "column", "float", "negative"],
)
def test_what_is_wrong_with_the_tensors_is_said(
    tensors: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path / "d.safetensors", **tensors)
    assert str(tmp_path / "d.safetensors") in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt"):
        open_data(f"tensors:{tmp_path / 'none.pt'}", options=DataOptions())
