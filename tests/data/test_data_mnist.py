"""MNIST and Fashion-MNIST, in small files of the true format."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import MNIST

from snnprune.data import DataOptions, DataSet, open_data, public
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError

COUNTS = {"train": 20, "t10k": 10}


def write_set(folder: Path, *, packed: bool) -> None:
    folder.mkdir(parents=True)
    for part, count in COUNTS.items():
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        labels = torch.arange(count).remainder(10).to(torch.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            data = public.encode_idx(values)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)


def opened(name: str, root: Path, **options: Any) -> DataSet:
    return open_data(name, options=DataOptions(root=root, **options))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_a_set_is_found_in_either_folder_packed_or_not(
    name: str, folder: str, packed: bool, tmp_path: Path
) -> None:
    write_set(tmp_path / folder, packed=packed)
    data = opened(name, tmp_path)
    assert (data.name, data.classes, data.channels, data.size) == (name, 10, 1, 28)
    assert isinstance(data.train, ImageSplit)
    assert isinstance(data.test, ImageSplit)
    assert (len(data.train), len(data.test)) == (20, 10)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == list(range(10))


def test_the_images_are_those_that_torchvision_reads(tmp_path: Path) -> None:
    write_set(tmp_path / "MNIST" / "raw", packed=False)
    data, reference = opened("mnist", tmp_path), MNIST(tmp_path, train=True)
    assert isinstance(data.train, ImageSplit)
    assert torch.equal(data.train.images[:, 0], reference.data)
    assert data.train.labels is not None
    assert torch.equal(data.train.labels, reference.targets)


def test_a_missing_set_names_its_files_the_places_and_the_flags(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        opened("fashion-mnist", tmp_path / "sets")
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/sets/FashionMNIST/raw: fashion-mnist is not there")
    assert all(f"{file}.gz" in line for file in public.NAMES)
    assert f"{tmp_path}/sets/fashion-mnist" in line
    assert line.endswith("give --data-root or --download")
    assert not (tmp_path / "sets").exists()


def test_a_download_without_a_connection_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing listens there
    with pytest.raises(InputError, match=r"mnist cannot be downloaded: .*refused"):
        opened("mnist", tmp_path, download=True)
    assert capsys.readouterr().out == ""


def test_a_set_that_is_there_is_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    write_set(tmp_path / "mnist", packed=True)
    assert opened("mnist", tmp_path, download=True).classes == 10


def damaged(kind: str, data: bytes) -> bytes:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    long_header = public.encode_idx(torch.zeros(1, 1, 1, dtype=torch.uint8))
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "cut in the header": gzip.compress(gzip.decompress(data)[:6]),
        "flipped": bytes(flipped),
        "not packed": gzip.decompress(data),
        "other format": gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(100)),
        "short of values": gzip.compress(gzip.decompress(data)[:-1]),
        "too many values": gzip.compress(gzip.decompress(data) + b"\0"),
        "no values": gzip.compress(public.encode_idx(torch.zeros(0, 28, 28, dtype=torch.uint8))),
        "labels": gzip.compress(public.encode_idx(torch.zeros(20, dtype=torch.uint8))),
        "lying header": gzip.compress(long_header[:4] + b"\xff" * 12 + b"\0"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "cut",
        "cut in the header",
        "flipped",
        "not packed",
        "other format",
        "short of values",
        "too many values",
        "no values",
        "labels",
        "lying header",
    ],
)
def test_a_damaged_file_is_named_and_to_be_deleted(kind: str, tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", packed=True)
    file = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    file.write_bytes(damaged(kind, file.read_bytes()))
    with pytest.raises(InputError, match=r"damaged: .*delete it and get it again") as caught:
        opened("mnist", tmp_path)
    assert caught.value.file == str(file)


def test_a_set_without_images_is_refused_in_plain_words(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", packed=True)
    file = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(public.encode_idx(torch.zeros(0, dtype=torch.uint8))))
    with pytest.raises(InputError, match="damaged: holds 0 values"):
        opened("mnist", tmp_path)


def test_images_and_labels_must_be_equally_many(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", packed=True)
    labels = torch.zeros(19, dtype=torch.uint8)
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(public.encode_idx(labels)))
    with pytest.raises(InputError, match="train has 20 images and 19 labels"):
        opened("mnist", tmp_path)


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", packed=True)
    labels = torch.full((20,), 10, dtype=torch.uint8)
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(public.encode_idx(labels)))
    with pytest.raises(InputError, match=r"label 10 is outside 0 \.\. 9"):
        opened("mnist", tmp_path)
