"""SVHN in small MATLAB files of the true form, whose MD5 sums torchvision is told to expect."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import io
from torchvision.datasets import SVHN

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.data.public import svhn
from snnprune.errors import InputError

COUNTS = {"train": 20, "test": 10}


def pixels(count: int) -> np.ndarray[Any, Any]:
    """(32, 32, 3, N), as the files have it."""
    return np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def write_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = dict(SVHN.split_list)
    for split, count in COUNTS.items():
        url, file, _ = listed[split]
        labels = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]  # 1 .. 10, 10 for the digit 0
        io.savemat(root / file, {"X": pixels(count), "y": labels})
        listed[split] = [url, file, hashlib.md5((root / file).read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", listed)


def opened(root: Path, **options: Any) -> DataSet:
    return open_data("svhn", options=DataOptions(root=root, **options))


def test_pictures_are_channels_first_and_ten_stands_for_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path, monkeypatch)
    data = opened(tmp_path)
    assert (data.name, data.classes, data.channels, data.size) == ("svhn", 10, 3, 32)
    assert isinstance(data.train, ImageSplit)
    assert isinstance(data.test, ImageSplit)
    assert (len(data.train), len(data.test)) == (20, 10)
    assert torch.equal(data.test.images, torch.from_numpy(pixels(10)).permute(3, 2, 0, 1))
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_a_missing_set_names_both_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for train_32x32\.mat, test_32x32\.mat"):
        opened(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, monkeypatch)
    file = tmp_path / "train_32x32.mat"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged") as caught:
        opened(tmp_path)
    assert caught.value.file == str(file)


def test_without_scipy_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"read with scipy\. pip install scipy"):
        svhn(DataOptions(root=tmp_path))
