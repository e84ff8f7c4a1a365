"""CIFAR from small pickles of the true form."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from cifar_files import KINDS, PER_FILE, pixels, write_set
from torchvision.datasets import CIFAR10

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError


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
