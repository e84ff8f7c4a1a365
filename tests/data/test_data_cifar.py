"""CIFAR in small pickles of the true form, whose MD5 sums torchvision is told to expect."""

import hashlib
import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError

KINDS = {"cifar10": (CIFAR10, "labels", 10), "cifar100": (CIFAR100, "fine_labels", 100)}
PER_FILE = 20


class OldPickler(pickle.Pickler):
    """Writes a dtype that NumPy >= 2.4 warns of, as 2.4.0 to 2.4.4 do of the original files."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return partial(np.dtype, align=0), ("u1",), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    OldPickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def pixels(seed: int) -> np.ndarray[Any, Any]:
    """Rows as in CIFAR: 1024 red, 1024 green, 1024 blue values of 32 rows of 32."""
    return np.random.default_rng(seed).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)


def write_set(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kind, key, classes = KINDS[name]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)

    def written(file: str, value: object) -> str:
        data = pickled(value)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(seed: int) -> dict[str, Any]:
        labels = [(seed + index) % classes for index in range(PER_FILE)]
        return {"data": pixels(seed), key: labels, "batch_label": f"batch {seed}"}

    for listed in ("train_list", "test_list"):
        files = [file for file, _ in getattr(kind, listed)]
        start = 0 if listed == "train_list" else 90
        sums = [[file, written(file, batch(start + i))] for i, file in enumerate(files)]
        monkeypatch.setattr(kind, listed, sums)
    meta = {**kind.meta, "md5": ""}
    names = {meta["key"]: [f"class {number}" for number in range(classes)]}
    meta["md5"] = written(meta["filename"], names)
    monkeypatch.setattr(kind, "meta", meta)
    return folder


def opened(name: str, root: Path, **options: Any) -> DataSet:
    return open_data(name, options=DataOptions(root=root, **options))


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_the_batches_become_one_tensor_of_pictures(
    name: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(name, tmp_path, monkeypatch)
    data = opened(name, tmp_path)
    classes = KINDS[name][2]
    assert (data.name, data.classes, data.channels, data.size) == (name, classes, 3, 32)
    assert isinstance(data.train, ImageSplit)
    assert isinstance(data.test, ImageSplit)
    assert len(data.train) == files * PER_FILE
    expected = torch.from_numpy(pixels(90)).view(-1, 3, 32, 32)
    assert torch.equal(data.test.images, expected)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [(90 + index) % classes for index in range(PER_FILE)]


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_set_names_its_files_and_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        opened(name, tmp_path)
    kind = KINDS[name][0]
    assert caught.value.file == str(tmp_path / kind.base_folder)
    assert all(file in caught.value.message for file, _ in [*kind.train_list, *kind.test_list])
    assert caught.value.hint == "give --data-root or --download"
    assert list(tmp_path.iterdir()) == []


def test_only_the_files_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (write_set("cifar10", tmp_path, monkeypatch) / "data_batch_3").unlink()
    with pytest.raises(InputError) as caught:
        opened("cifar10", tmp_path)
    assert caught.value.message.endswith("looked for data_batch_3")


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_an_exchanged_pickle_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_set("cifar10", tmp_path, monkeypatch) / "test_batch"
    marker = tmp_path / "it ran"
    file.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(InputError, match=r"damaged.*delete it and get it again") as caught:
        opened("cifar10", tmp_path)
    assert caught.value.file == str(file)
    assert not marker.exists()


def test_a_download_that_is_impossible_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(InputError, match=r"cifar10 cannot be downloaded: .*refused"):
        opened("cifar10", tmp_path, download=True)
